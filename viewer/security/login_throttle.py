"""A limit on failed sign-ins: for each address, for all addresses together, and for each known browser.

A successful sign-in gives its attempt back, so only failures count. Behind a proxy all requests have the address of the
proxy and share its limit. A browser that has signed in before is known by its device cookie and has a limit of its own:
password guessing from elsewhere does not lock it out.
"""

from __future__ import annotations

import ipaddress
import threading

from viewer.security.token_bucket import TokenBucket

ONE_BURST, ONE_PER_S = 5, 5 / 60  # failures of one address or known browser: 5, then 5 a minute
ALL_BURST, ALL_PER_S = 30, 30 / 60  # failures of all addresses, so that many addresses are of no use
IPV6_PREFIX = 64  # the smallest network that a provider assigns to a customer


class LoginThrottle:
    """The attempts that are left. Threads may share it. Pure: the clock is an argument, monotonic seconds."""

    def __init__(self, at_s: float) -> None:
        self._all = TokenBucket(ALL_BURST, ALL_PER_S, at_s)
        # Full buckets are removed. The limit of all addresses keeps the number of the others below
        # ALL_BURST + ALL_PER_S * ONE_BURST / ONE_PER_S. Known browsers come on top: each has signed in once.
        self._by_one: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()

    def begin(self, address: str, device: str | None, at_s: float) -> float:
        """Return 0 when an attempt may be made now, otherwise the seconds to wait. device: None if unknown."""
        one = _key(address, device)
        with self._lock:
            self._by_one = {key: bucket for key, bucket in self._by_one.items() if not bucket.is_full(at_s)}
            bucket = self._by_one.get(one) or TokenBucket(ONE_BURST, ONE_PER_S, at_s)
            if wait_s := bucket.take(1, at_s):
                return wait_s
            if device is None and (wait_s := self._all.take(1, at_s)):
                bucket.give(1)
                return wait_s
            self._by_one[one] = bucket
            return 0.0

    def succeeded(self, address: str, device: str | None) -> None:
        """Give back the attempt."""
        with self._lock:
            if device is None:
                self._all.give(1)
            if bucket := self._by_one.get(_key(address, device)):
                bucket.give(1)


def _key(address: str, device: str | None) -> str:
    return f"device {device}" if device else network_of(address)


def network_of(address: str) -> str:
    """Return the IPv4 address, or the network of the IPv6 address, that counts as one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped if parsed.version == 6 else parsed)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
