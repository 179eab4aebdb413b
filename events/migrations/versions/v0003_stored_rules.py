"""Rules that were set over the API, and those of the file that is in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_stored_rules"
down_revision = "0002_evidence"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "rule_sets",
        sa.Column("origin", sa.String(8), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
