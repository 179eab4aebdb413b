"""The newest labelled frame of a camera as JPEG, for the page's route and for the API's."""

from __future__ import annotations

from pipeline.bus import messages
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.jpeg import BadImage
from viewer.live_view import LiveView
from viewer.mjpeg import AnnotatedJpegEncoder


class UnknownCamera(Exception):
    """There is no camera of this name; the message names it."""

    def __init__(self, camera: str) -> None:
        super().__init__(f"there is no camera {camera!r}")
        self.camera = camera


class NoSnapshot(Exception):
    """A camera has no labelled frame now; the message says why."""


class Snapshots:
    """Draw and encode newest frames. Threads may share it. encoder: for streams of the same frames, too."""

    def __init__(self, context: WorkerContext, live_view: LiveView) -> None:
        self.encoder = AnnotatedJpegEncoder()
        self._context = context
        self._live_view = live_view

    def newest(self, camera: str) -> bytes:
        """Return the newest labelled frame of a camera as JPEG, with its labels drawn in.

        Raises:
            UnknownCamera, NoSnapshot: there is none.
            redis.RedisError: Redis failed.
        """
        self.check_known(camera)
        frame = self._live_view.newest_labelled(camera)
        if frame is None:
            raise NoSnapshot(f"camera {camera} has no labelled frame right now")
        try:
            return self.encoder.encode(frame)
        except BadImage as error:
            raise NoSnapshot(f"camera {camera} sends damaged pictures: {error}") from error

    def check_known(self, camera: str) -> None:
        """Check that there is a camera.

        Raises:
            UnknownCamera: there is none of this name.
            redis.RedisError: Redis failed.
        """
        if messages.is_camera_name(camera):
            shard = self._context.bus.shard_of(camera)
            if self._context.client.zscore(shard.key("cameras"), camera) is not None:
                return
        raise UnknownCamera(camera)
