"""Leave out results that cannot be, such as of damaged entries, before their numbers reach a calendar or a database.

They are valid records; but a recorder that fails at one would read it again at each start. Pure, but for the log.
"""

from __future__ import annotations

import logging

from pipeline.bus.messages import FrameResult

log = logging.getLogger(__name__)

MAX_TIME = 2.5e11  # of a frame, Unix seconds: in the year 9892, which calendars have
MAX_NUMBER = 2**48  # of a frame, and of its producer's start: tracks are numbered by it, in 64 bits


def is_plausible(result: FrameResult) -> bool:
    """Return whether a result has a time and numbers that can be stored; log it otherwise."""
    if 0 <= result.captured_at <= MAX_TIME and max(result.seq, result.start) <= MAX_NUMBER:
        return True
    log.warning("skipped a result of %s: the time or number of frame %s cannot be", result.camera, result.frame_id)
    return False
