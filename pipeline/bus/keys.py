"""Keys that belong to no camera, and how long keys live.

The keys of cameras are those of `pipeline.bus.shards.Shard`. The tag {all} puts these keys into one slot of a cluster.
"""

from __future__ import annotations

PROCESSES = "{all}:processes"  # sorted set of process IDs, scored by their last heartbeat
MODEL = "{all}:model"  # the current model version, its crop size and margin
SHARDS = "{all}:shards"  # how many shards there are, while any process lives
ENDED_SESSIONS = "{all}:ended_sessions"  # sorted set of sessions of the viewer that ended early, scored by their end

GROUP = "workers"  # the consumer group of each work stream
LEASE_MS = 2_000
LIVE_PIXELS_MS = 5_000
COMPLETE_PIXELS_MS = 60_000
FILE_RETENTION_S = 600.0  # how long a finished run of `maskwatch label` is listed
FORGOTTEN_S = 30 * 86_400.0  # how long it is known that a camera was forgotten, for recorders that are away
FILE_COUNTS_S = 86_400  # how long its counts are kept after their last change; FILE_MS of lua/common.lua


def heartbeat_key(process_id: str) -> str:
    """Return the key of a process' heartbeat."""
    return f"{{all}}:heartbeat:{process_id}"
