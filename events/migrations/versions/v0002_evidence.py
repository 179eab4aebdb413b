"""What events are built on, their thumbnails, and indexes for filters of long lists."""

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
    for name in ("camera", "kind"):
        op.drop_index(f"events_by_{name}", "events")
    filters = ("camera", "kind", "rule", "zone")
    for name in filters:
        others = [other for other in filters if other != name]
        op.create_index(f"events_by_{name}", "events", [name, "started_at", "id", *others])
    is_open = sa.text("ended_at IS NULL")
    op.create_index("open_events", "events", ["started_at", "id"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("deliveries_by_state", "deliveries", ["state", "id"])
    op.create_index("counts_by_minute", "counts", ["minute"])
