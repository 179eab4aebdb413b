"""Follow what has become of frames: the stream of results in, each result once, from where the follower starts, out."""

from __future__ import annotations

import logging
from typing import Any, cast

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.messages import BadMessage, FrameResult

READ_BLOCK_MS = 250  # a stopping process notices within this time

log = logging.getLogger(__name__)


class ResultConsumer:
    """Read results from now on; any number of followers see each result."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        newest = cast(list[Any], client.xrevrange(messages.RESULTS, count=1))
        self._last: bytes = newest[0][0] if newest else b"0-0"

    def read(self, block_ms: int = READ_BLOCK_MS) -> list[FrameResult]:
        """Return the results that have come since the last call, waiting at most `block_ms` for the first."""
        rows = rows_of(self._client.xread({messages.RESULTS: self._last}, count=256, block=block_ms))
        results = []
        for id_, fields in rows:
            self._last = id_
            try:
                results.append(messages.decode(FrameResult, fields.get(b"record", b"")))
            except BadMessage as error:
                log.warning("wrong message %s on %s is left out: %s", id_.decode(), messages.RESULTS, error)
        return results


def rows_of(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries in an answer of XREAD or XREADGROUP for one stream, as RESP2 or RESP3 gives it."""
    if not answer:
        return []
    return list(answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0])
