"""Find a device that decodes video, as FFmpeg's -hwaccel does: a setting in, PyAV's HWAccel or None out.

A device that cannot be used is said in one line of the log, once a process, and the CPU decodes.
"""

from __future__ import annotations

import functools
import logging

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available

from producer.sources.network_errors import reason
from producer.sources.source import SourceFailed

log = logging.getLogger(__name__)

NONE, AUTO = "none", "auto"
TRIED_CODEC = "h264"  # what most cameras send; a device that cannot decode it is of no use


def hardware(setting: str) -> HWAccel | None:
    """Return the device to decode on; None for the CPU.

    Args:
        setting: none, auto for the first device that works, or FFmpeg's name of a device, such as cuda.

    Raises:
        SourceFailed: FFmpeg was built without this kind of device.
    """
    kind = _usable_kind(setting)
    return HWAccel(kind, allow_software_fallback=True) if kind else None


@functools.cache
def _usable_kind(setting: str) -> str | None:
    if setting == NONE:
        return None
    known = hwdevices_available()
    if setting not in (AUTO, *known):
        raise SourceFailed(f"--hwaccel {setting}: FFmpeg knows {', '.join((NONE, AUTO, *known))} here; use one of them")
    reasons = []
    for kind in known if setting == AUTO else [setting]:
        if (why := _why_unusable(kind)) is None:
            log.info("video is decoded by %s", kind)
            return kind
        reasons.append(f"{kind}: {why}")
    log.warning("no device decodes video here (%s); the CPU does", "; ".join(reasons))
    return None


def _why_unusable(kind: str) -> str | None:
    """Return why a kind of device cannot be used; None when it can."""
    try:
        context = av.CodecContext.create(TRIED_CODEC, "r", hwaccel=HWAccel(kind, allow_software_fallback=False))
        context.open()
    except NotImplementedError:
        return f"it does not decode {TRIED_CODEC}"
    except (av.error.FFmpegError, RuntimeError) as error:
        return reason(error)
    return None if context.is_hwaccel else f"it does not decode {TRIED_CODEC}"
