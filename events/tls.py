"""TLS to a server whose address was checked: its certificate must be for the name in the rules, not for the address."""

from __future__ import annotations

import ssl
from typing import Any

from events.addresses import BadReceiver


class _NamedContext(ssl.SSLContext):
    """A context whose connections are all to one host, whatever their socket is connected to."""

    server_name = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Return a TLS socket of this host, with the handshake done, so that it is closed if that fails."""
        ours = {"server_hostname": self.server_name, "do_handshake_on_connect": True}
        return super().wrap_socket(*args, **(kwargs | ours))


def tls_context(host: str, ca_file: str | None) -> ssl.SSLContext:
    """Return a context for connections to a host. ca_file: None for the certificates that the system trusts.

    Raises:
        BadReceiver: the file holds no certificates.
    """
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = host
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError, too
        raise BadReceiver(f"its ca_file {ca_file} holds no certificates that can be read: {error.strerror}") from error
    except ValueError as error:  # of the name
        raise BadReceiver(f"its ca_file cannot be opened: {error}") from error
    return context
