"""Label films of many containers, codecs, pixel formats, rates and sounds: `python -m bench.containers`.

FFmpeg writes each film, `maskwatch label` labels it, and Chromium plays the labelled copy to its end. Printed for each:
frames and seconds in and out, seconds of sound, whether it plays, or the line with which it was refused. Exit status 1
unless each is right: every frame there, no more than TOLERANCE_S longer or shorter, and played.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import itertools
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from playwright.sync_api import Error, Page, sync_playwright

SECONDS = 2
TOLERANCE_S = 0.12
LABEL_TIMEOUT_S = 120.0
PLAY_TIMEOUT_S = 20.0
# Chromium's own services are of no use here.
BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PLAY = """async source => {
  const film = document.createElement('video');
  film.muted = true; film.playbackRate = 4;
  document.body.replaceChildren(film);
  const ended = new Promise((resolve, reject) => {
    film.onended = () => resolve([film.videoWidth, film.duration]);
    film.onerror = () => reject(new Error(film.error.message));
  });
  film.src = source;
  await film.play();
  return await ended;
}"""

# container, video codec, pixel format, frames per second, sound codec or "" for none
FILMS = (
    *itertools.product(["mp4", "mov", "mkv"], ["libx264"], ["yuv420p", "yuv422p10le", "yuv444p"], ["25"], ["aac", ""]),
    *itertools.product(["mp4", "mkv"], ["libx265"], ["yuv420p10le", "yuv420p12le"], ["30000/1001"], ["ac3"]),
    ("mp4", "libx264", "yuv420p", "5", "mp3"),
    ("mp4", "libsvtav1", "yuv420p10le", "24", "libopus"),
    ("mp4", "mpeg4", "yuv420p", "15", "aac"),
    ("mov", "prores_ks", "yuv422p10le", "24", "pcm_s16le"),
    ("mov", "mjpeg", "yuvj422p", "12", "pcm_s24le"),
    ("mkv", "ffv1", "gray", "10", "flac"),
    ("mkv", "libvpx-vp9", "yuv420p", "60", "libvorbis"),
    ("mkv", "rawvideo", "yuv420p", "25", "pcm_s16le"),
    ("webm", "libvpx", "yuv420p", "25", "libvorbis"),
    ("webm", "libvpx-vp9", "yuv444p", "50", "libopus"),
    ("ts", "libx264", "yuv420p", "50", "mp2"),
    ("ts", "mpeg2video", "yuv420p", "25", "ac3"),
    ("m2ts", "libx264", "yuv420p10le", "24000/1001", "ac3"),
    ("mpg", "mpeg2video", "yuv420p", "30000/1001", "mp2"),
    ("avi", "mpeg4", "yuv420p", "25", "mp3"),
    ("avi", "mjpeg", "yuvj420p", "15", "pcm_s16le"),
    ("wmv", "wmv2", "yuv420p", "25", "wmav2"),
    ("flv", "flv1", "yuv420p", "20", "mp3"),
    ("3gp", "mpeg4", "yuv420p", "15", "aac"),
    ("ogv", "libtheora", "yuv420p", "25", "libvorbis"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """What a file holds: frames, and seconds of pictures and of sound; 0 for none."""

    frames: int
    seconds: float
    sound_s: float

    @classmethod
    def by(cls, path: Path) -> Held:
        """Decode a file to its end."""
        with av.open(str(path)) as file:
            shown = [frame.time or 0.0 for frame in file.decode(video=0)]
        with av.open(str(path)) as file:
            heard = 0.0
            if file.streams.audio:
                heard = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
        steps = [after - before for before, after in itertools.pairwise(shown)]
        return cls(len(shown), shown[-1] - shown[0] + sum(steps) / max(1, len(steps)), heard)


def main() -> None:
    """Label and play all films, and print a table."""
    print(
        "container, codec, pixels, frames/s, sound              frames in, out    seconds in, out    sound out  plays"
    )
    wrong = 0
    with tempfile.TemporaryDirectory() as name, _player(Path(name)) as plays:
        for number, film in enumerate(FILMS):
            row, is_right = _measure(Path(name), number, film, plays)
            wrong += not is_right
            print(f"{' '.join(filter(None, film)):50} {row}{'' if is_right else '   WRONG'}", flush=True)
    print(f"{len(FILMS) - wrong} of {len(FILMS)} are right")
    sys.exit(1 if wrong else 0)


def _measure(folder: Path, number: int, film: tuple[str, ...], plays: Callable[[str], str]) -> tuple[str, bool]:
    source, out = folder / f"{number}.{film[0]}", folder / f"out-{number}.mp4"
    _write(source, film)
    before = Held.by(source)
    command = [sys.executable, "-m", "maskwatch", "label", str(source), "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LABEL_TIMEOUT_S)
    if run.returncode:
        return f"refused: {run.stderr.strip().splitlines()[-1]}", False
    after, played = Held.by(out), plays(out.name)
    is_right = (
        after.frames == before.frames == round(SECONDS * _rate(film[3]))
        and abs(after.seconds - before.seconds) <= TOLERANCE_S
        and abs(after.sound_s - before.sound_s) <= TOLERANCE_S
        and played == "yes"
    )
    figures = f"{before.frames:9} {after.frames:5} {before.seconds:12.2f} {after.seconds:6.2f} {after.sound_s:12.2f}"
    return f"{figures}  {played}", is_right


def _write(path: Path, film: tuple[str, ...]) -> None:
    _, codec, pixels, rate, sound = film
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size=352x288:rate={rate}"]
    sounds = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"] if sound else []
    strict = ["-strict", "unofficial"]  # for those of these that FFmpeg warns of
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *inputs, *sounds, "-t", str(SECONDS)]
    command += ["-c:v", codec, "-pix_fmt", pixels, *(["-c:a", sound] if sound else []), *strict, str(path)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # encoders that say what they do


def _rate(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return int(numerator) / int(denominator or 1)


@contextlib.contextmanager
def _player(folder: Path) -> Iterator[Callable[[str], str]]:
    """Yield a function that plays a file of a folder in Chromium and returns "yes", or why it does not play."""
    handler = functools.partial(_Files, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(BROWSER))
        page = browser.new_page()
        page.set_default_timeout(1000 * PLAY_TIMEOUT_S)
        (folder / "page.html").write_text("<!doctype html><title>player</title>")
        page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
        yield functools.partial(_play, page)
        browser.close()
    server.shutdown()


def _play(page: Page, name: str) -> str:
    try:
        width, _ = page.evaluate(PLAY, name)
    except Error as error:
        return " ".join(str(error).split())[:80]
    return "yes" if width else "no picture"


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


if __name__ == "__main__":
    main()
