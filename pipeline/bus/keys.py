"""Names of the Redis keys beside the streams, and their TTLs."""

from __future__ import annotations

GROUP = "workers"  # the consumer group of each work stream
LEASE_MS = 2_000
LIVE_PIXELS_MS = 5_000
COMPLETE_PIXELS_MS = 60_000
RESULTS_RETENTION_MS = 60_000


def newest_frame_key(camera: str) -> str:
    """Return the key of the hash that describes a camera's newest published frame."""
    return f"newest:frames:{camera}"


def ledger_key(camera: str) -> str:
    """Return the key of the hash with a camera's counts."""
    return f"ledger:{camera}"


def lease_key(camera: str) -> str:
    """Return the key that holds which process publishes under a camera's name."""
    return f"lease:{camera}"


def alone_key(stream: str) -> str:
    """Return the key of the hash that counts how often each entry was worked on alone."""
    return f"alone:{stream}"


def heartbeat_key(process_id: str) -> str:
    """Return the key of a process' heartbeat."""
    return f"heartbeat:{process_id}"
