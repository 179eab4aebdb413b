"""Which Socket.IO packets a page may send, checked in the packet class that python-socketio lets its users choose."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta
from socketio.packet import Packet

MALFORMED = "malformed"  # the event that takes the place of a packet of any other form
MALFORMED_PACKET = f'2["{MALFORMED}"]'
CONNECT = "0"
CONTROL = (CONNECT, "1")  # connect, disconnect
EVENT = "2"  # before the JSON of an event: a list that begins with the event's name
Number: TypeAlias = Annotated[float, Meta(ge=-1e16, le=1e16)]  # Engine.IO rejects integers of more than 100 digits
Value: TypeAlias = str | Number | bool | None
Event: TypeAlias = list[Value | list[Value | list[Value]]]  # no event of the page is nested deeper
_DECODER = msgspec.json.Decoder(Event)  # made by one thread: msgspec may crash when several first decode a type at once


class PagePacket(Packet):  # type: ignore[misc]  # python-socketio ships no types
    """A Socket.IO packet; a received one of a form that no page sends is decoded as the event MALFORMED.

    Otherwise the library would answer such a packet with a traceback in the log.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        if "encoded_packet" in named and not is_page_packet(named["encoded_packet"]):  # None for the JSON null
            named["encoded_packet"] = MALFORMED_PACKET
        super().__init__(*args, **named)


def is_page_packet(packet: object) -> bool:
    """Return whether a packet has a form that a page sends: connect, disconnect, or an event."""
    if not isinstance(packet, str) or not packet.startswith(EVENT):
        return packet in CONTROL
    try:
        event = _DECODER.decode(packet.removeprefix(EVENT))
    except msgspec.MsgspecError:
        return False
    return bool(event) and isinstance(event[0], str)
