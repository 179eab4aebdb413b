"""Names of what stands in Redis beside the streams, and how long it stays."""

from __future__ import annotations

GROUP = "workers"  # of the readers of a work stream
LEASE_MS = 2_000
LIVE_PIXELS_MS = 5_000
COMPLETE_PIXELS_MS = 60_000
RESULTS_RETENTION_MS = 60_000


def newest_key(camera: str) -> str:
    """The hash that describes a camera's newest published frame."""
    return f"newest:frames:{camera}"


def ledger_key(camera: str) -> str:
    """The hash of a camera's counts."""
    return f"ledger:{camera}"


def lease_key(camera: str) -> str:
    """The key that says who publishes under a camera's name."""
    return f"lease:{camera}"


def alone_key(stream: str) -> str:
    """The hash that counts how often an entry was worked on alone."""
    return f"alone:{stream}"


def heartbeat_key(process_id: str) -> str:
    """The key under which a process says that it lives."""
    return f"heartbeat:{process_id}"
