"""Events reach people by e-mail: in words, over TLS, though the server refuses, hangs, or takes it for some only."""

from __future__ import annotations

import email
import email.policy
import logging
import socket
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from deliveries import Clock, deliverer, engine, fates, written
from test_event_store import closed, opened
from test_mqtt import certificate_for_this_machine

from events.mail import MailReceiver
from events.open_receivers import Surroundings
from events.receiver_types import Email
from events.receivers import NotAccepted
from events.wording import Wording

__all__ = ["engine"]

BERLIN = Wording(timezone="Europe/Berlin", public_url="https://masks.example.com/")


class Inbox:
    """What a server has accepted. answers: to recipients, by address; data_answers: to messages, the next first."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.answers: dict[str, str] = {}
        self.data_answers: list[str] = []
        self.farewell = "221 bye"

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd calls it by this name
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        answer = self.answers.get(address, "250 fine")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 -- as above
        answer = self.data_answers.pop(0) if self.data_answers else "250 fine"
        if answer.startswith("250"):
            mail = email.message_from_bytes(bytes(envelope.content or b""), policy=email.policy.default)
            self.mails.append((envelope.rcpt_tos, mail))
        return answer

    async def handle_QUIT(self, _server: Any, _session: Any, _envelope: Envelope) -> str:  # noqa: N802 -- as above
        return self.farewell


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate_for_this_machine(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def server(inbox: Inbox) -> Iterator[Controller]:
    """A plain server, as in many own networks."""
    found = Controller(inbox, hostname="127.0.0.1", port=free_port())
    found.start()
    yield found
    found.stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def settings(port: int, **values: object) -> Email:
    fields = {
        "name": "staff",
        "host": "localhost",
        "port": port,
        "security": "none",
        "sender": "masks@example.com",
        "to": ["ann@example.com", "bob@example.com"],
        "allow_private_address": True,
    }
    return msgspec.convert(fields | values, Email)


def test_a_message_says_what_happened_where_when_and_for_how_long(
    engine: sa.Engine, server: Controller, inbox: Inbox
) -> None:
    staff, clock = settings(server.port), Clock()
    values = {"zone": "entrance", "people": 1, "confidence": 0.93}
    written(engine, staff, clock, opened(**values), closed(**values))
    due = deliverer(engine, staff, clock, Surroundings(wording=BERLIN))

    due.deliver_due(staff)
    due.deliver_due(staff)

    (to, first), (_, second) = inbox.mails
    assert to == ["ann@example.com", "bob@example.com"]
    assert first["Subject"] == "maskwatch: door: somebody without a mask"
    assert second["Subject"] == "maskwatch: door: somebody without a mask (over after 9 s)"
    assert (first["From"], first["To"]) == ("masks@example.com", "ann@example.com, bob@example.com")
    assert first["Message-ID"] == f"<{opened().event.id}-opened@example.com>" == second["In-Reply-To"]
    assert first.get_content().splitlines() == [
        *("door: somebody without a mask", "", "Camera: door", "Zone: entrance", "Began: 2023-11-14 23:13:21 CET"),
        *("People: 1", "Confidence: 93%", "Rule: bare", ""),
        f"https://masks.example.com/history/{opened().event.id}",
    ]
    assert "Ended: 2023-11-14 23:13:30 CET, after 9 s" in second.get_content()
    assert {one.state for one in fates(engine)} == {"delivered"}


@pytest.mark.parametrize("answer", ["451 try later", "550 no spam here"])
def test_a_message_that_is_refused_is_sent_again(
    answer: str, engine: sa.Engine, server: Controller, inbox: Inbox
) -> None:
    staff, clock = settings(server.port), Clock()
    written(engine, staff, clock, opened(1), opened(2))
    due = deliverer(engine, staff, clock)
    inbox.data_answers += [answer, answer]

    errors = []
    while any(one.state == "pending" for one in fates(engine)):
        due.deliver_due(staff)
        errors += [one.error for one in fates(engine) if one.error]
        clock.at += 10

    assert errors == [f"answered with status {answer[:3]}: {answer[4:]}"] * 2
    assert [mail["Message-ID"][:33] for _, mail in inbox.mails] == [f"<{one.event_id}" for one in fates(engine)]


def test_who_is_refused_for_now_is_tried_again_alone_and_who_is_unknown_is_named(
    engine: sa.Engine, server: Controller, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    staff, clock = settings(server.port, to=["ann@example.com", "bob@example.com", "eve@example.com"]), Clock()
    written(engine, staff, clock, opened())
    due = deliverer(engine, staff, clock)
    inbox.answers |= {"bob@example.com": "450 greylisted", "eve@example.com": "550 unknown"}

    with caplog.at_level(logging.ERROR):
        due.deliver_due(staff)
    (pending,) = fates(engine)
    inbox.answers.pop("bob@example.com")
    clock.at += 1
    due.deliver_due(staff)

    assert (pending.state, pending.error) == ("pending", "refused for bob@example.com: 450 greylisted")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "delivery 1 to staff: refused for eve@example.com: 550 unknown"
    ]
    assert [to for to, _ in inbox.mails] == [["ann@example.com"], ["bob@example.com"]]
    assert [one.state for one in fates(engine)] == ["delivered"]


def test_a_message_that_the_server_has_taken_is_not_sent_again_whatever_it_says_then(
    engine: sa.Engine, server: Controller, inbox: Inbox
) -> None:
    staff = settings(server.port)
    inbox.farewell = "421 too busy for farewells"
    written(engine, staff, Clock(), opened())

    deliverer(engine, staff, Clock()).deliver_due(staff)

    assert len(inbox.mails) == 1
    assert [one.state for one in fates(engine)] == ["delivered"]


def test_when_everybody_is_refused_it_is_not_delivered(engine: sa.Engine, server: Controller, inbox: Inbox) -> None:
    staff = settings(server.port, to=["eve@example.com"])
    written(engine, staff, Clock(), opened())
    inbox.answers["eve@example.com"] = "550 unknown"

    with pytest.raises(NotAccepted, match=r"refused for eve@example\.com: 550 unknown"):
        MailReceiver(staff, BERLIN).send(fates(engine)[0])


def test_a_server_that_hangs_is_given_up_in_time(engine: sa.Engine) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        staff = settings(silent.getsockname()[1])
        written(engine, staff, Clock(), opened())

        with pytest.raises(NotAccepted, match=r"cannot be reached: .*timed out"):
            MailReceiver(staff, BERLIN, timeout_s=0.2).send(fates(engine)[0])


def test_a_server_of_the_own_network_must_be_allowed(engine: sa.Engine) -> None:
    staff = settings(25, allow_private_address=False)
    written(engine, staff, Clock(), opened())

    with pytest.raises(NotAccepted, match="set allow_private_address = true if it may be"):
        MailReceiver(staff, BERLIN).send(fates(engine)[0])


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_login_goes_over_tls_to_the_server_that_the_certificate_names(
    security: str, engine: sa.Engine, inbox: Inbox, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    port = free_port()
    words: dict[str, Any] = {"hostname": "127.0.0.1", "port": port, "authenticator": login}
    if security == "tls":
        secure = Controller(inbox, ssl_context=context, auth_require_tls=False, **words)
    else:
        secure = Controller(inbox, tls_context=context, require_starttls=True, **words)
    secure.start()
    safe = {"security": security, "ca_file": str(certificate[0]), "username": "me"}
    staff = settings(port, **safe, password="right")
    written(engine, staff, Clock(), opened())
    (delivery,) = fates(engine)

    MailReceiver(staff, BERLIN).send(delivery)
    with pytest.raises(NotAccepted, match="status 535"):
        MailReceiver(settings(port, **safe, password="wrong"), BERLIN).send(delivery)
    with pytest.raises(NotAccepted, match="certificate verify failed"):
        MailReceiver(settings(port, **safe | {"ca_file": None}, password="right"), BERLIN).send(delivery)
    with pytest.raises(NotAccepted, match="certificate verify failed"):
        MailReceiver(settings(port, **safe, host="127.0.0.1", password="right"), BERLIN).send(delivery)

    secure.stop()
    assert len(inbox.mails) == 1


def login(_server: SMTP, _session: Any, _envelope: Any, _how: str, words: LoginPassword) -> AuthResult:
    return AuthResult(success=(words.login, words.password) == (b"me", b"right"), handled=False)
