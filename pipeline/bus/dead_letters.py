"""Dead letters: list them, look at one, put one back where it died.

A letter is put back only while its pixels exist; else one clear line says that it is too late.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import ledger_key
from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, Frame, Identity, decode
from pipeline.bus.scripts import script

RECORDS: dict[str, type[Identity]] = {messages.FRAMES: Frame, messages.FACES: FaceCrops}


class NoSuchLetter(Exception):
    """There is no dead letter of that id."""


class CannotReplay(Exception):
    """A dead letter cannot be put back; says why."""


class Row(Struct, frozen=True, kw_only=True):
    """One letter with its id on the stream `dead` and the camera it is about; "-" when it does not say."""

    id: str
    camera: str
    letter: DeadLetter


def rows(client: Redis) -> list[Row]:
    """Return all dead letters, oldest first."""
    return [_row(id_, fields) for id_, fields in cast(list[Any], client.xrange(messages.DEAD))]


def find(client: Redis, id_: str) -> Row:
    """Return one letter.

    Raises:
        NoSuchLetter: there is none of that id.
    """
    found = next((row for row in rows(client) if row.id == id_), None)
    if found is None:
        raise NoSuchLetter(f"there is no dead letter {id_}; `maskwatch dead list` shows them")
    return found


def as_text(row: Row) -> str:
    """Return a letter for people: what, why, where, and the record as far as it can be read."""
    letter = row.letter
    lines = [
        f"letter     {row.id}",
        f"error      {letter.error}",
        f"stream     {letter.stream}, entry {letter.entry_id}, delivered {letter.deliveries} times",
        f"process    {letter.process}",
        f"camera     {row.camera}",
    ]
    for name, value in letter.fields.items():
        lines.append(f"field      {name.decode(errors='replace')}: {_readable(value)}")
    return "\n".join(lines)


def replay(client: Redis, id_: str) -> None:
    """Put a dead entry back on its stream; it counts as produced once more.

    Raises:
        NoSuchLetter: there is none of that id.
        CannotReplay: it never was a good record, or its pixels are gone.
    """
    letter = find(client, id_).letter
    try:
        record = decode(RECORDS[letter.stream], letter.fields.get(b"record", b""))
    except (KeyError, BadMessage) as error:
        raise CannotReplay(f"{id_} is no record that a worker could take: {error}") from error
    if record.deadline_at is not None and record.deadline_at < Clock(client).now():
        raise CannotReplay(f"{id_} cannot be put back: it is of a live camera, and its deadline has passed")
    key = record.crops_key if isinstance(record, FaceCrops) else record.pixels_key
    fields = [part for pair in letter.fields.items() for part in pair]
    answer = script(client, "replay")(
        keys=[messages.DEAD, letter.stream, ledger_key(record.camera), key], args=[id_, record.camera, *fields]
    )
    if answer == -1:
        raise CannotReplay(f"{id_} cannot be put back: its pixels are gone, they live for seconds only")
    if answer == 0:
        raise NoSuchLetter(f"{id_} has been put back or removed by somebody else")


def _row(id_: bytes, fields: dict[bytes, bytes]) -> Row:
    try:
        letter = decode(DeadLetter, fields.get(b"record", b""))
    except BadMessage as error:
        letter = DeadLetter(
            stream=messages.DEAD,
            entry_id=id_.decode(),
            fields=fields,
            error=str(error),
            process="-",
            deliveries=0,
            died_at=0,
        )
    return Row(id=id_.decode(), camera=fields.get(b"camera", b"-").decode(errors="replace"), letter=letter)


def _readable(value: bytes) -> str:
    """Return MessagePack as JSON, text as text, anything else as hexadecimal."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(value)).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError):
        return value.decode() if value.isascii() else value.hex()
