"""Parse, call one operation, render, map errors to exit codes; no logic."""
