"""Bytes and names only: drivers of the Storage protocol, and its decorators."""
