"""A simulated webcam for processes that tests start: the calls of Video4Linux are answered by tests/v4l2_device.c.

OpenCV's and our own code for Video4Linux runs as with a device. What a kernel's driver and a USB bus do is simulated.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conftest import missing

SOURCE = Path(__file__).with_name("v4l2_device.c")
DEVICE = "/dev/video7"


@dataclass(frozen=True)
class SimulatedWebcam:
    """A webcam that processes with `environment` find at DEVICE."""

    state: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "LD_PRELOAD": str(self.library),
            "V4L2_DEVICE": DEVICE,
            "V4L2_STATE": str(self.state),
        }

    def offer(self, formats: str) -> None:
        """Let it offer these formats. formats: as `v4l2-ctl --list-formats-ext` prints them."""
        (self.state / "formats").write_text(formats)

    def put_into(self, state: str | None) -> None:
        """Make it denied, unplugged, busy or metadata; None for none of these."""
        for other in ("denied", "unplugged", "busy", "metadata"):
            (self.state / other).unlink(missing_ok=True)
        if state:
            (self.state / state).touch()

    def asked(self) -> str:
        """Return the mode that was set last, such as `MJPG 1280x720 30`."""
        return (self.state / "asked").read_text()


def simulated_webcam(folder: Path) -> SimulatedWebcam:
    """Return a webcam of which nobody has said what it offers; its files are in the folder."""
    if shutil.which("cc") is None:
        missing("there is no C compiler on this machine")
    library = folder / "webcam.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
    state = folder / "state"
    state.mkdir()
    return SimulatedWebcam(state, library)
