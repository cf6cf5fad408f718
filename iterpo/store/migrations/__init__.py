"""The tables of the feedback store, version by version: Alembic's scripts, for SQLite and PostgreSQL alike."""
