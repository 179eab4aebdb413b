"""Events reach services that Apprise knows; none of their URLs is shown, and their hosts are checked."""

from __future__ import annotations

import json

import msgspec
import pytest
import sqlalchemy as sa
from deliveries import Clock, deliverer, engine, fates, written
from test_deliveries import Receiver, receiver
from test_event_store import closed, opened

from events.addresses import BadReceiver
from events.apprise_services import AppriseReceiver, check_service
from events.receiver_types import AppriseService
from events.receivers import NotAccepted
from events.wording import Wording

__all__ = ["engine", "receiver"]

TOKEN = "QXX7-secret"  # noqa: S105 -- of the receiver in this file


def settings(url: str, **values: object) -> AppriseService:
    return msgspec.convert({"name": "phone", "url": url, "allow_private_address": True} | values, AppriseService)


def test_a_service_gets_events_in_words_and_again_after_a_failure(engine: sa.Engine, receiver: Receiver) -> None:
    phone, clock = settings(f"json://127.0.0.1:{receiver.port}/{TOKEN}"), Clock()
    receiver.statuses += [500, 200, 200]
    written(engine, phone, clock, opened(), closed())
    due = deliverer(engine, phone, clock)

    due.deliver_due(phone)
    failed = fates(engine)[0]
    for _ in range(2):
        clock.at += 1
        due.deliver_due(phone)

    assert failed.error == "JSON did not accept it, or did not answer in time"
    titles = [json.loads(body)["title"] for _, body in receiver.got]
    assert titles == ["door: somebody without a mask"] * 2 + ["door: somebody without a mask (over after 9 s)"]
    assert "Began: 2023-11-14 22:13:21 UTC" in json.loads(receiver.got[0][1])["message"]
    assert {one.state for one in fates(engine)} == {"delivered"}


@pytest.mark.parametrize("query", ["", "?redirect=yes"])
def test_a_redirect_is_not_followed(query: str, engine: sa.Engine, receiver: Receiver) -> None:
    phone = settings(f"json://127.0.0.1:{receiver.port}/{query}")
    written(engine, phone, Clock(), opened())
    receiver.statuses += [307]  # with which a POST stays one

    with pytest.raises(NotAccepted, match="did not accept it"):
        AppriseReceiver(phone, Wording()).send(fates(engine)[0])

    assert len(receiver.got) == 1


def test_a_service_in_the_own_network_must_be_allowed(engine: sa.Engine, receiver: Receiver) -> None:
    phone = settings(f"json://localhost.:{receiver.port}/{TOKEN}", allow_private_address=False)
    written(engine, phone, Clock(), opened())

    with pytest.raises(NotAccepted, match="set allow_private_address = true if it may be") as raised:
        AppriseReceiver(phone, Wording()).send(fates(engine)[0])

    assert TOKEN not in str(raised.value)
    assert receiver.got == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"nonsense://{TOKEN}", "its url is none of a service that Apprise knows"),
        (f"tgram://{TOKEN}", "its url is none of a service that Apprise knows"),
        (f"json://localhost/{TOKEN}", "its url leads to localhost"),
        (f"ntfy://10.0.0.1/{TOKEN}", "10.0.0.1 has the address"),
        (f"json://[::1]/{TOKEN}", "::1 has the address"),
        (f"mailtos://user:{TOKEN}@example.com?smtp=127.0.0.1", "127.0.0.1 has the address"),
    ],
)
def test_what_cannot_be_is_refused_without_its_url(url: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadReceiver, match=says) as raised:
        check_service(settings(url, allow_private_address=False))

    assert TOKEN not in str(raised.value) + caplog.text


@pytest.mark.parametrize("url", [f"tgram://123456789:abcdefg_hijklmnop/{12315544}", "ntfy://topic", "pover://u@t"])
def test_a_service_of_which_apprise_knows_where_it_is_is_taken(url: str) -> None:
    assert check_service(settings(url.replace("u@t", "u" * 30 + "@" + "t" * 30), allow_private_address=False))
