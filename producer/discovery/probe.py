"""Ask the network which ONVIF cameras there are (WS-Discovery): a multicast address in, the addresses of devices out.

Cameras answer only in the network of this machine: routers do not pass the question on.
"""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

MULTICAST = ("239.255.255.250", 3702)
TTL = 2
MAX_ANSWER_BYTES = 65_536
SENDS = 2  # UDP loses packets
_QUESTION = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:n="http://www.onvif.org/ver10/network/wsdl">'
    "<s:Header><a:MessageID>uuid:{identity}</a:MessageID><a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>"
    "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action></s:Header>"
    "<s:Body><d:Probe><d:Types>n:NetworkVideoTransmitter</d:Types></d:Probe></s:Body></s:Envelope>"
)
_DISCOVERY = "{http://schemas.xmlsoap.org/ws/2005/04/discovery}"
_SCOPE = re.compile(r"onvif://www\.onvif\.org/(name|hardware)/(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A camera that answered.

    host: where the answer came from. service: the URL of its ONVIF service. name: as it calls itself; may be empty.
    """

    host: str
    service: str
    name: str


def find_devices(within_s: float, address: tuple[str, int] = MULTICAST) -> list[Device]:
    """Return the devices that answer within a time, in the order of their hosts.

    Args:
        address: host and port that are asked.

    Raises:
        OSError: this machine has no network to ask.
    """
    found: dict[str, Device] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
        question = _QUESTION.format(identity=uuid.uuid4()).encode()
        for _ in range(SENDS):
            asking.sendto(question, address)
        for host, answer in _answers(asking, time.monotonic() + within_s):
            for device in devices_in(answer, host):
                found.setdefault(device.service, device)
    return sorted(found.values(), key=lambda device: (device.host, device.service))


def devices_in(answer: bytes, host: str) -> list[Device]:
    """Return the devices in an answer; none if it is no answer. host: where it came from."""
    try:
        root = ElementTree.fromstring(answer)  # noqa: S314 -- at most 64 kB; expat 2.4 bounds entities
    except (ElementTree.ParseError, ValueError, LookupError):
        return []
    matches = (_device(match, host) for match in root.iter(f"{_DISCOVERY}ProbeMatch"))
    return [device for device in matches if device]


def _answers(asking: socket.socket, ends: float) -> Iterator[tuple[str, bytes]]:
    while (left_s := ends - time.monotonic()) > 0:
        asking.settimeout(left_s)
        try:
            answer, (host, _) = asking.recvfrom(MAX_ANSWER_BYTES)
        except TimeoutError:
            return
        yield host, answer


def _device(match: ElementTree.Element, host: str) -> Device | None:
    """Return the device of an answer, by the address at which it answered if it names several."""
    services = [url for url in match.findtext(f"{_DISCOVERY}XAddrs", "").split() if _is_web(url)]
    if not services:
        return None
    service = next((url for url in services if urlsplit(url).hostname == host), services[0])
    parts = {kind.lower(): unquote(value) for kind, value in _SCOPE.findall(match.findtext(f"{_DISCOVERY}Scopes", ""))}
    name = " ".join(dict.fromkeys(filter(None, (parts.get("name"), parts.get("hardware")))))
    return Device(host=host, service=service, name=" ".join(name.split()))


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
