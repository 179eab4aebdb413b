"""The pages about records, as a browser asks for them: an address in, the page out, without Redis and a network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random

from flask import Flask
from flask.testing import FlaskClient

from bench.event_history import BEGIN, CAMERAS, DAYS
from events.event_database import EventDatabase
from pipeline.runtime.settings import Settings
from viewer.pages.routes import add_record_pages
from viewer.security.authenticator import Authenticator

Address = Callable[[Random], str]

FIRST_DAY = datetime.fromtimestamp(BEGIN, UTC).date() + timedelta(days=1)  # the first one that is whole


def page_client(url: str) -> FlaskClient:
    """Return a client of the pages of a database, which asks in UTC. url: of the database."""
    app = Flask("viewer")
    app.add_url_rule("/", "page")  # the pages lead to it
    add_record_pages(app, EventDatabase(url), Authenticator(Settings()))
    client = app.test_client()
    client.set_cookie("maskwatch-time-zone", "UTC")
    return client


def open_page(client: FlaskClient, address: str) -> bytes:
    """Return a page.

    Raises:
        RuntimeError: the answer is an error.
    """
    answer = client.get(address)
    if answer.status_code != 200:
        raise RuntimeError(f"{address} is answered with {answer.status}: {_problem(answer.text)}")
    return bytes(answer.data)


def history_of_a_day(random: Random) -> str:
    """Return the address of a drawn day's events."""
    first, last = _days(random, 1)
    return f"/history?from={first}&to={last + timedelta(days=1)}"


def history_of_a_camera(random: Random) -> str:
    """Return the address of the events of a drawn camera that a rare filter matches."""
    return f"/history?camera={random.choice(CAMERAS)}&kind=no_mask&zone=till"


def compliance(days: int, by: str, *, one_camera: bool = False) -> Address:
    """Return what draws the address of a period of so many days, of all cameras or of one that is drawn."""

    def address(random: Random) -> str:
        first, last = _days(random, days)
        camera = f"&camera={random.choice(CAMERAS)}" if one_camera else ""
        return f"/compliance?from={first}&to={last}&by={by}{camera}"

    return address


def _problem(page: str) -> str:
    """Return the line with which a page says what is wrong."""
    return page.partition('role="alert">')[2].partition("<")[0]


def _days(random: Random, number: int) -> tuple[date, date]:
    """Return the first and the last day of a drawn period."""
    first = FIRST_DAY + timedelta(days=random.randrange(DAYS - 1 - number + 1))
    return first, first + timedelta(days=number - 1)
