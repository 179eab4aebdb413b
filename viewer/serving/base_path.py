"""WSGI middleware for a viewer with a path of its own behind a reverse proxy, such as https://host.example/maskwatch/.

In: a request, with the base path in front if the proxy passes it on, or without it if the proxy strips it. Out: the
same for the application, the base path in SCRIPT_NAME: what the application links to begins with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.runtime.settings import BadSettings, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The first parts of the viewer's own paths. With one of them as base path, a path without it could not be told from one
# with it.
OWN_PATHS = frozenset(
    {
        *("login", "logout", "static", "api", "cameras", "socket.io", "healthz", "metrics"),
        *("history", "compliance", "compliance.csv", "compliance.json"),
    }
)


def base_path_of(settings: Settings) -> str:
    """Return the base path in the settings, without a slash at its end; empty for none.

    Raises:
        BadSettings: it begins as a path of the viewer does.
    """
    base_path = (settings.base_path or "").rstrip("/")
    if OWN_PATHS & set(base_path.split("/")[1:2]):
        raise BadSettings(f"--base-path {base_path}: the viewer has a page there; choose another, such as /maskwatch")
    return base_path


class BasePathMiddleware:
    """WSGI middleware. base_path: without a slash at its end; empty for none."""

    def __init__(self, app: WSGIApplication, base_path: str) -> None:
        self._app = app
        self._base_path = base_path

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        base, path = self._base_path, environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = base
        if base and (path == base or path.startswith(f"{base}/")):
            environ["PATH_INFO"] = path.removeprefix(base) or "/"
        return self._app(environ, start_response)
