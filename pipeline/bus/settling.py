"""Settle entries of a work stream: acknowledge and delete an entry, write its outputs, and count it, in one script.

settle.lua does all of it or nothing, so a process may die at any time and the ledger still balances. Only the first
process that settles an entry has an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.keys import GROUP, alone_key, ledger_key
from pipeline.bus.messages import DeadLetter
from pipeline.bus.scripts import Script

DEAD_LETTER_RETENTION_COUNT = 1_000


class Output(NamedTuple):
    """A record to append to a stream, as settle.lua takes it. limit: age in ms for MINID, entries for MAXLEN."""

    stream: str
    record: bytes
    captured_at: str = ""
    trim: str = ""
    limit: int | str = ""


class Settlement(NamedTuple):
    """How an entry ends. field: what its ledger counts, "" for nothing. crops: kept for crops_ms; b"" deletes them."""

    id: bytes
    camera: str
    frame_id: str
    field: str
    outputs: Sequence[Output]
    crops: bytes = b""
    crops_ms: int = 0


class Settler:
    """Settle the entries of one stream. counts: what this process settled, by ledger field or "forwarded"."""

    def __init__(self, client: Redis, stream: str) -> None:
        self.counts: dict[str, int] = {}
        self._client = client
        self._stream = stream
        self._script = Script(client, "settle")

    def settle(self, settlement: Settlement) -> bool:
        """Settle one entry; return False when another process had settled it before."""
        return self._count(settlement, self._run(settlement))

    def settle_all(self, settlements: Sequence[Settlement]) -> None:
        """Settle several entries in a pipeline."""
        if len(settlements) == 1:  # a pipeline would take a second round trip, to ask whether Redis knows the script
            self.settle(settlements[0])
            return
        with self._client.pipeline(transaction=False) as pipe:
            for settlement in settlements:
                self._run(settlement, pipe)
            for settlement, settled in zip(settlements, pipe.execute(), strict=True):
                self._count(settlement, settled)

    def _run(self, end: Settlement, client: Any = None) -> Any:
        keys = [self._stream, alone_key(self._stream), ledger_key(end.camera), f"crops:{end.frame_id}"]
        args: list[Any] = [GROUP, end.id, end.camera, end.field, end.crops, end.crops_ms]
        for output in end.outputs:
            keys.append(output.stream)
            args += [output.captured_at, output.record, output.trim, output.limit]
        return self._script(keys, args, client)

    def _count(self, settlement: Settlement, settled: int) -> bool:
        field = settlement.field or "forwarded"
        self.counts[field] = self.counts.get(field, 0) + settled
        return bool(settled)


def dead_letter_output(letter: DeadLetter) -> Output:
    """Return the output for a dead letter."""
    return Output(messages.DEAD, messages.encode(letter), trim="MAXLEN", limit=DEAD_LETTER_RETENTION_COUNT)
