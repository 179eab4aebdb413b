"""A reverse proxy in a test: serves a viewer below a path of its own, and strips that path or passes it on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

END = b"\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class PathProxy:
    """Passes requests below `base_path` on, each over a connection of its own; everything else is another site's.

    strips: whether the viewer gets paths without the base path. astray: paths that the browser asked for elsewhere.
    """

    def __init__(self, viewer_url: str, base_path: str, *, strips: bool) -> None:
        address = urlsplit(viewer_url)
        self._viewer = (str(address.hostname), int(address.port or 80))
        self._base_path = base_path
        self._strips = strips
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.astray: list[str] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}{base_path}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            received = b""
            while END not in received:
                if not (more := client.recv(65_536)):
                    return
                received += more
            head, _, body = received.partition(END)
            method, path, version = head.split(b"\r\n")[0].split(b" ")
            base = self._base_path.encode()
            if path != base and not path.startswith(base + b"/"):
                self.astray.append(path.decode())
                client.sendall(NOT_FOUND)
                return
            passed = (path.removeprefix(base) or b"/") if self._strips else path
            headers = head.split(b"\r\n")[1:]
            if b"upgrade: websocket" not in head.lower():
                headers = [one for one in headers if not one.lower().startswith(b"connection:")]
                headers.append(b"Connection: close")
            with socket.create_connection(self._viewer) as viewer:
                self._open.append(viewer)
                viewer.sendall(b"\r\n".join([b" ".join([method, passed, version]), *headers]) + END + body)
                threading.Thread(target=_copy, args=(client, viewer), daemon=True).start()
                _copy(viewer, client)


@contextmanager
def proxied(viewer_url: str, base_path: str, *, strips: bool) -> Iterator[PathProxy]:
    """Run a proxy until the block ends. viewer_url: its host and port count."""
    proxy = PathProxy(viewer_url, base_path, strips=strips)
    try:
        yield proxy
    finally:
        proxy.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(65_536):
            target.sendall(received)
        target.shutdown(socket.SHUT_WR)
