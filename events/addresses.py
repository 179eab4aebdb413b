"""Where a receiver may be: its URL or host is checked when rules are read, and its address again whenever it is used.

A name can resolve to another address at any time, so the check and the connection use the same answer. Addresses of
this machine and of its own networks are refused unless they are allowed: else rules could reach what only this machine
may reach. No message shows more of a URL than its host, because paths of webhooks are often secret.
"""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all that IANA has given out
NAT64 = ipaddress.ip_network("64:ff9b::/96")
ALLOW = "set allow_private_address = true if it may be"

Address = IPv4Address | IPv6Address


class BadReceiver(ValueError):
    """A receiver that events are not sent to; says why."""


def check_url(url: str, *, allow_private: bool) -> SplitResult:
    """Return the parts of a webhook's URL.

    Raises:
        BadReceiver: it is not http:// or https:// with a host, holds a password, or names an address that is refused.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadReceiver("its url cannot be parsed; write for example https://example.com/path") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadReceiver("its url is not http:// or https:// with a host; write for example https://example.com/path")
    if parts.username is not None or any(not 32 < ord(letter) < 127 for letter in url):
        raise BadReceiver("its url holds a user, a space or a letter outside ASCII; write them as %40, %20 and so on")
    check_host(parts.hostname, "url", allow_private=allow_private)
    return parts


def check_host(host: str, what: str, *, allow_private: bool) -> None:
    """Check what can be said of a host before its name is resolved. what: where it is written, for errors.

    Raises:
        BadReceiver: it is this machine, or an address that is refused.
    """
    if host == "localhost" and not allow_private:
        raise BadReceiver(f"its {what} leads to localhost, this machine; {ALLOW}")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return
    check_address(literal, host, allow_private=allow_private)


def check_address(address: Address, host: str, *, allow_private: bool) -> None:
    """Check an address.

    Raises:
        BadReceiver: it is one of this machine or of a private network, or no address of one machine.
    """
    for one in (address, *_embedded(address)):
        if one.is_multicast or one.is_unspecified or not (allow_private or _is_public(one)):
            raise BadReceiver(f"{host} has the address {address}, which is not on the public Internet; {ALLOW}")


def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """Return an address of a host to connect to.

    Raises:
        BadReceiver: the first address that it has is refused.
        OSError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    for address in addresses:
        check_address(address, host, allow_private=allow_private)
    return str(addresses[0])


def _is_public(address: Address) -> bool:
    """Return whether an address is one of the public Internet; an IPv6 address that leads to an IPv4 one may be."""
    if isinstance(address, IPv4Address) or address in PUBLIC_IPV6:
        return address.is_global
    return address.ipv4_mapped is not None or address in NAT64


def _embedded(address: Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour]
    found += list(address.teredo or ())[1:]
    if address in NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
