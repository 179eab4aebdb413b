"""How often somebody may try to sign in: each address, and all of them together; and each known browser by itself.

Whoever knows the password gets back what the attempt took, so only failures count. Behind a proxy everybody has the
proxy's address, and shares what one address may use up. A browser that has signed in before is known by its device
cookie and shares nothing: however many strangers guess, it is not kept out.
"""

from __future__ import annotations

import ipaddress
import threading

from viewer.security.token_bucket import TokenBucket

ONE_MOST, ONE_PER_S = 5, 5 / 60  # failures of one address or known browser: 5, then 5 a minute
ALL_MOST, ALL_PER_S = 30, 30 / 60  # failures of all addresses: a guesser with many gets no further
IPV6_PREFIX = 64  # one customer of a provider has at least so many addresses


class LoginThrottle:
    """LoginThrottle to sign in. Threads may share it. Pure: the clock is an argument, monotonic seconds."""

    def __init__(self, at_s: float) -> None:
        self._all = TokenBucket(ALL_MOST, ALL_PER_S, at_s)
        # An address is forgotten when it may try as often as a new one. So few attempts get through in that time that
        # there are never more than ALL_MOST + ALL_PER_S * ONE_MOST / ONE_PER_S of them. Known browsers come on top; who
        # makes many of them knows the password.
        self._by_one: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()

    def begin(self, address: str, device: str | None, at_s: float) -> float:
        """Return 0 when an attempt may be made now; otherwise in how many seconds. device: None for a stranger."""
        one = _one(address, device)
        with self._lock:
            self._by_one = {key: each for key, each in self._by_one.items() if not each.is_full(at_s)}
            allowance = self._by_one.get(one) or TokenBucket(ONE_MOST, ONE_PER_S, at_s)
            if wait_s := allowance.take(1, at_s):
                return wait_s
            if device is None and (wait_s := self._all.take(1, at_s)):
                allowance.give(1)
                return wait_s
            self._by_one[one] = allowance
            return 0.0

    def succeeded(self, address: str, device: str | None) -> None:
        """Give back what an attempt took."""
        with self._lock:
            if device is None:
                self._all.give(1)
            if allowance := self._by_one.get(_one(address, device)):
                allowance.give(1)


def _one(address: str, device: str | None) -> str:
    return f"device {device}" if device else network_of(address)


def network_of(address: str) -> str:
    """Return what stands for one client: its IPv4 address, or the network of its IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4 or found.ipv4_mapped:
        return str(found.ipv4_mapped if found.version == 6 else found)
    return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
