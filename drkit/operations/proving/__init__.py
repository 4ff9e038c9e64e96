"""Proving that a restored cluster is what was backed up: a check a module."""
