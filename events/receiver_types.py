"""The records of receivers in a rules file: webhooks, MQTT brokers, e-mail, and services that Apprise knows.

A secret is written as it is, or as the environment variable or the file that holds it. It is read when the rules are
read, so that what is missing is said at the start, and again whenever it is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from events.addresses import BadReceiver

Name = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,32}\Z", description="a-z 0-9 -, at most 32")]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Host = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_.:-]{1,253}\Z", description="a name or an address, without scheme and port")
]
Address = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](-*[A-Za-z0-9.])*\Z",
        max_length=320,
        description="of e-mail, user@host in ASCII",
    ),
]
TopicPrefix = Annotated[str, Meta(pattern=r"\A[^+#/\s\x00]+(/[^+#/\s\x00]+)*\Z", max_length=200)]
Text = Annotated[str, Meta(min_length=1, max_length=2_000)]
Key = Annotated[str, Meta(min_length=16, max_length=256)]
MIN_KEY = 16  # letters of the key of a signature


class SecretSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret is: in an environment variable, or alone in a file."""

    env: str | None = None
    file: str | None = None


Secret: TypeAlias = Text | SecretSource


class _Receiver(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all receivers have.

    rules: the names of those whose events are sent; empty for all.
    allow_private_address: whether it may be this machine, or be in its own networks.
    """

    name: Name
    rules: list[Name] = []
    allow_private_address: bool = False


class Webhook(_Receiver, frozen=True, kw_only=True):
    """A program that takes POST requests. secret: the key of the signature."""

    url: Annotated[str, Meta(max_length=2_000)]
    secret: Key | SecretSource


class Mqtt(_Receiver, frozen=True, kw_only=True):
    """An MQTT 5 broker.

    port: None for 1883, with TLS 8883. ca_file: of who signs its certificate; None for those that the system trusts.
    prefix: of all topics. discovery_prefix: of messages for Home Assistant; None for no such messages.
    """

    host: Host
    port: Port | None = None
    tls: bool = False
    ca_file: str | None = None
    username: Text | None = None
    password: Secret | None = None
    prefix: TopicPrefix = "maskwatch"
    discovery_prefix: TopicPrefix | None = "homeassistant"


class Email(_Receiver, frozen=True, kw_only=True):
    """People who get e-mail by an SMTP server.

    security: starttls on port 587, tls on 465, or none on 25, unless `port` is another one. ca_file: as of Mqtt.
    """

    host: Host
    port: Port | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: str | None = None
    username: Text | None = None
    password: Secret | None = None
    sender: Address
    to: Annotated[list[Address], Meta(min_length=1, max_length=100)]


class AppriseService(_Receiver, frozen=True, kw_only=True):
    """A service of those that Apprise knows. url: as Apprise writes it; most hold a token."""

    url: Secret


ReceiverSettings: TypeAlias = Webhook | Mqtt | Email | AppriseService


def read_secret(secret: str | SecretSource, what: str, min_length: int = 1) -> str:
    """Return a secret.

    Args:
        what: its name in the rules file, for errors.
        min_length: in letters.

    Raises:
        BadReceiver: its variable is not set, its file cannot be read, or it is too short; does not show it.
    """
    if isinstance(secret, str):
        return secret
    if (secret.env is None) == (secret.file is None):
        raise BadReceiver(
            f'its {what} is neither in a variable nor in a file; write {{env = "NAME"}} or {{file = "..."}}'
        )
    where = f"the variable {secret.env}" if secret.env is not None else f"the file {secret.file}"
    value = os.environ.get(secret.env, "") if secret.env is not None else _content(str(secret.file), what)
    if len(value) < min_length:
        raise BadReceiver(f"its {what} in {where} has {len(value)} letters; it must have {min_length} or more")
    return value


def _content(file: str, what: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that cannot be
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadReceiver(f"its {what} cannot be read from the file {file}: {reason}") from error
