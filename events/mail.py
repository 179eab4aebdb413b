"""Send deliveries as e-mail by an SMTP server: over TLS unless told otherwise, to an address that was checked.

A server may take a message for some people and not for others. Those that it has refused for now are tried again alone;
those that it has refused for good are named in the log, so that one wrong address does not hold back the others.
"""

from __future__ import annotations

import contextlib
import logging
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

import msgspec

from events.addresses import BadReceiver, resolve
from events.outbox import Delivery, Message
from events.receiver_types import Email, read_secret
from events.receivers import NotAccepted
from events.tls import tls_context
from events.wording import Wording

log = logging.getLogger(__name__)

PORTS = {"starttls": 587, "tls": 465, "none": 25}
TIMEOUT_S = 10.0  # to connect, and for each answer
PERMANENT = 500  # statuses from here on are refusals for good
MAX_REMEMBERED = 1_000  # deliveries that some people have, and others wait for


class MailReceiver:
    """People who get e-mail."""

    def __init__(self, settings: Email, wording: Wording, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._wording = wording
        self._timeout_s = timeout_s
        self._waiting: dict[str, list[str]] = {}  # who has not got a delivery yet, of those that some have

    def send(self, delivery: Delivery) -> None:
        """Send a delivery to all who have not got it yet; see Receiver."""
        to = self._waiting.get(delivery.key, self._settings.to)
        try:
            with contextlib.closing(self._connection()) as server:
                refused = server.send_message(self._mail(delivery), self._settings.sender, to)
                with contextlib.suppress(OSError):  # it has the message, whatever it answers to a farewell
                    server.quit()
        except smtplib.SMTPRecipientsRefused as error:
            raise NotAccepted(_refusals(error.recipients)) from error
        except smtplib.SMTPResponseException as error:
            raise NotAccepted(f"answered with status {error.smtp_code}: {_line(error.smtp_error)}") from error
        except smtplib.SMTPNotSupportedError as error:
            raise NotAccepted(f"the server lacks what is needed: {error}") from error
        except (OSError, BadReceiver, ValueError) as error:  # smtplib's errors are OSErrors
            raise NotAccepted(f"cannot be reached: {error or type(error).__name__}") from error
        self._settle(delivery, refused)

    def _settle(self, delivery: Delivery, refused: dict[str, tuple[int, bytes]]) -> None:
        """Remember who waits for a delivery that others have got."""
        self._waiting.pop(delivery.key, None)
        for_good = {name: why for name, why in refused.items() if why[0] >= PERMANENT}
        if for_good:
            log.error("delivery %d to %s: %s", delivery.id, self._settings.name, _refusals(for_good))
        waiting = [name for name in refused if name not in for_good]
        if waiting:
            while len(self._waiting) >= MAX_REMEMBERED:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[delivery.key] = waiting
            raise NotAccepted(_refusals({name: refused[name] for name in waiting}))

    def _mail(self, delivery: Delivery) -> EmailMessage:
        message = msgspec.json.decode(delivery.body, type=Message)
        domain = self._settings.sender.rpartition("@")[2]
        mail = EmailMessage()
        mail["From"] = self._settings.sender
        mail["To"] = ", ".join(self._settings.to)
        mail["Subject"] = f"maskwatch: {self._wording.title(message)}"
        mail["Date"] = format_datetime(datetime.fromtimestamp(delivery.created_at, UTC))
        mail["Message-ID"] = f"<{delivery.key}@{domain}>"
        if delivery.phase == "closed":
            mail["In-Reply-To"] = f"<{delivery.event_id}-opened@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(self._wording.text(message))
        return mail

    def _connection(self) -> smtplib.SMTP:
        """Return a connection that is encrypted and logged in, as the settings say."""
        settings = self._settings
        port = settings.port or PORTS[settings.security]
        address = resolve(settings.host, port, allow_private=settings.allow_private_address)
        if settings.security == "tls":
            context = tls_context(settings.host, settings.ca_file)
            server: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(timeout=self._timeout_s)
        try:
            _checked(server.connect(address, port))
            if settings.security == "starttls":
                _checked(server.starttls(context=tls_context(settings.host, settings.ca_file)))
            if settings.username is not None and settings.password is not None:
                server.login(settings.username, read_secret(settings.password, "password"))
        except BaseException:
            server.close()
            raise
        return server


def _checked(answer: tuple[int, bytes]) -> None:
    """Raise an answer that is no consent."""
    if answer[0] != 220:
        raise smtplib.SMTPResponseException(*answer)


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "refused for " + "; ".join(f"{name}: {code} {_line(why)}" for name, (code, why) in refused.items())


def _line(text: bytes | str) -> str:
    """Return the answer of a server in one line."""
    return " ".join((text.decode(errors="replace") if isinstance(text, bytes) else text).split())
