"""What the pages about records share: their layout, their words in templates, and what a failure shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, make_response, render_template, request

from events.database import DatabaseAway
from events.reading import BadCursor
from viewer.pages.event_texts import kind_text, people_time_text, percent_text
from viewer.pages.history_query import BadQuestion
from viewer.pages.time_zones import zone_name
from viewer.security.authenticator import Authenticator, session_of
from viewer.security.login import sign_out_token


class NoSuchEvent(LookupError):
    """There is no event with this ID."""


# What a page says in a line: a wrong address, or a database that cannot be used.
FAILURES = (BadQuestion, BadCursor, NoSuchEvent, DatabaseAway)
NAVIGATION = {"history.html": "history", "event.html": "history", "compliance.html": "compliance"}


class PageRenderer:
    """Renders templates with the navigation and the sign-out form."""

    def __init__(self, app: Flask, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        app.jinja_env.filters.update(
            kind_text=kind_text, percent=percent_text, people_time=people_time_text, with_chosen=with_chosen
        )

    def render(self, template: str, zone: tzinfo, **shown: Any) -> Response:
        """Return a page. zone: of its times. shown: what the template shows."""
        token = sign_out_token(self._authenticator, session_of(request.environ))
        here = NAVIGATION[template]
        return make_response(render_template(template, token=token, here=here, zone=zone_name(zone), **shown))

    def failure(self, template: str, zone: tzinfo, error: Exception) -> Response:
        """Return a page that says what is wrong, and shows nothing else."""
        text = str(error)
        page = self.render(template, zone, problem=text[:1].upper() + text[1:])
        page.status_code = failure_status(error)
        return page


def with_chosen(choices: Sequence[str], chosen: str | None) -> list[str]:
    """Return the choices of a filter with the one that a reader has chosen, also if nothing is about it any more."""
    return sorted({*choices, chosen}) if chosen else list(choices)


def failure_status(error: Exception) -> HTTPStatus:
    """Return the status of an answer to a request that has failed."""
    if isinstance(error, DatabaseAway):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.NOT_FOUND if isinstance(error, NoSuchEvent) else HTTPStatus.BAD_REQUEST
