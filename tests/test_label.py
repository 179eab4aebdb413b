"""`maskwatch label`, started for real: every frame once, in order, whatever happens."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest
from conftest import Server, wait_until
from PIL import Image
from test_sources import write_clip_with_latin_1_title

from producer.files.lines import JsonLine, LineFace, error_line
from producer.files.outputs import Outputs, PictureWriter
from producer.files.video_out import BadOutput
from producer.sources.picture_file import read_picture
from producer.sources.source import SourceFrame
from producer.sources.source_spec import parse_source

PHOTOGRAPHS = 24  # enough that a run can be stopped before its end
LABEL = [sys.executable, "-m", "maskwatch", "label"]
PROGRAM = [sys.executable, str(Path(__file__).resolve().parent.parent / "maskwatch.py")]  # as users' `maskwatch` does


def label(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*LABEL, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, done.stderr
    return done


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_latency(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "latency_ms"} for line in lines_of(path)]


def outputs_of(source: Path | str, *, json: object = None, out: Path | None = None, resume: bool = False) -> Outputs:
    return Outputs(parse_source(str(source)), json_path=str(json) if json else None, out_path=out, resume=resume)


def unlabelled(source_frame: SourceFrame) -> JsonLine:
    """A line with no faces and no error, as if nobody was in the picture."""
    return JsonLine(source="", frame=source_frame.index, name=source_frame.name, width=1, height=1)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two small pictures, a.jpg and b.jpg."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 48), "grey").save(folder / name)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames and half a second of sound, under a name that looks like a URL."""
    path = tmp_path / "a:b.mkv"
    with av.open(f"file:{path}", "w", format="matroska") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream("aac", rate=8000)
        for _ in range(3):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        file.mux(sound.encode(silence))
        file.mux([*video.encode(), *sound.encode()])
    return path


@pytest.fixture
def some(pictures: Path, tmp_path: Path) -> Path:
    """Street photographs."""
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((pictures / "face-mask-detection" / "images").iterdir())[:PHOTOGRAPHS]:
        shutil.copy(path, folder)
    return folder


def test_a_folder_gives_one_line_a_picture_in_order_and_labelled_pictures(some: Path, tmp_path: Path) -> None:
    lines, out = tmp_path / "out.jsonl", tmp_path / "labelled"

    label(some, "--json", lines, "--out", out)

    found = lines_of(lines)
    assert [line["frame"] for line in found] == list(range(PHOTOGRAPHS))
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

    assert had < PHOTOGRAPHS
    assert without_latency(torn) == without_latency(whole)
    assert len(list(out.iterdir())) == PHOTOGRAPHS


def test_a_killed_video_run_goes_on_to_the_same_lines_and_a_whole_video(pictures: Path, tmp_path: Path) -> None:
    clip = pictures / "hand-over-face" / "student.mkv"
    whole, torn, out = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", tmp_path / "out.mp4"
    label(clip, "--json", whole)
    torn.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:20]))

    label(clip, "--json", torn, "--out", out, "--resume")

    assert without_latency(torn) == without_latency(whole)
    with av.open(str(out)) as file:
        assert sum(1 for _ in file.decode(video=0)) == len(lines_of(whole))


def test_going_on_from_another_sources_lines_is_refused(two: Path, pictures: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    write_lines(two, lines)

    done = label(pictures / "hand-over-face" / "bird.mkv", "--json", lines, "--resume", expect=1)

    assert "was written for" in done.stderr


def test_ctrl_c_leaves_whole_lines_no_child_and_no_folder(some: Path, tmp_path: Path) -> None:
    lines, temporary = tmp_path / "out.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    running = subprocess.Popen([*LABEL, str(some), "--json", str(lines)], env=environment, start_new_session=True)
    wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 3, 30, "three lines are written")

    running.send_signal(signal.SIGINT)
    status = running.wait(timeout=30)

    assert status == 1
    assert lines.read_bytes().endswith(b"\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["no-such-file", "--json", "-"], 2, "no file or folder"),
        (["demo", "--json", "-"], 1, "is a live source"),
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


def test_a_video_labelled_into_a_folder_gives_one_picture_a_frame(clip: Path, tmp_path: Path) -> None:
    outputs = outputs_of(clip, out=tmp_path / "frames")

    for source_frame in parse_source(str(clip)).open():
        outputs.write(source_frame, b"", unlabelled(source_frame))

    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["a:b-000000.jpg", "a:b-000001.jpg", "a:b-000002.jpg"]


def test_a_video_with_a_colon_or_a_tilde_in_its_name_keeps_its_sound(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    for number, name in enumerate(["a:b.mkv", "~/a:b.mkv"]):
        out = Path(f"c:{number}.mp4")
        outputs = outputs_of(name, out=out)
        for source_frame in parse_source(name).open():
            outputs.write(source_frame, b"", unlabelled(source_frame))
        outputs.close(complete=True)

        with av.open(f"file:{out}") as file:
            assert (len(file.streams.video), len(file.streams.audio)) == (1, 1)


def test_a_video_whose_titles_are_no_utf_8_is_labelled_with_its_sound(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mkv", tmp_path / "out.mp4"
    write_clip_with_latin_1_title(clip)

    outputs = outputs_of(clip, out=out)
    for source_frame in parse_source(str(clip)).open():
        outputs.write(source_frame, b"", unlabelled(source_frame))
    outputs.close(complete=True)

    with av.open(str(out)) as file:
        assert len(file.streams.audio) == 1
        assert sum(1 for _ in file.decode(video=0)) == 3


def test_a_video_whose_sound_has_an_unknown_codec_is_labelled_without_sound(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    assert content.count(b"A_AAC") == 1
    clip.write_bytes(content.replace(b"A_AAC", b"A_XYZ"))
    out = tmp_path / "out.mp4"

    outputs = outputs_of(clip, out=out)
    for source_frame in parse_source(str(clip)).open():
        outputs.write(source_frame, b"", unlabelled(source_frame))
    outputs.close(complete=True)

    with av.open(str(out)) as file:
        assert len(file.streams.audio) == 0
        assert sum(1 for _ in file.decode(video=0)) == 3


def test_an_output_that_is_the_source_or_another_output_is_refused(two: Path, clip: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in [*two.iterdir(), clip]}
    (tmp_path / "link").symlink_to(two)

    for source, json_path, out in [
        (two, None, two),
        (two, None, tmp_path / "link"),
        (two / "a.jpg", None, two),
        (two, two / "a.jpg", None),
        (two / "a.jpg", two / "a.jpg", None),
        (clip, clip, None),
        (clip, None, clip),
        (clip, tmp_path / "x.mp4", tmp_path / "x.mp4"),
        (clip, tmp_path / "x.mp4.part", tmp_path / "x.mp4"),
    ]:
        with pytest.raises(BadOutput, match="name another"):
            outputs_of(source, json=json_path, out=out)

    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("json_path", "out", "says"),
    [
        ("", None, "empty"),
        (".", None, "is a folder"),
        ("no/such/x.jsonl", None, "does not exist"),
        (None, "one.png", "go into a folder"),
        (None, "x.avi", ".mp4, .mov, .mkv"),
    ],
)
def test_an_output_that_cannot_be_meant_is_refused_at_once(
    two: Path, json_path: str | None, out: str | None, says: str
) -> None:
    spec = parse_source(str(two))

    with pytest.raises(BadOutput, match=says):
        Outputs(spec, json_path=json_path, out_path=Path(out) if out else None, resume=False)


def test_a_folder_inside_the_pictures_is_no_place_for_labelled_ones_when_all_folders_are_read(two: Path) -> None:
    spec = replace(parse_source(str(two)), recursive=True)

    with pytest.raises(BadOutput, match="the next run would label what is in there; name another folder"):
        Outputs(spec, json_path=None, out_path=two / "labelled", resume=False)


def test_two_runs_into_one_folder_do_not_take_each_others_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (PictureWriter(tmp_path / "out", numbered=False) for _ in range(2))
    rename = Path.replace

    def write_another_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        other.write(SourceFrame(name="white.png", index=0), np.full((4, 4, 3), 255, np.uint8))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", write_another_first)
    one.write(SourceFrame(name="black.png", index=0), np.zeros((4, 4, 3), np.uint8))

    shades = {path.name: int(cv2.imread(str(path)).max()) for path in (tmp_path / "out").iterdir()}
    assert shades == {"black.png": 0, "white.png": 255}


def test_a_file_that_another_run_is_writing_is_refused(two: Path, clip: Path, tmp_path: Path) -> None:
    lines, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    first, second = (outputs_of(two, json=lines) for _ in range(2))
    source_frame = next(iter(parse_source(str(two)).open()))
    first.write(source_frame, b"", unlabelled(source_frame))

    with pytest.raises(BadOutput, match=r"--json .*: another run is writing it"):
        second.write(source_frame, b"", unlabelled(source_frame))
    second.close(complete=False)
    first.close(complete=True)

    filming = outputs_of(clip, out=video)
    with pytest.raises(BadOutput, match=r"--out .*: another run is writing it"):
        outputs_of(clip, out=video)
    filming.close(complete=False)
    outputs_of(clip, out=video).close(complete=False)
    assert len(lines_of(lines)) == 1


def test_what_lies_in_the_folder_of_the_user_is_not_run(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("models.py", "queue.py", "redis.py", "maskwatch.py"):
        (folder / name).write_text("raise SystemExit('this is not yours')")

    done = subprocess.run(
        [*PROGRAM, "label", str(two), "--json", str(tmp_path / "out.jsonl")],
        capture_output=True, text=True, timeout=120, check=False, cwd=folder,
    )  # fmt: skip

    assert (done.returncode, "not yours" in done.stderr) == (0, False), done.stderr
    assert len(lines_of(tmp_path / "out.jsonl")) == 2


@pytest.mark.parametrize(
    ("closed", "json_path", "status", "says"),
    [
        ("<&-", "out.jsonl", 0, "2 frames"),
        (">&-", "out.jsonl", 0, "2 frames"),
        ("2>&-", "out.jsonl", 0, ""),
        (">&-", "-", 1, "maskwatch: --json -: stdout is closed; leave it open, or name a file"),
    ],
)
def test_a_standard_stream_may_be_closed(
    closed: str, json_path: str, status: int, says: str, two: Path, tmp_path: Path
) -> None:
    command = f"exec {shlex.join([*PROGRAM, 'label', str(two), '--json', json_path])} {closed}"

    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert json_path == "-" or len(lines_of(tmp_path / json_path)) == 2


def test_flags_of_workers_that_would_be_ignored_are_refused(two: Path) -> None:
    redis = ("--redis", "redis://127.0.0.1:1/0", "--json", "-")

    done = label(two, *redis, "--models", "runs/mine", "--score-threshold", "0.9", expect=2)

    assert "--score-threshold, --models: with a Redis that was named, its own workers label" in done.stderr


def test_lines_of_an_earlier_run_stay_until_the_first_new_line(two: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    lines.write_text("earlier\n")

    outputs_of(two, json=lines).close(complete=False)

    assert lines.read_text() == "earlier\n"
    outputs_of(two, json=lines).close(complete=True)
    assert lines.read_text() == ""


def test_lines_can_be_written_to_a_device(two: Path) -> None:
    write_lines(two, Path("/dev/null"))


def write_lines(folder: Path, lines: Path, *, resume: bool = False) -> None:
    outputs = outputs_of(folder, json=lines, resume=resume)
    for source_frame in parse_source(str(folder)).open():
        line = outputs.known_line(source_frame) or error_line(outputs.source, source_frame, "no")
        outputs.write(source_frame, b"", line)
    outputs.close(complete=True)


def test_the_same_source_written_differently_goes_on_and_a_torn_line_goes(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "out.jsonl"
    monkeypatch.chdir(tmp_path)
    write_lines(Path("two"), lines)
    whole = lines.read_bytes()
    lines.write_bytes(whole + b'{"source":"half')

    write_lines(two, lines, resume=True)

    assert lines.read_bytes() == whole
    lines.write_bytes(whole.splitlines(keepends=True)[0])
    write_lines(two, lines, resume=True)
    assert [line["source"] for line in lines_of(lines)] == ["two", str(two)]


def test_going_on_after_many_lines_holds_only_one_of_them_at_a_time(two: Path, tmp_path: Path) -> None:
    lines, count = tmp_path / "out.jsonl", 200_000
    face = LineFace(box=(1.0, 2.0, 3.0, 4.0), score=0.9, label="mask", confidence=0.8)
    with lines.open("wb") as file:
        for index in range(count):
            known = JsonLine(source=str(two), frame=index, name="a.jpg", width=1, height=1, faces=[face, face])
            file.write(msgspec.json.encode(known) + b"\n")
    before = lines.read_bytes()

    tracemalloc.start()
    outputs = outputs_of(two, json=lines, resume=True)
    for index in range(count):
        source_frame = SourceFrame(name="a.jpg", index=index)
        outputs.write(source_frame, b"", outputs.known_line(source_frame))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    after_them = SourceFrame(name="b.jpg", index=count)
    assert outputs.known_line(after_them) is None
    outputs.write(after_them, b"", error_line(outputs.source, after_them, "no"))
    outputs.close(complete=True)

    assert peak_bytes < 5_000_000
    assert (outputs.frames, outputs.masks, outputs.errors) == (count + 1, 2 * count, 1)
    after = lines.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == count + 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"no line of ours", "holds a line that maskwatch did not write"),
        (b'{"source":"caf\xe9"}', "holds a line that is not UTF-8"),
        (b'{"source":"other","frame":2,"name":"c.jpg","width":1,"height":1}', "was written for other, not for"),
    ],
)
def test_every_line_of_an_earlier_run_is_checked_before_anything_is_written(
    two: Path, tmp_path: Path, line: bytes, says: str
) -> None:
    lines = tmp_path / "out.jsonl"
    write_lines(two, lines)
    whole = lines.read_bytes() + line + b"\n"
    lines.write_bytes(whole)

    with pytest.raises(BadOutput, match=says):
        outputs_of(two, json=lines, resume=True)

    assert lines.read_bytes() == whole


def test_going_on_is_refused_at_the_line_whose_picture_has_another_name(two: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    write_lines(two, lines)
    (two / "b.jpg").rename(two / "c.jpg")

    with pytest.raises(BadOutput, match=r"line 2 is for 'b\.jpg', but the source has 'c\.jpg'"):
        write_lines(two, lines, resume=True)


def test_going_on_is_refused_when_the_lines_become_fewer_meanwhile(two: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    write_lines(two, lines)
    outputs = outputs_of(two, json=lines, resume=True)

    lines.write_bytes(b"")

    with pytest.raises(BadOutput, match="became shorter"):
        outputs.known_line(SourceFrame(name="a.jpg", index=0))


def test_going_on_after_pictures_have_gone_or_were_damaged_says_so(two: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    write_lines(two, lines)
    whole = lines.read_bytes()
    (two / "b.jpg").unlink()

    with pytest.raises(BadOutput, match=r"2 lines, but .* has only 1 pictures"):
        write_lines(two, lines, resume=True)

    assert lines.read_bytes() == whole
    (two / "a.jpg").write_bytes((two / "a.jpg").read_bytes()[:-200])
    source_frame = next(iter(parse_source(str(two)).open()))
    with pytest.raises(BadOutput, match=r"a\.jpg was labelled"):
        outputs_of(two, out=tmp_path / "out").write(source_frame, b"", unlabelled(source_frame))


@pytest.mark.parametrize(
    ("line", "what"), [(b'{"source":"\xff"}', "is not UTF-8"), (b'{"?":' + b"[" * 100_000, "did not write")]
)
def test_lines_that_cannot_be_read_are_not_continued(two: Path, tmp_path: Path, line: bytes, what: str) -> None:
    lines = tmp_path / "out.jsonl"
    lines.write_bytes(line + b"\n")

    with pytest.raises(BadOutput, match=rf"--resume: .*out\.jsonl .*{what}"):
        outputs_of(two, json=lines, resume=True)


def test_names_and_errors_are_printable_and_the_same_each_time(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_text("not a picture")

    source_frame = read_picture(path, 0)

    assert source_frame.name == "caf\ufffd.png"
    assert source_frame.error == "not a picture that can be decoded: no picture format that is known"
