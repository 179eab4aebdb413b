"""Check what no type says of a receiver, when rules are read: where it is, its secrets, its certificates."""

from __future__ import annotations

from events.addresses import BadReceiver, check_host, check_url
from events.receiver_types import MIN_KEY, AppriseService, Email, Mqtt, ReceiverSettings, Webhook, read_secret
from events.tls import tls_context


def check_receiver(settings: ReceiverSettings) -> None:
    """Check a receiver; does not connect to it.

    Raises:
        BadReceiver: it cannot be.
    """
    if isinstance(settings, Webhook):
        check_url(settings.url, allow_private=settings.allow_private_address)
        read_secret(settings.secret, "secret", MIN_KEY)
    elif isinstance(settings, AppriseService):
        from events.apprise_services import check_service  # its package is loaded only when it is used

        check_service(settings)
    else:
        _check_server(settings)


def _check_server(settings: Mqtt | Email) -> None:
    """Check a broker, or a server of e-mail."""
    check_host(settings.host, "host", allow_private=settings.allow_private_address)
    if settings.password is not None and settings.username is None:
        raise BadReceiver("it has a password, but no username")
    if settings.password is not None:
        read_secret(settings.password, "password")
    is_secure = settings.tls if isinstance(settings, Mqtt) else settings.security != "none"
    if settings.ca_file is not None and not is_secure:
        raise BadReceiver('it has a ca_file, but no TLS; write tls = true, or security = "tls"')
    if is_secure:
        tls_context(settings.host, settings.ca_file)
    if isinstance(settings, Email) and settings.password is not None and not is_secure:
        raise BadReceiver('its password would be sent readable; write security = "starttls" or "tls"')
