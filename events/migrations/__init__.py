"""Alembic's migrations of the database of events; `events.database` runs them."""
