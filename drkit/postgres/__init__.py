"""Everything that knows how a PostgreSQL server and its files behave."""
