"""The tables of the database. A change of them needs a migration in events/migrations/versions.

Times are Unix seconds on Redis' clock, except those of deliveries, which are on that of the recorder's machine.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()
VERSIONS = ("0004_quick_reading", "0003_stored_rules", "0002_evidence", "0001")  # of the schema, newest first
IS_OPEN = "ended_at IS NULL"

EVENTS = Table(
    "events",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("rule", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("camera", String(32), nullable=False),
    Column("zone", String(32)),
    Column("subject", String(32), nullable=False),
    Column("track", BigInteger),
    Column("started_at", Double, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("people", Integer, nullable=False),
    Column("confidence", Double),
    Column("share", Double),
    Column("model", String(200)),
    UniqueConstraint("rule", "camera", "subject", "started_at", name="one_event_a_condition"),
    Index("events_by_time", "started_at", "id"),
    # each with the other columns of filters, so that events that do not match are left out without being read
    Index("events_by_camera", "camera", "started_at", "id", "kind", "rule", "zone"),
    Index("events_by_kind", "kind", "started_at", "id", "camera", "rule", "zone"),
    Index("events_by_rule", "rule", "started_at", "id", "camera", "kind", "zone"),
    Index("events_by_zone", "zone", "started_at", "id", "camera", "kind", "rule"),
    Index("open_events", "started_at", "id", sqlite_where=text(IS_OPEN), postgresql_where=text(IS_OPEN)),
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", String(32), ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
    Column("phase", String(8), nullable=False),
    Column("receiver", String(32), nullable=False),
    Column("camera", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(10), nullable=False),  # pending, delivered or dead
    Column("attempts", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("error", Text),
    UniqueConstraint("event_id", "phase", "receiver", name="one_delivery_a_receiver"),
    Index("deliveries_by_queue", "state", "receiver", "camera", "id"),
    Index("deliveries_by_state", "state", "id"),
    Index("deliveries_by_receiver", "receiver", "id"),
)

# What events are built on, beside them so that lists of events stay fast. points: events/evidence.py.
EVIDENCE = Table(
    "evidence",
    METADATA,
    Column("event_id", String(32), ForeignKey("events.id", ondelete="CASCADE"), primary_key=True),
    Column("rule", Text),
    Column("measure", String(16)),
    Column("points", LargeBinary, nullable=False),
)
THUMBNAILS = Table(
    "thumbnails",
    METADATA,
    Column("event_id", String(32), ForeignKey("events.id", ondelete="CASCADE"), primary_key=True),
    Column("jpeg", LargeBinary, nullable=False),
    Column("captured_at", Double, nullable=False),
    Column("blurred", Boolean, nullable=False),
)

# The same counts twice: hours and days are summed from quarters of an hour, of which all time zones are multiples.
COUNTS = Table(
    "counts",
    METADATA,
    Column("camera", String(32), primary_key=True),
    Column("minute", BigInteger, primary_key=True),  # Unix minutes
    Column("people_s", Double, nullable=False),
    Column("masks_s", Double, nullable=False),
    Column("most", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Index("counts_by_minute", "minute"),
)
QUARTER_MIN = 15
QUARTER_COUNTS = Table(
    "quarter_counts",
    METADATA,
    Column("camera", String(32), primary_key=True),
    Column("quarter", BigInteger, primary_key=True),  # Unix minutes // QUARTER_MIN
    Column("people_s", Double, nullable=False),
    Column("masks_s", Double, nullable=False),
    Column("most", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Index("quarter_counts_by_quarter", "quarter"),
)

# Rules as JSON. Those of the origin "api" hold their secrets; those of "file" are for readers, without them.
RULE_SETS = Table(
    "rule_sets",
    METADATA,
    Column("origin", String(8), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("content", Text, nullable=False),
)

# What the active recorder continues from, and who it is: written together with the events that follow from it.
POSITIONS = Table(
    "positions",
    METADATA,
    Column("stream", String(64), primary_key=True),
    Column("last_id", String(64), nullable=False),
)
CAMERA_STATES = Table(
    "camera_states",
    METADATA,
    Column("camera", String(32), primary_key=True),
    Column("state", LargeBinary, nullable=False),
)
LEASE = Table(
    "lease",
    METADATA,
    Column("id", Integer, primary_key=True),  # the only row has 1
    Column("token", String(64), nullable=False),
    Column("expires_at", Double, nullable=False),
)
