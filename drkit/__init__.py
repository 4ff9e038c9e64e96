"""drkit: backup and disaster recovery for PostgreSQL, proven by restoring."""

__version__ = "0.1.0"
