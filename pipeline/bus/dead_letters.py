"""Dead letters: list them, describe one, and replay one, which puts its entry back on its stream.

A dead letter can be replayed only while its pixels exist.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, Frame, FrameIdentity, decode
from pipeline.bus.scripts import Script
from pipeline.bus.shards import Bus, Shard, Stage

RECORDS: dict[Stage, type[FrameIdentity]] = {"frames": Frame, "faces": FaceCrops}


class NoSuchDeadLetter(Exception):
    """There is no dead letter with that ID."""


class CannotReplay(Exception):
    """A dead letter cannot be replayed; says why."""


class ListedDeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter with its ID and its camera, "-" if the entry names none.

    id: of its entry on the stream `dead`; with several shards after the shard's tag and a slash, as in s2/1-0.
    """

    id: str
    camera: str
    letter: DeadLetter


def list_dead_letters(bus: Bus) -> list[ListedDeadLetter]:
    """Return all dead letters, oldest first."""
    rows = [
        (tuple(int(part) for part in id_.split(b"-")), _listed(bus, shard, id_, fields))
        for shard in bus.shards
        for id_, fields in cast(list[Any], shard.client.xrange(shard.key("dead")))
    ]
    return [listed for _, listed in sorted(rows, key=lambda row: row[0])]


def find_dead_letter(bus: Bus, id_: str) -> ListedDeadLetter:
    """Return one dead letter.

    Raises:
        NoSuchDeadLetter: there is none with that ID.
    """
    found = next((one for one in list_dead_letters(bus) if one.id == id_), None)
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


def replay_dead_letter(bus: Bus, id_: str) -> None:
    """Put a dead entry back into its stage, behind the frames of files; it counts as produced once more.

    Raises:
        NoSuchDeadLetter: there is none with that ID.
        CannotReplay: it holds no valid record, its deadline has passed, or its pixels are gone.
    """
    letter = find_dead_letter(bus, id_).letter
    stage = cast(Stage, letter.stream.partition(":")[0])
    packed = letter.fields.get(b"record", b"")
    try:
        record = decode(RECORDS[stage], packed)
    except (KeyError, BadMessage) as error:
        raise CannotReplay(f"{id_} holds no record that a worker accepts: {error}") from error
    shard = bus.shard_of(record.camera)
    if record.deadline_at is not None and record.deadline_at < shard.clock.now():
        raise CannotReplay(f"{id_} cannot be put back: it belongs to a live camera, and its deadline has passed")
    data_key = record.crops_key if isinstance(record, FaceCrops) else record.pixels_key
    answer = Script(shard.client, "replay")(
        keys=[*shard.stage_keys(stage), *shard.camera_keys(record.camera), shard.key("dead"), data_key],
        args=[id_.rpartition("/")[2], record.camera, record.frame_id, packed, stage],
    )
    if answer == -1:
        raise CannotReplay(f"{id_} cannot be put back: its pixels have expired")
    if answer == 0:
        raise NoSuchDeadLetter(f"{id_} has been put back or removed meanwhile")


def _listed(bus: Bus, shard: Shard, id_: bytes, fields: dict[bytes, bytes]) -> ListedDeadLetter:
    try:
        letter = decode(DeadLetter, fields.get(b"record", b""))
    except BadMessage as error:
        letter = DeadLetter(
            stream="dead",
            entry_id=id_.decode(),
            fields=fields,
            error=str(error),
            process="-",
            deliveries=0,
            died_at=0,
        )
    prefix = f"{shard.tag.strip('{}')}/" if len(bus.shards) > 1 else ""
    return ListedDeadLetter(
        id=prefix + id_.decode(), camera=fields.get(b"camera", b"-").decode(errors="replace"), letter=letter
    )


def _readable(value: bytes) -> str:
    """Return MessagePack as JSON, text as text, and other bytes as hexadecimal."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(value)).decode()
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return value.decode() if value.isascii() else value.hex()
