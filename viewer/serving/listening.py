"""Listen on the viewer's address: host and port in, a socket or PortInUse out."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

IDLE_TIMEOUT_S = 15  # a client that sends nothing, or reads nothing, for this long is disconnected
PORT_WAIT_S = 3.0  # how long to wait for a port in use: the worker of a killed viewer releases it within this time
PORT_RETRY_S = 0.05


class PortInUse(Exception):
    """The viewer cannot listen on its address; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 chooses a free one.

    Raises:
        PortInUse: the port is in use, or the address does not belong to this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = _bind((str(address[0]), int(address[1])), family)
    except OSError as error:
        number = error.errno or 0  # negative for a name that is not found
        reason = os.strerror(number) if number > 0 else error.strerror
        raise PortInUse(f"cannot listen on {host} port {port}: {reason}; choose another --port or --host") from error
    # accepted connections inherit both
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", IDLE_TIMEOUT_S, 0))
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * IDLE_TIMEOUT_S)
    return listening


def _bind(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    ends = time.monotonic() + PORT_WAIT_S
    while True:
        try:
            return socket.create_server(address, family=family, backlog=256)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > ends:
                raise
        time.sleep(PORT_RETRY_S)
