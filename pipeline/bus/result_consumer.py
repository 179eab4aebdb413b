"""Consume the stream `results` without a group: every consumer sees each result written since it started, once."""

from __future__ import annotations

import logging
from typing import Any, cast

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.messages import BadMessage, FrameResult

READ_BLOCK_MS = 250  # a process that is asked to stop notices within this time

log = logging.getLogger(__name__)


class ResultConsumer:
    """Read results from now on."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        newest = cast(list[Any], client.xrevrange(messages.RESULTS, count=1))
        self._last_id: bytes = newest[0][0] if newest else b"0-0"

    def read(self, block_ms: int = READ_BLOCK_MS) -> list[FrameResult]:
        """Return the results since the last call; wait at most `block_ms` for the first."""
        rows = entries_of(self._client.xread({messages.RESULTS: self._last_id}, count=256, block=block_ms))
        results = []
        for id_, fields in rows:
            self._last_id = id_
            try:
                results.append(messages.decode(FrameResult, fields.get(b"record", b"")))
            except BadMessage as error:
                log.warning("skipped invalid message %s on %s: %s", id_.decode(), messages.RESULTS, error)
        return results


def entries_of(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries in an answer of XREAD or XREADGROUP for one stream, in RESP2 or RESP3."""
    if not answer:
        return []
    return list(answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0])
