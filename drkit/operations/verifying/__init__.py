"""Verifying a repository: a module for each thing that is looked at."""
