"""Two hosts on one machine: network namespaces, and a cable between them that delays packets and can be cut.

The cable is a thread that forwards packets between two TUN devices, as netem would on kernels that have it. A cut cable
drops all packets; neither host gets an error.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import missing

TUN = Path("/dev/net/tun")
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN_NO_PI = 0x0001 | 0x1000
MTU = 9_000
MAX_QUEUED = 4_096  # packets in flight in one direction; more are dropped
WAKE_S = 0.2
CABLE_NICE = -10  # so that a busy machine does not add to the delay


@dataclass(frozen=True)
class Host:
    """One namespace with its address on the cable."""

    name: str
    address: str

    def command(self, *command: object) -> list[str]:
        """Return a command line that runs on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]


class Cable:
    """Forward packets between two TUN devices, each after delay_s."""

    def __init__(self, ends: tuple[int, int], delay_s: float) -> None:
        self.connected = True
        self.forwarded = 0
        self._ends = ends
        self._delay_s = delay_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="cable", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop forwarding, and remove the devices."""
        self._stop.set()
        self._thread.join()
        for end in self._ends:
            os.close(end)

    def _forward(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), CABLE_NICE)
        in_flight: collections.deque[tuple[float, int, bytes]] = collections.deque(maxlen=2 * MAX_QUEUED)
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        while not self._stop.is_set():
            wait_s = max(0.0, in_flight[0][0] - time.monotonic()) if in_flight else WAKE_S
            readable, _, _ = select.select(self._ends, [], [], wait_s)
            for end in readable:
                packet = os.read(end, MTU + 100)
                if self.connected:
                    in_flight.append((time.monotonic() + self._delay_s, other[end], packet))
            while in_flight and in_flight[0][0] <= time.monotonic():
                _, end, packet = in_flight.popleft()
                if self.connected:
                    self.forwarded += 1
                    with contextlib.suppress(OSError):  # its host is down
                        os.write(end, packet)


@contextmanager
def two_hosts(delay_s: float) -> Iterator[tuple[Host, Host, Cable]]:
    """Create two hosts with a cable between them; remove all of it in the end.

    Args:
        delay_s: added to each round trip, half of it on each way.
    """
    if os.geteuid() != 0 or not os.access(TUN, os.R_OK | os.W_OK):
        missing("network namespaces and TUN devices need root and /dev/net/tun")
    tag = f"mw{os.getpid()}"
    hosts = (Host(f"{tag}a", "10.213.77.1"), Host(f"{tag}b", "10.213.77.2"))
    cable: Cable | None = None
    made: list[Host] = []
    try:
        for host in hosts:
            ip("netns", "add", host.name)
            made.append(host)
        cable = Cable((_end(hosts[0], hosts[1]), _end(hosts[1], hosts[0])), delay_s / 2)
        yield *hosts, cable
    finally:
        if cable is not None:
            cable.close()
        for host in made:
            ip("netns", "del", host.name)


def ip(*words: str) -> None:
    """Run iproute2's program."""
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        missing("there is no ip on this machine: Debian's package iproute2 has it")


def _end(host: Host, peer: Host) -> int:
    """Create a host's end of the cable; return the descriptor to read its packets from."""
    device = f"{host.name}0"
    end = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN_NO_PI))
    ip("link", "set", device, "netns", host.name)
    inside = ("-n", host.name)
    ip(*inside, "link", "set", "lo", "up")
    ip(*inside, "addr", "add", host.address, "peer", peer.address, "dev", device)
    ip(*inside, "link", "set", device, "mtu", str(MTU), "up")
    return end
