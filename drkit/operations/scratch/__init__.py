"""Scratch instances: restored clusters that are recovered, looked at, and then gone."""
