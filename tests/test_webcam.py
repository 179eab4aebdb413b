"""Webcams: which of their modes is used, and what is said of those that cannot be read.

No test has a real device, and few kernels of test machines have the module `v4l2loopback`. So the processes here read a
simulated one (tests/simulated_webcam.py): everything above the kernel is real, its drivers and USB are not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Server, wait_until
from simulated_webcam import DEVICE, SimulatedWebcam, simulated_webcam
from webcam_formats import INFRARED, LARGE_ONLY, RAW_ONLY, SLOW, UNREADABLE, USUAL, modes_of

from pipeline.bus.status import read_heartbeats, read_status
from producer.sources.source import SourceFailed
from producer.sources.source_spec import parse_source
from producer.sources.webcam_mode import WebcamMode, choose_mode

OPEN_IN_TURN = """
import json, sys
from pathlib import Path
from producer.sources.source import SourceFailed
from producer.sources.source_spec import parse_source

state = Path(sys.argv[1])
found = []
for name, formats in json.load(sys.stdin):
    (state / "formats").write_text(formats)
    if name:
        (state / name).touch()
    try:
        source = parse_source("/dev/video7").open(fps=20)
        frame = next(iter(source))
        source.close()
        asked = (state / "asked").read_text()
        found.append(f"{asked}: {frame.width}x{frame.height} of {round(frame.image.mean())}")
    except SourceFailed as error:
        found.append(str(error))
    if name:
        (state / name).unlink()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def webcam(tmp_path_factory: pytest.TempPathFactory) -> SimulatedWebcam:
    return simulated_webcam(tmp_path_factory.mktemp("webcam"))


def open_in_turn(webcam: SimulatedWebcam, *cases: tuple[str | None, str]) -> list[str]:
    """Open the webcam once for each case, its state and what it offers; return what was read, or why nothing was."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_IN_TURN, str(webcam.state)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=webcam.environment,
    )
    return list(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("formats", "fps", "chosen"),
    [
        (USUAL, 20, ("MJPG", 1280, 720, 25)),
        (USUAL, 30, ("MJPG", 1280, 720, 30)),
        (USUAL, 60, ("MJPG", 1280, 720, 60)),
        (USUAL, 4, ("MJPG", 1280, 720, 10)),
        (RAW_ONLY, 20, ("YUYV", 640, 480, 30)),
        (RAW_ONLY, 8, ("YUYV", 1280, 720, 10)),
        (SLOW, 20, ("YUYV", 640, 480, 10)),
        (LARGE_ONLY, 20, ("MJPG", 1920, 1080, 30)),
        (INFRARED, 20, ("GREY", 640, 360, 30)),
    ],
)
def test_the_largest_size_up_to_1280x720_that_is_fast_enough_is_chosen(
    formats: str, fps: int, chosen: tuple[str, int, int, int]
) -> None:
    pixel_format, width, height, rate = chosen

    mode = choose_mode(modes_of(formats), fps=fps)

    assert mode == WebcamMode(pixel_format=pixel_format, width=width, height=height, fps=rate)


def test_a_driver_that_lists_no_rates_is_asked_for_the_best_size() -> None:
    modes = [WebcamMode(pixel_format="YUYV", width=width, height=480, fps=0) for width in (320, 640, 1600)]

    assert choose_mode(modes, fps=20) == modes[1]


def test_the_chosen_mode_is_set_and_its_pictures_are_read(webcam: SimulatedWebcam) -> None:
    _, jpeg = cv2.imencode(".jpg", np.full((720, 1280, 3), 90, np.uint8))
    (webcam.state / "MJPG").write_bytes(jpeg.tobytes())

    found = open_in_turn(webcam, (None, USUAL), (None, RAW_ONLY), (None, INFRARED))

    assert found == [
        "MJPG 1280x720 25: 1280x720 of 90",
        "YUYV 640x480 30: 640x480 of 130",  # 128 of 16 to 235 is 130 of 255
        "GREY 640x360 30: 640x360 of 128",
    ]


def test_a_webcam_that_cannot_be_read_says_why_and_what_to_do(webcam: SimulatedWebcam) -> None:
    found = open_in_turn(
        webcam,
        ("unplugged", USUAL),
        ("denied", USUAL),
        ("busy", USUAL),
        ("metadata", USUAL),
        (None, UNREADABLE),
    )

    assert found[0].startswith(f"there is no camera {DEVICE} (present: ")
    assert found[1:3] == [
        f"{DEVICE} may not be opened by this user; add it to the group 'video'",
        f"{DEVICE} is used by another program; close it",
    ]
    assert found[3].startswith(f"{DEVICE} delivers no pictures: most webcams have a second device for other data; name")
    assert found[4] == f"{DEVICE} offers only formats that cannot be read: H264, HEVC; use another camera"


def test_a_device_that_is_no_camera_is_named() -> None:
    with pytest.raises(SourceFailed, match=r"/dev/null is not a camera \(present: "):
        parse_source("/dev/null").open()


def test_a_webcam_that_is_busy_unplugged_and_plugged_in_again_says_so_and_comes_back(
    webcam: SimulatedWebcam, server: Server, tmp_path: Path
) -> None:
    webcam.offer(RAW_ONLY)
    webcam.put_into("busy")
    camera = start_camera(webcam, server, tmp_path / "camera.log")
    try:
        wait_until(lambda: f"{DEVICE} is used by another program" in state(server), 30, "it says that it is busy")

        webcam.put_into(None)
        wait_until(lambda: state(server) == "running", 30, "it delivers when it is free")
        webcam.put_into("unplugged")
        wait_until(lambda: state(server).startswith("retrying"), 30, "it says that it is unplugged")
        before = produced(server)
        webcam.put_into(None)
        wait_until(lambda: produced(server) > before + 5, 30, "it delivers again")
        wait_until(lambda: state(server) == "running", 30, "it says that it delivers")
    finally:
        camera.terminate()
        camera.wait(30)
    assert f"{DEVICE} delivers no pictures any more; is it still plugged in?" in (tmp_path / "camera.log").read_text()
    assert "Traceback" not in (tmp_path / "camera.log").read_text()


def start_camera(webcam: SimulatedWebcam, server: Server, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "maskwatch", "camera", DEVICE, "--name", "door", "--redis", server.url]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=webcam.environment)


def state(server: Server) -> str:
    """Return the camera's state in its heartbeat; empty before the first."""
    return next((beat.state for beat in read_heartbeats(server.client) if beat.role == "camera"), "")


def produced(server: Server) -> int:
    return sum(camera.ledger.produced for camera in read_status(server.bus).cameras)
