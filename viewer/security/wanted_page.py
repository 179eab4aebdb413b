"""The page that a browser wanted before it had to sign in: its path in, the address of the sign-in form out, and back.

Only pages of our own count, with whatever query, so that no link to the form can lead to another site.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from events.event_types import is_event_id

LOGIN = "/login"
FIRST_PAGE = "/"
PAGES = frozenset({FIRST_PAGE, "/history", "/compliance"})
EVENT_PAGES = "/history/"
QUERY = re.compile(r"\A[\w\-.~%!$&'()*+,;=:@/?]+\Z", re.ASCII)


def is_page(path: str) -> bool:
    """Return whether a path, without the base path, is that of a page, to which a sign-in leads."""
    return path in PAGES or (path.startswith(EVENT_PAGES) and is_event_id(path.removeprefix(EVENT_PAGES)))


def sign_in_address(path: str, query: str = "") -> str:
    """Return where a browser signs in that asked for a page, without the base path."""
    wanted = f"{path}?{query}" if query else path
    return LOGIN if path == FIRST_PAGE else f"{LOGIN}?next={quote(wanted)}"


def wanted_page(address: str) -> str:
    """Return the page to which a sign-in leads. address: the one that the form was told, by whatever link."""
    path, _, query = address.partition("?")
    if not is_page(path):
        return FIRST_PAGE
    return address if query and QUERY.match(query) else path
