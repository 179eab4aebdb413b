"""The pages about what was recorded."""

from __future__ import annotations

from flask import Flask

from events.event_database import EventDatabase
from viewer.pages.compliance import add_compliance
from viewer.pages.event import add_event
from viewer.pages.history import add_history
from viewer.pages.rendering import PageRenderer
from viewer.security.authenticator import Authenticator


def add_record_pages(app: Flask, database: EventDatabase, authenticator: Authenticator) -> None:
    """Add History, the page of an event, and Compliance."""
    pages = PageRenderer(app, authenticator)
    add_history(app, database, pages)
    add_event(app, database, pages)
    add_compliance(app, database, pages)
