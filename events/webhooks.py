"""Send one delivery to a webhook: signed, to an address that was checked, without following redirects.

The signature is HMAC-SHA256 over the time and the body, so that a receiver can refuse messages that are forged or old.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult

from events.addresses import BadReceiver, check_url, resolve
from events.deadline import ends_within
from events.outbox import Delivery
from events.receiver_types import MIN_KEY, Webhook, read_secret
from events.receivers import NotAccepted

TIMEOUT_S = 10.0  # to connect, and for an answer


class WebhookReceiver:
    """A webhook. now: Unix seconds, which are signed."""

    def __init__(self, webhook: Webhook, now: Callable[[], float]) -> None:
        self._webhook = webhook
        self._now = now

    def send(self, delivery: Delivery) -> None:
        """Send a delivery; see Receiver."""
        send(self._webhook, delivery, self._now())


def send(webhook: Webhook, delivery: Delivery, at: float, timeout_s: float = TIMEOUT_S) -> None:
    """Send a delivery. at: the present time, Unix seconds, which is signed.

    Raises:
        NotAccepted: the receiver is away, its address is refused, or it answered with another status than 2xx.
    """
    body = delivery.body.encode()
    try:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "maskwatch",
            "Maskwatch-Delivery": delivery.key,
            "Maskwatch-Signature": signature(read_secret(webhook.secret, "secret", MIN_KEY), int(at), body),
        }
        status = _post(webhook, body, headers, timeout_s)
    except BadReceiver as error:
        raise NotAccepted(str(error)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAccepted(f"cannot be reached: {error or type(error).__name__}") from error
    if not 200 <= status < 300:
        raise NotAccepted(f"answered with status {status}")


def signature(secret: str, at: int, body: bytes) -> str:
    """Return the signature of a message: t=TIME,v1=HEX; HEX is HMAC-SHA256 over TIME, a full stop and the body."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def _post(webhook: Webhook, body: bytes, headers: dict[str, str], timeout_s: float) -> int:
    """Return the status of the answer. timeout_s: for it."""
    url = check_url(webhook.url, allow_private=webhook.allow_private_address)
    connection = _connection(url, allow_private=webhook.allow_private_address)
    try:
        with ends_within(timeout_s, connection.sock):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
            return connection.getresponse().status
    finally:
        connection.close()


def _connection(url: SplitResult, *, allow_private: bool) -> http.client.HTTPConnection:
    """Return a connection to the address that was checked; TLS and the header Host use the name."""
    host, secure = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if secure else 80)
    address = resolve(host, port, allow_private=allow_private)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    connection.sock = socket.create_connection((address, port), TIMEOUT_S)
    if secure:
        try:
            connection.sock = ssl.create_default_context().wrap_socket(
                connection.sock, server_hostname=host, do_handshake_on_connect=False
            )
        except OSError:
            connection.close()
            raise
        connection.default_port = 443  # so that the header Host has no port
    return connection
