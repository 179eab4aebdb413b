"""The WebSocket of the page: whatever one browser sends, the viewer goes on, and another browser gets its frames."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import cv2
import numpy as np
import simple_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import ProtocolError

from bench.fuzz.message import PACKED
from bench.fuzz.mutate import ODD_TEXTS, arbitrary_bytes, mutated_bytes, mutated_text
from bench.fuzz.rounds import BrokenPromise, Round, noting
from bench.fuzz.viewer import Camera, Viewer, running_viewer
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.runtime.embedded_server import embedded_server

BROWSERS, MESSAGES = 6, 12  # of a round, and the most that one of them sends
FLOOD = 50  # times that a browser sends everything, if it sends too much
FRAME_S = 20.0  # within this time the other browser must get a frame
TARGET = "/socket.io/?EIO=4&transport=websocket"
TARGETS = (TARGET,) * 8 + (
    *("/socket.io/?EIO=3&transport=websocket", "/socket.io/?transport=websocket", "/socket.io/?EIO=4", "/socket.io/"),
    *("/socket.io/?EIO=4&transport=websocket&sid=x", "/socket.io/?EIO=4&transport=websocket&EIO=x&b64=1&j=0"),
)
PACKETS = (
    *('42["watch",["door","gate"]]', '42["ack","door","door:1:1"]', '42["probe",1]', '42["status"]', '42["malformed"]'),
    *("40", "41", "40/x,", '42/x,["watch",[]]', '421["watch",[]]', '43["a"]', '431["a"]', "44", '44{"message":"x"}'),
    *('45-["watch"]', '451-["watch",{"_placeholder":true,"num":0}]', '461-1["a",{"_placeholder":true,"num":9}]'),
    *('42["watch",[1,null,{}]]', '42["ack",1e999,null]', '42["probe",true]', '42["probe",99999999999999999999]'),
    *('40{"token":1}', "1", "2", "2probe", "3", "3probe", "5", "6", "bAAAA", "b!", "4", "", '42[]', '42{}', "42"),
    *('42["disconnect"]', '42["connect"]', '42["message",1]', '42["__class__"]', "420" + 300 * "9", "4" + 5000 * "[",
      '42["probe",' + 5000 * "9" + "]", "451000000-[]", '42["watch",' + json.dumps(["c"] * 300) + "]"),
)  # fmt: skip


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a viewer, two cameras, and a browser that watches one of them."""
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    with embedded_server() as server:
        server.wait()
        with connect(server.url) as client, running_viewer(server.url) as viewer:
            bus = Bus(client)
            cameras = [Camera(bus, name, jpeg, (64, 48)) for name in ("door", "gate")]
            other = OtherBrowser(viewer)

            def one_round(random: Random) -> int:
                plans = [plan(random) for _ in range(BROWSERS)]
                with noting(plans):
                    for target, contents in plans:
                        send(viewer, target, contents)
                        for camera in cameras:
                            camera.publish()
                    for _ in range(random.randrange(3)):
                        foreign = mutated_bytes(random, random.choice(PACKED), PACKED)
                        client.xadd(bus.shards[0].key("results"), {"camera": "gate", "record": foreign})
                    other.wait_for_frame(cameras[0])
                    viewer.check()
                return sum(len(contents) for _, contents in plans)

            yield one_round


class OtherBrowser:
    """A browser that does as the page does, and must not notice the others."""

    def __init__(self, viewer: Viewer) -> None:
        self._socket = simple_websocket.Client(viewer.url.replace("http", "ws", 1) + TARGET)
        self._socket.send("40")
        self._socket.send('42["watch",["door"]]')

    def wait_for_frame(self, camera: Camera) -> None:
        """Wait for a frame of the camera that has been published from now on.

        Raises:
            BrokenPromise: none came.
        """
        ends, wanted = time.monotonic() + FRAME_S, {camera.publish()}
        while time.monotonic() < ends:
            message = self._socket.receive(0.2)
            if message is None:
                wanted.add(camera.publish())
            elif message == "2":
                self._socket.send("3")
            elif isinstance(message, str) and message.startswith('451-["frame"'):
                metadata = json.loads(message[message.index("[") :])[1]
                self._socket.send("42" + json.dumps(["ack", metadata["camera"], metadata["frame_id"]]))
                if metadata["frame_id"] in wanted:
                    return
        raise BrokenPromise("another browser got no frame")


def plan(random: Random) -> tuple[str, list[bytes | str]]:
    """Return the target of a WebSocket, and what is sent: packets as text or binary messages, or bytes of any kind."""
    contents: list[bytes | str] = ["40"] if random.random() < 0.8 else []
    while len(contents) < MESSAGES and random.random() < 0.85:
        packet = random.choice(PACKETS)
        match random.randrange(8):
            case 0:
                contents.append(arbitrary_bytes(random))
            case 1:
                contents.append(mutated_bytes(random, packet.encode()))
            case 2:
                contents.append(json.dumps(random.choice(ODD_TEXTS[:70])))
            case 3 | 4:
                contents.append(packet)
            case _:
                contents.append(mutated_text(random, packet, PACKETS))
    if random.random() < 0.05:
        contents *= FLOOD
    target = random.choice(TARGETS)
    return (mutated_text(random, target, TARGETS) if random.random() < 0.05 else target), contents


def send(viewer: Viewer, target: str, contents: list[bytes | str]) -> None:
    """Open a WebSocket and send everything: texts as packets, bytes in one of four ways that their length chooses."""
    with viewer.connect() as connection, contextlib.suppress(OSError, ProtocolError):
        protocol = WSConnection(ConnectionType.CLIENT)
        opening = protocol.send(Request(host=viewer.url.partition("://")[2], target=TARGET))
        connection.sendall(opening.replace(TARGET.encode(), target.encode(errors="surrogatepass"), 1))
        connection.settimeout(0.1)
        _receive(connection, protocol)
        for content in contents:
            connection.sendall(_framed(protocol, content))
        _receive(connection, protocol)
        if len(contents) % 2:
            connection.sendall(protocol.send(CloseConnection(code=1000)))


def _framed(protocol: WSConnection, content: bytes | str) -> bytes:
    if isinstance(content, str):
        return bytes(protocol.send(TextMessage(content.encode(errors="replace").decode())))
    match len(content) % 4:
        case 0:
            return bytes(protocol.send(BytesMessage(content)))
        case 1:
            return bytes(protocol.send(Ping(content[:125])))
        case 2:  # damaged in the middle of its frame
            whole = bytes(protocol.send(TextMessage(content.decode(errors="replace"))))
            return whole[:1] + content[:3] + whole[1:]
        case _:
            return content


def _receive(connection: socket.socket, protocol: WSConnection) -> None:
    """Receive what is there."""
    with contextlib.suppress(TimeoutError):
        protocol.receive_data(connection.recv(65_536) or None)
        for _ in protocol.events():
            pass
