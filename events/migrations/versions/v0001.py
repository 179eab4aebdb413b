"""The first schema: events, deliveries, counts, and what the active recorder continues from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_events()
    _create_deliveries()
    op.create_table(
        "counts",
        sa.Column("camera", sa.String(32), primary_key=True),
        sa.Column("minute", sa.BigInteger, primary_key=True),
        sa.Column("people_s", sa.Double, nullable=False),
        sa.Column("masks_s", sa.Double, nullable=False),
        sa.Column("most", sa.Integer, nullable=False),
        sa.Column("frames", sa.Integer, nullable=False),
    )
    op.create_table(
        "positions",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("last_id", sa.String(64), nullable=False),
    )
    op.create_table(
        "camera_states",
        sa.Column("camera", sa.String(32), primary_key=True),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    lease = op.create_table(
        "lease",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.bulk_insert(lease, [{"id": 1, "token": "", "expires_at": 0.0}])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("rule", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("camera", sa.String(32), nullable=False),
        sa.Column("zone", sa.String(32)),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("track", sa.BigInteger),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("people", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Double),
        sa.Column("share", sa.Double),
        sa.Column("model", sa.String(200)),
        sa.UniqueConstraint("rule", "camera", "subject", "started_at", name="one_event_a_condition"),
    )
    op.create_index("events_by_time", "events", ["started_at", "id"])
    op.create_index("events_by_camera", "events", ["camera", "started_at", "id"])
    op.create_index("events_by_kind", "events", ["kind", "started_at", "id"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(32), sa.ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
        sa.Column("phase", sa.String(8), nullable=False),
        sa.Column("receiver", sa.String(32), nullable=False),
        sa.Column("camera", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("event_id", "phase", "receiver", name="one_delivery_a_receiver"),
    )
    op.create_index("deliveries_by_queue", "deliveries", ["state", "receiver", "camera", "id"])
