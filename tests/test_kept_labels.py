"""Faces of a file that keep labels get those of the earlier faces, whichever result comes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, wait_until
from processes import Processes, live, processes, wait_for_workers

from pipeline.bus import messages
from pipeline.bus.messages import BadMessage, FrameIdentity, FrameResult, SameFace
from pipeline.bus.status import read_ledgers
from pipeline.vision.faces import Face
from producer.files.kept_labels import MAX_RESULTS, KeptLabels, LabelGone

__all__ = ["processes"]

BOX = (1.0, 2.0, 3.0, 4.0)
MASK = Face(box=BOX, score=0.9, label="mask", confidence=0.97)
BARE = Face(box=BOX, score=0.8, label="no_mask", confidence=0.91)


def result(seq: int, faces: list[Face], *same: tuple[int, int, int]) -> FrameResult:
    """Return a result. same: number, frame and number there of each further face."""
    frame = FrameIdentity(
        frame_id=f"file-1:7:{seq}",
        camera="file-1",
        start=7,
        seq=seq,
        width=64,
        height=48,
        pixels_key=f"{{s0}}:pixels:file-1:7:{seq}",
        captured_at=1.0,
        deadline_at=None,
    )
    further = [SameFace(number=n, box=BOX, score=0.5, same_seq=s, same_number=m) for n, s, m in same]
    return FrameResult.for_frame(frame, faces=faces, model="v1", seconds={}, same_faces=further)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_face_gets_the_label_of_the_earlier_one_and_is_not_fresh() -> None:
    kept = KeptLabels()
    later = result(2, [BARE], (0, 1, 1), (2, 1, 0))

    kept.add(later)
    missing_before = kept.missing(later)
    kept.add(result(1, [MASK, BARE]))
    complete = kept.complete(later)

    assert missing_before == {1}
    assert kept.missing(later) == set()
    assert [(face.label, face.confidence, face.score, face.fresh) for face in complete.faces] == [
        ("no_mask", 0.91, 0.5, False),
        ("no_mask", 0.91, 0.8, True),
        ("mask", 0.97, 0.5, False),
    ]


def test_a_label_of_a_face_that_was_not_classified_after_all_is_gone() -> None:
    kept = KeptLabels()
    later = result(2, [], (0, 1, 0))

    kept.add(result(1, [MASK], (0, 0, 0)))  # sent again: now its first face keeps a label, too
    kept.add(later)

    with pytest.raises(LabelGone, match="frame 1 has no classified face 0"):
        kept.complete(later)


def test_old_results_are_forgotten() -> None:
    kept = KeptLabels()

    for seq in range(MAX_RESULTS + 1):
        kept.add(result(seq, [MASK]))

    assert kept.missing(result(MAX_RESULTS + 1, [], (0, 0, 0), (1, 1, 0))) == {0}


@pytest.mark.parametrize("numbers", [(0, 0), (0, 3)], ids=["twice", "no place"])
def test_a_result_whose_faces_have_no_places_is_invalid(numbers: tuple[int, int]) -> None:
    packed = messages.encode(result(2, [MASK], *((number, 1, 0) for number in numbers)))

    with pytest.raises(BadMessage, match="no places among the faces"):
        messages.decode(FrameResult, packed)


def test_a_file_with_kept_labels_has_every_frame_and_face_and_almost_the_same_labels(
    server: Server, processes: Processes, pictures: Path, tmp_path: Path
) -> None:
    clip = pictures / "hand-over-face" / "walk.mkv"
    for role in ("detect", "detect", "classify"):
        processes.start(role, redis=server)
    wait_for_workers(server)

    for name, flags in {"every": (), "kept": ("--relabel-s", "0.25")}.items():
        run = processes.start("label", clip, "--json", tmp_path / name, *flags, redis=server)
        assert run.wait(timeout=60) == 0

    every, kept = (lines_of(tmp_path / name) for name in ("every", "kept"))
    assert len(every) == len(kept) > 60
    for one, other in zip(every, kept, strict=True):
        assert [face["box"] for face in one["faces"]] == [face["box"] for face in other["faces"]]
        assert all(face["fresh"] for face in one["faces"])
    fresh = [face["fresh"] for line in kept for face in line["faces"]]
    assert 0.1 < sum(fresh) / len(fresh) < 0.9
    labels = [[face["label"] for line in lines for face in line["faces"]] for lines in (every, kept)]
    assert sum(one == other for one, other in zip(*labels, strict=True)) >= 0.98 * len(fresh)
    ledgers = read_ledgers(server.bus, [name.decode() for name in server.client.zrange("{s0}:cameras", 0, -1)])
    assert all(ledger.balances and ledger.in_flight == 0 for ledger in ledgers.values())


def test_every_face_gets_its_label_although_a_detector_and_a_classifier_are_killed(
    server: Server, processes: Processes, pictures: Path, tmp_path: Path
) -> None:
    workers = [processes.start(role, redis=server) for role in ("detect", "classify", "detect", "classify")]
    wait_until(lambda: live(server, "detector", 2) and live(server, "classifier", 2), 30, "four workers")
    lines, clip = tmp_path / "lines", pictures / "hand-over-face" / "walk.mkv"
    run = processes.start("label", clip, "--json", lines, "--relabel-s", "0.25", redis=server)

    wait_until(lambda: len(lines_of(lines)) >= 5, 30, "five lines")
    for worker in workers[:2]:
        worker.kill()

    assert run.wait(timeout=60) == 0
    found = lines_of(lines)
    assert [line["frame"] for line in found] == list(range(len(found)))
    assert not any("error" in line for line in found)
    assert all(face["confidence"] >= 0.5 for line in found for face in line["faces"])
