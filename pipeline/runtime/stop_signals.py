"""SIGTERM and SIGINT for a process that is to end: a handler that only writes to a socket, and a thread that reads it.

A handler runs in the main thread between any two of its instructions. If it set an Event or started a thread, it could
wait for a lock that the main thread itself holds, for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def calling_on_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in a thread after each SIGTERM and SIGINT while the block runs; then restore the handlers before.

    Only the main thread may enter the block. In a process forked from it, these handlers do nothing.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    owner = os.getpid()

    def notify(_number: int, _frame: FrameType | None) -> None:
        if os.getpid() == owner:  # a fork has the same socket
            with contextlib.suppress(BlockingIOError):  # it is full of signals
                sending.send(b"\0")

    def call_stop() -> None:
        while receiving.recv(1):
            stop()

    thread = threading.Thread(target=call_stop, name="signals", daemon=True)
    thread.start()
    previous = {number: signal.signal(number, notify) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sending.shutdown(socket.SHUT_WR)  # closing it would not end the thread if a fork has it too
        thread.join()
        sending.close()
        receiving.close()
