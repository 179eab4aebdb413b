"""Video files as cameras, phones, recorders and shops make them: the film, in its true shape, colours and times."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from producer.files.video_out import VideoFile
from producer.sources.source import SourceFailed, SourceFrame
from producer.sources.source_spec import parse_source
from producer.sources.timestamps import SteadyTimes

FPS, FRAMES = 25, 20
PICTURES = f"testsrc2=size=320x180:rate={FPS}:duration={FRAMES / FPS}"
SOUND = f"sine=frequency=440:sample_rate=44100:duration={FRAMES / FPS}"


def ffmpeg(*arguments: str | Path) -> None:
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def film(path: Path, *options: str, pictures: str = PICTURES, sound: bool = True) -> Path:
    """Write a film of FRAMES frames. options: of ffmpeg, for the output."""
    inputs = ["-f", "lavfi", "-i", pictures, *(["-f", "lavfi", "-i", SOUND] if sound else [])]
    ffmpeg(*inputs, "-c:v", "libx264", "-preset", "ultrafast", *options, path)
    return path


def read(path: Path) -> list[SourceFrame]:
    return list(parse_source(str(path)).open())


def times(frames: list[SourceFrame]) -> list[float | None]:
    return [frame.at_s for frame in frames]


def steady(count: int, fps: float = FPS) -> Any:
    return pytest.approx([number / fps for number in range(count)], abs=0.002)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_cover_picture_is_not_the_film(tmp_path: Path, suffix: str) -> None:
    cover = tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=1000x1000", "-frames:v", "1", cover)
    plain = film(tmp_path / "plain.mp4")
    path = tmp_path / f"film.{suffix}"
    mapped = ["-i", cover, "-i", plain, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    if suffix == "mkv":
        mapped = ["-i", plain, "-map", "0", "-c", "copy", "-attach", cover, "-metadata:s:t", "mimetype=image/png"]
    ffmpeg(*mapped, path)

    frames = read(path)

    assert (len(frames), frames[0].width, frames[0].height) == (FRAMES, 320, 180)


def test_music_with_a_cover_is_no_film(tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=100x100", "-frames:v", "1", cover)
    ffmpeg("-f", "lavfi", "-i", SOUND, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", tmp_path / "music.mp3")

    with pytest.raises(SourceFailed, match="holds no video that can be decoded"):
        parse_source(str(tmp_path / "music.mp3")).open()


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("16/11", (465, 180)), ("8/9", (320, 202)), ("1/1", (320, 180)), ("1/50", (320, 180))],
    ids=["wide", "narrow", "square", "absurd"],
)
def test_a_film_is_shown_in_its_true_shape(tmp_path: Path, aspect: str, size: tuple[int, int]) -> None:
    path = film(tmp_path / "film.mkv", "-vf", f"setsar={aspect}", sound=False)

    frames = read(path)

    assert len(frames) == FRAMES
    assert (frames[0].width, frames[0].height) == frames[0].image.shape[1::-1] == size


def combed(image: np.ndarray) -> float:
    """Return how much more neighbouring rows differ than rows of the same field."""
    grey = image.astype(int).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() - np.abs(grey[2:] - grey[:-2]).mean())


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", "mkv"), ("libx264", "ts"), ("mpeg2video", "mpg")],
)
@pytest.mark.parametrize("order", ["interleave_top", "interleave_bottom"])
def test_interlaced_films_are_deinterlaced(tmp_path: Path, codec: str, suffix: str, order: str) -> None:
    moving = f"color=black:size=320x192:rate={2 * FPS}:duration={FRAMES / FPS}"
    drawn = "geq=lum='if(lt(mod(X-12*N+2800,280),40),235,16)':cb=128:cr=128"
    first = {"interleave_top": "1", "interleave_bottom": "0"}[order]
    path = tmp_path / f"film.{suffix}"
    ffmpeg(
        *(
            "-f",
            "lavfi",
            "-i",
            moving,
            "-vf",
            f"{drawn},tinterlace={order},setfield={'tff' if first == '1' else 'bff'}",
        ),
        *("-c:v", codec, "-flags", "+ilme+ildct", "-top", first, "-b:v", "4M", path),
    )
    with av.open(str(path)) as file:
        plain = [frame.to_ndarray(format="bgr24") for frame in file.decode(video=0)]

    frames = read(path)

    assert len(frames) == len(plain)
    assert times(frames) == steady(len(plain))
    assert np.mean([combed(one) for one in plain[2:-2]]) > 8
    assert np.mean([combed(frame.image) for frame in frames[2:-2]]) < 2


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"], ids=["PQ", "HLG"])
def test_films_for_brighter_screens_are_mapped_to_ordinary_colours(tmp_path: Path, transfer: str) -> None:
    # reference white, 203 nits: BT.2408 puts it at 58 % of PQ's signal and at 75 % of HLG's
    signal = {"smpte2084": 0.58, "arib-std-b67": 0.75}[transfer]
    luma = round(64 + 876 * signal)
    colours = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    path = film(
        tmp_path / "film.mp4",
        *("-vf", f"format=yuv420p10le,geq=lum={luma}:cb='if(lt(X,80),512,470)':cr='if(lt(X,80),512,600)'", *colours),
        pictures=f"color=gray:size=320x180:rate={FPS}:duration=0.2",
        sound=False,
    )
    with av.open(str(path)) as file:
        plain = next(file.decode(video=0)).to_ndarray(format="bgr24")

    frames = read(path)

    assert len(frames) == 5
    white, orange = frames[0].image[90, 80].astype(int), frames[0].image[90, 240].astype(int)
    assert np.ptp(white) <= 6
    assert 150 < white.mean() < 240
    assert np.ptp(orange) > np.ptp(plain[90, 240]) + 5


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "gray", "yuvj420p"])
def test_films_of_any_depth_are_read(tmp_path: Path, pixels: str) -> None:
    codec = "libx265" if "12" in pixels else "libx264"
    path = film(
        tmp_path / "film.mkv", "-c:v", codec, "-pix_fmt", pixels, pictures=PICTURES.replace("320x180", "318x178")
    )

    frames = read(path)

    assert [len(frames), frames[0].width, frames[0].height] == [FRAMES, 318, 178]
    assert 40 < frames[0].image.mean() < 215


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_recording_whose_clock_began_long_ago_begins_at_0(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"film.{suffix}", "-output_ts_offset", "36000")

    assert times(read(path)) == steady(FRAMES)


@pytest.mark.parametrize("sound", [True, False])
def test_recordings_that_were_joined_are_shown_one_after_the_other(tmp_path: Path, sound: bool) -> None:
    later = film(tmp_path / "later.ts", "-output_ts_offset", "500", sound=sound)
    earlier = film(tmp_path / "earlier.ts", "-output_ts_offset", "20", sound=sound)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(later.read_bytes() + earlier.read_bytes() + later.read_bytes())

    at_s = times(read(joined))

    assert len(at_s) == pytest.approx(3 * FRAMES, abs=3)  # a frame may be lost at each joint
    assert np.diff(at_s[:FRAMES]) == pytest.approx(1 / FPS, abs=0.002)
    assert min(np.diff(at_s)) > 0
    assert max(np.diff(at_s)) < 500  # the third part goes on 479 s later, as its clock says


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ([5.0, 5.1, 5.2], [0, 0.1, 0.2]),
        ([5.0, 5.1, 2.0, 2.1], [0, 0.1, 0.14, 0.24]),
        ([1.0, 1.0, 1.0, 1.12], [0, 0.04, 0.08, 0.12]),
        ([95_443.7, 95_443.74, 0.0], [0, 0.04, 0.08]),
        ([0.0, 0.04, 90_000.0], [0, 0.04, 0.08]),
        ([0.0, 10.0, 30.0], [0, 10, 30]),
        ([None, None, None], [0, 0.04, 0.08]),
        ([0.0, None, 0.08], [0, 0.04, 0.08]),
    ],
    ids=["offset", "back", "the same", "wrap", "far ahead", "slow", "none", "one missing"],
)
def test_times_begin_at_0_and_only_grow(recorded: list[float | None], shown: list[float]) -> None:
    steady_times = SteadyTimes(zero_s=None, interval_s=0.04)

    assert [steady_times.at_s(one) for one in recorded] == pytest.approx(shown, abs=1e-6)


def test_the_first_frame_of_a_damaged_beginning_keeps_its_place() -> None:
    steady_times = SteadyTimes(zero_s=7.0, interval_s=0.04)

    assert [steady_times.at_s(one) for one in (7.2, 7.24)] == pytest.approx([0.2, 0.24])


def copied(path: Path, out: Path) -> tuple[int, float, int, float]:
    """Write a film again as `label` does; return its frames and seconds, and those of its sound."""
    written = VideoFile(out, sound_from=path)
    for frame in read(path):
        written.write(frame, frame.image)
    written.close(complete=True)
    with av.open(str(out)) as file:
        pictures = [frame.time for frame in file.decode(video=0)]
    with av.open(str(out)) as file:
        heard = [(frame.time, frame.samples / frame.sample_rate) for frame in file.decode(audio=0)]
    return len(pictures), pictures[-1] + 1 / FPS, len(heard), heard[-1][0] + heard[-1][1] - max(0.0, heard[0][0])


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "aac"), ("ts", "mp2"), ("ts", "aac"), ("wmv", "wmav2"), ("mkv", "libopus"), ("avi", "pcm_s16le")],
)
def test_sound_is_written_beside_the_pictures(tmp_path: Path, suffix: str, codec: str) -> None:
    options = ["-c:a", codec, *(["-c:v", "wmv2"] if suffix == "wmv" else [])]
    path = film(tmp_path / f"film.{suffix}", *options)

    frames, pictures_s, _, sound_s = copied(path, tmp_path / "out.mp4")

    assert frames == FRAMES
    assert (pictures_s, sound_s) == (pytest.approx(FRAMES / FPS, abs=0.05), pytest.approx(FRAMES / FPS, abs=0.12))


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_damaged_sound_costs_the_damaged_sound_and_nothing_else(tmp_path: Path, codec: str) -> None:
    path = film(tmp_path / "film.mkv", "-c:a", codec)
    with av.open(str(path)) as file:
        packets = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
    content = path.read_bytes()
    for packet in packets[8:11]:
        assert content.count(packet[4:]) == 1
        content = content.replace(packet[4:], b"\xff" * len(packet[4:]))
    path.write_bytes(content)

    frames, pictures_s, heard, sound_s = copied(path, tmp_path / "out.mp4")

    assert (frames, pictures_s) == (FRAMES, pytest.approx(FRAMES / FPS, abs=0.05))
    assert heard > 20
    assert sound_s == pytest.approx(FRAMES / FPS, abs=0.12)


def test_of_two_sounds_the_one_that_can_be_decoded_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    plain = film(tmp_path / "plain.mkv", "-c:a", "ac3")
    path = tmp_path / "film.mkv"
    ffmpeg("-i", plain, "-i", plain, "-map", "0:v", "-map", "0:a", "-map", "1:a", "-c", "copy", path)
    path.write_bytes(path.read_bytes().replace(b"A_AC3", b"A_ZZZ", 1))

    frames, _, heard, _ = copied(path, tmp_path / "out.mp4")

    assert (frames, heard > 20) == (FRAMES, True)
    assert "film.mkv: the sound of track 1 cannot be decoded: left out" in caplog.text


def test_the_sound_of_joined_recordings_stays_with_the_pictures(tmp_path: Path) -> None:
    later = film(tmp_path / "later.ts", "-output_ts_offset", "500")
    earlier = film(tmp_path / "earlier.ts", "-output_ts_offset", "20")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(later.read_bytes() + earlier.read_bytes())

    frames, pictures_s, _, sound_s = copied(joined, tmp_path / "out.mp4")

    assert frames == pytest.approx(2 * FRAMES, abs=2)
    assert sound_s == pytest.approx(pictures_s, abs=0.2)


def test_a_film_without_any_readable_sound_is_written_without(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", "-c:a", "ac3")
    path.write_bytes(path.read_bytes().replace(b"A_AC3", b"A_ZZZ"))
    written = VideoFile(tmp_path / "out.mp4", sound_from=path)

    for frame in read(path):
        written.write(frame, frame.image)
    written.close(complete=True)

    with av.open(str(tmp_path / "out.mp4")) as file:
        assert (len(file.streams.video), len(file.streams.audio)) == (1, 0)
        assert len(list(file.decode(video=0))) == FRAMES
