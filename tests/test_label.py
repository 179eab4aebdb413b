"""`maskwatch label`, started for real: every frame once, in order, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from conftest import Server, wait_until
from PIL import Image

LABEL = [sys.executable, "-m", "maskwatch", "label"]


def label(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*LABEL, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, done.stderr
    return done


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_latency(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "latency_ms"} for line in lines_of(path)]


@pytest.fixture
def some(pictures: Path, tmp_path: Path) -> Path:
    """Forty street photographs."""
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((pictures / "face-mask-detection" / "images").iterdir())[:40]:
        shutil.copy(path, folder)
    return folder


def test_a_folder_gives_one_line_a_picture_in_order_and_labelled_pictures(some: Path, tmp_path: Path) -> None:
    lines, out = tmp_path / "out.jsonl", tmp_path / "labelled"

    label(some, "--json", lines, "--out", out)

    found = lines_of(lines)
    assert [line["frame"] for line in found] == list(range(40))
    assert {line["name"] for line in found} == {path.name for path in some.iterdir()}
    faces = [face for line in found for face in line["faces"]]
    assert {face["label"] for face in faces} == {"mask", "no_mask"}
    assert all(0.5 <= face["confidence"] <= 1 and face["track"] is None for face in faces)
    assert {path.name for path in out.iterdir()} == {path.name for path in some.iterdir()}
    drawn = next(line for line in found if line["faces"])
    before, after = cv2.imread(str(some / drawn["name"])), cv2.imread(str(out / drawn["name"]))
    assert before.shape == after.shape
    assert np.abs(before.astype(int) - after).max() > 100


def test_bad_pictures_get_a_line_with_their_error_and_status_1(some: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    good = next(some.iterdir())
    shutil.copy(good, folder / "5-good.jpg")
    (folder / "1-empty.jpg").write_bytes(b"")
    (folder / "2-cut.jpg").write_bytes(good.read_bytes()[:4000])
    (folder / "3-text.jpg").write_text("not a picture")
    Image.new("L", (12_000, 9_000)).save(folder / "4-large.png")
    Image.new("RGB", (1, 1)).save(folder / "6-dot.png")
    Image.new("RGBA", (50, 40), (1, 2, 3, 4)).save(folder / "7-alpha.png")
    Image.new("L", (50, 40)).save(folder / "8-grey.jpg")
    Image.new("RGB", (2_000, 3)).save(folder / "9-thin.png")
    lines = tmp_path / "out.jsonl"

    label(folder, "--json", lines, expect=1)

    found = lines_of(lines)
    errors = {line["name"]: line["error"] for line in found if "error" in line}
    assert [line["name"][0] for line in found] == list("123456789")
    assert sorted(errors) == ["1-empty.jpg", "2-cut.jpg", "3-text.jpg", "4-large.png"]
    assert "12000x9000" in errors["4-large.png"]
    assert "damaged" in errors["2-cut.jpg"]


def test_a_video_keeps_every_frame_its_times_and_tracks_its_faces(pictures: Path, tmp_path: Path) -> None:
    clip, lines, out = pictures / "hand-over-face" / "bird.mkv", tmp_path / "out.jsonl", tmp_path / "labelled.mp4"
    with av.open(str(clip)) as file:
        times = [float(frame.time) for frame in file.decode(video=0)]

    label(clip, "--json", lines, "--out", out)

    with av.open(str(out)) as file:
        stream = file.streams.video[0]
        codec, format_ = stream.codec_context.name, stream.codec_context.pix_fmt
        written = [float(frame.time) for frame in file.decode(stream)]
    assert (codec, format_) == ("h264", "yuv420p")
    assert len(written) == len(times) == len(lines_of(lines)) == 63
    assert np.allclose(np.array(written) - written[0], np.array(times) - times[0], atol=0.001)
    tracks = [face["track"] for line in lines_of(lines) for face in line["faces"]]
    assert max(tracks.count(track) for track in set(tracks)) == 63
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_a_killed_run_goes_on_to_the_same_output(some: Path, tmp_path: Path) -> None:
    whole, torn, out = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", tmp_path / "out"
    label(some, "--json", whole)
    running = subprocess.Popen([*LABEL, str(some), "--json", str(torn), "--out", str(out)])
    wait_until(lambda: torn.exists() and torn.read_bytes().count(b"\n") >= 5, 30, "five lines are written")
    running.kill()
    running.wait()
    had = torn.read_bytes().count(b"\n")
    with torn.open("ab") as file:
        file.write(b'{"source":"half a li')

    label(some, "--json", torn, "--out", out, "--resume")

    assert had < 40
    assert without_latency(torn) == without_latency(whole)
    assert len(list(out.iterdir())) == 40


def test_a_killed_video_run_goes_on_to_the_same_lines_and_a_whole_video(pictures: Path, tmp_path: Path) -> None:
    clip = pictures / "hand-over-face" / "yes.mkv"
    whole, torn, out = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", tmp_path / "out.mp4"
    label(clip, "--json", whole)
    torn.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:20]))

    label(clip, "--json", torn, "--out", out, "--resume")

    assert without_latency(torn) == without_latency(whole)
    with av.open(str(out)) as file:
        assert sum(1 for _ in file.decode(video=0)) == len(lines_of(whole))


def test_going_on_from_another_sources_lines_is_refused(some: Path, pictures: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    label(some, "--json", lines)

    done = label(pictures / "hand-over-face" / "bird.mkv", "--json", lines, "--resume", expect=1)

    assert "was written for" in done.stderr


def test_ctrl_c_leaves_whole_lines_no_child_and_no_folder(some: Path, tmp_path: Path) -> None:
    lines, temporary = tmp_path / "out.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    running = subprocess.Popen([*LABEL, str(some), "--json", str(lines)], env=environment, start_new_session=True)
    wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 3, 30, "three lines are written")

    running.send_signal(signal.SIGINT)
    status = running.wait(timeout=3)

    assert status == 1
    assert lines.read_bytes().endswith(b"\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["no-such-file", "--json", "-"], 1, "no file or folder"),
        (["demo", "--json", "-"], 1, "never ends"),
        (["."], 2, "nothing to write"),
        ([".", "--resume", "--out", "x"], 2, "--resume"),
    ],
)
def test_wrong_usage_is_one_line_and_its_status(arguments: list[str], status: int, says: str) -> None:
    done = label(*arguments, expect=status)

    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_redis_that_is_not_there_is_one_line(some: Path) -> None:
    done = label(some, "--json", "-", "--redis", "redis://:secret@127.0.0.1:1", expect=1)

    assert "no Redis answers at redis://:***@127.0.0.1:1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_redis_without_workers_is_told_at_once(server: Server, some: Path) -> None:
    done = label(some, "--json", "-", "--redis", server.url, expect=1)

    assert "no live detector and no live classifier" in done.stderr
