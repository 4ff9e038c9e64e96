"""Incremental backups, proven by comparing what comes back with what there was."""
