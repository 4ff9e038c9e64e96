"""Drill reports: what the evidence of a quarter says, and four ways to write it."""
