"""Send deliveries to one of the services that Apprise knows: Telegram, ntfy, Pushover, Matrix and many others.

A service's URL holds its secrets, so no message shows it, and Apprise's own log, which does, is off. Hosts in it are
checked as that of a webhook; most services have none, because Apprise knows where they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

import msgspec
from apprise import Apprise, AppriseAsset, NotifyBase, PersistentStoreMode

from events.addresses import BadReceiver, check_host, resolve
from events.outbox import Delivery, Message
from events.receiver_types import AppriseService, read_secret
from events.receivers import NotAccepted
from events.wording import Wording

TIMEOUT_S = 30.0  # of one message

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


class AppriseReceiver:
    """A service that Apprise knows."""

    def __init__(self, settings: AppriseService, wording: Wording, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._wording = wording
        self._timeout_s = timeout_s

    def send(self, delivery: Delivery) -> None:
        """Send a delivery; see Receiver."""
        message = msgspec.json.decode(delivery.body, type=Message)
        try:
            service = check_service(self._settings)
            _check_address(service, allow_private=self._settings.allow_private_address)
        except BadReceiver as error:
            raise NotAccepted(f"cannot be reached: {error}") from error
        found = Apprise(asset=_asset())
        found.add(service)
        if not found.notify(self._wording.text(message), self._wording.title(message), timeout=self._timeout_s):
            raise NotAccepted(f"{service.service_name} did not accept it, or did not answer in time")


def check_service(settings: AppriseService) -> NotifyBase:
    """Return the service of a URL.

    Raises:
        BadReceiver: Apprise knows none for it, or its host is refused; does not show the URL.
    """
    service = Apprise.instantiate(read_secret(settings.url, "url"), asset=_asset(), suppress_exceptions=True)
    if not isinstance(service, NotifyBase):
        raise BadReceiver(
            "its url is none of a service that Apprise knows, or lacks a part; see appriseit.com/services"
        )
    service.redirects = False  # whatever the URL says
    for host in _hosts(service):
        check_host(host, "url", allow_private=settings.allow_private_address)
    return service


def _check_address(service: NotifyBase, *, allow_private: bool) -> None:
    """Check what the hosts in a service's URL resolve to; a name that does not resolve is left to the service."""
    for host in _hosts(service):
        with contextlib.suppress(OSError, UnicodeError):  # UnicodeError: it cannot be a name
            resolve(host, 0, allow_private=allow_private)


def _hosts(service: NotifyBase) -> list[str]:
    """Return the hosts that a service's URL names: in the place of the host, unless a token is there, and elsewhere."""
    templates: Iterable[str] = service.templates
    names = ["host"] if any("{host}" in template for template in templates) else []
    names += [name for name in vars(service) if name.endswith("_host")]
    found = [getattr(service, name, None) for name in names]
    return [host.strip("[]") for host in found if isinstance(host, str) and host]


def _asset() -> AppriseAsset:
    """Return how Apprise works here: without files of its own, without redirects, one service at a time."""
    return AppriseAsset(
        app_id="maskwatch",
        app_desc="maskwatch",
        async_mode=False,
        http_redirects=False,
        storage_mode=PersistentStoreMode.MEMORY,
    )
