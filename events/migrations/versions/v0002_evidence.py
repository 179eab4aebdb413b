"""What events are built on, their thumbnails, and indexes for filters by rule and zone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_evidence"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and indexes."""
    event_id = sa.Column("event_id", sa.String(32), sa.ForeignKey("events.id", ondelete="CASCADE"), primary_key=True)
    op.create_table(
        "evidence",
        event_id._copy(),
        sa.Column("rule", sa.Text),
        sa.Column("measure", sa.String(16)),
        sa.Column("points", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "thumbnails",
        event_id._copy(),
        sa.Column("jpeg", sa.LargeBinary, nullable=False),
        sa.Column("captured_at", sa.Double, nullable=False),
        sa.Column("blurred", sa.Boolean, nullable=False),
    )
