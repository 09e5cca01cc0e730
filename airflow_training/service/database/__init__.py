"""The database of the service: SQLite or PostgreSQL."""
