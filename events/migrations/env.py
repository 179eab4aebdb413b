"""Alembic's entry: run migrations on the connection that `events.database` has opened, in its transaction."""

from __future__ import annotations

from alembic import context

from events.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
