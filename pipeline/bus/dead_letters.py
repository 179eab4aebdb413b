"""Dead letters: list them, describe one, and replay one, which puts its entry back on its stream.

A dead letter can be replayed only while its pixels exist.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import ledger_key
from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, Frame, FrameIdentity, decode
from pipeline.bus.scripts import Script

RECORDS: dict[str, type[FrameIdentity]] = {messages.FRAMES: Frame, messages.FACES: FaceCrops}


class NoSuchDeadLetter(Exception):
    """There is no dead letter with that ID."""


class CannotReplay(Exception):
    """A dead letter cannot be replayed; says why."""


class ListedDeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter with its ID on the stream `dead` and its camera, "-" if the entry names none."""

    id: str
    camera: str
    letter: DeadLetter


def list_dead_letters(client: Redis) -> list[ListedDeadLetter]:
    """Return all dead letters, oldest first."""
    return [_listed(id_, fields) for id_, fields in cast(list[Any], client.xrange(messages.DEAD))]


def find_dead_letter(client: Redis, id_: str) -> ListedDeadLetter:
    """Return one dead letter.

    Raises:
        NoSuchDeadLetter: there is none with that ID.
    """
    found = next((one for one in list_dead_letters(client) if one.id == id_), None)
    if found is None:
        raise NoSuchDeadLetter(f"there is no dead letter {id_}; `maskwatch dead list` shows them")
    return found


def describe_dead_letter(listed: ListedDeadLetter) -> str:
    """Return a dead letter as text for people, with its record as far as it can be decoded."""
    letter = listed.letter
    lines = [
        f"letter     {listed.id}",
        f"error      {letter.error}",
        f"stream     {letter.stream}, entry {letter.entry_id}, delivered {letter.deliveries} times",
        f"process    {letter.process}",
        f"camera     {listed.camera}",
        *(f"field      {name.decode(errors='replace')}: {_readable(value)}" for name, value in letter.fields.items()),
    ]
    return "\n".join(lines)


def replay_dead_letter(client: Redis, id_: str) -> None:
    """Put a dead entry back on its stream; it counts as produced once more.

    Raises:
        NoSuchDeadLetter: there is none with that ID.
        CannotReplay: it holds no valid record, its deadline has passed, or its pixels are gone.
    """
    letter = find_dead_letter(client, id_).letter
    try:
        record = decode(RECORDS[letter.stream], letter.fields.get(b"record", b""))
    except (KeyError, BadMessage) as error:
        raise CannotReplay(f"{id_} holds no record that a worker accepts: {error}") from error
    if record.deadline_at is not None and record.deadline_at < Clock(client).now():
        raise CannotReplay(f"{id_} cannot be put back: it belongs to a live camera, and its deadline has passed")
    key = record.crops_key if isinstance(record, FaceCrops) else record.pixels_key
    fields = [part for pair in letter.fields.items() for part in pair]
    answer = Script(client, "replay")(
        keys=[messages.DEAD, letter.stream, ledger_key(record.camera), key], args=[id_, record.camera, *fields]
    )
    if answer == -1:
        raise CannotReplay(f"{id_} cannot be put back: its pixels have expired")
    if answer == 0:
        raise NoSuchDeadLetter(f"{id_} has been put back or removed meanwhile")


def _listed(id_: bytes, fields: dict[bytes, bytes]) -> ListedDeadLetter:
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
    return ListedDeadLetter(id=id_.decode(), camera=fields.get(b"camera", b"-").decode(errors="replace"), letter=letter)


def _readable(value: bytes) -> str:
    """Return MessagePack as JSON, text as text, and other bytes as hexadecimal."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(value)).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError):
        return value.decode() if value.isascii() else value.hex()
