"""End a conversation over a socket that takes too long: the time-out of a socket begins anew with each byte."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ends_within(seconds: float, sock: socket.socket) -> Iterator[None]:
    """Shut a connection down if the block takes longer.

    Raises:
        TimeoutError: it did; what the block has read may be only a part.
    """
    late = threading.Event()

    def shut_down() -> None:
        late.set()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    failure: Exception | None = None
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        failure = error
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no answer within {seconds:g} s") from failure
    if failure is not None:
        raise failure
