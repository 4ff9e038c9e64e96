"""Drills: disasters that are played, each a small module with its NAME and `aim`."""
