"""Ask an ONVIF camera for its streams: the URL of its service, a user and a password in, RTSP addresses out.

Three questions over SOAP: where its media service is, which profiles it has, and the address of each. The password is
never sent: it goes into a digest (WS-Security), with the camera's own time, since many cameras' clocks are wrong.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import secrets
import ssl
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.error import HTTPError
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

TIMEOUT_S = 5.0
SIDES = ("Width", "Height")
DATE_PARTS = ("Year", "Month", "Day", "Hour", "Minute", "Second")
MAX_ANSWER_BYTES = 1_000_000
_DEVICE, _MEDIA = "http://www.onvif.org/ver10/device/wsdl", "http://www.onvif.org/ver10/media/wsdl"
_SCHEMA = "{http://www.onvif.org/ver10/schema}"
_SECURITY = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    'xmlns:t="http://www.onvif.org/ver10/schema"><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>'
)
_LOGIN = (
    f'<w:Security xmlns:w="{_SECURITY}wssecurity-secext-1.0.xsd" xmlns:u="{_SECURITY}wssecurity-utility-1.0.xsd">'
    "<w:UsernameToken><w:Username>{user}</w:Username>"
    f'<w:Password Type="{_SECURITY}username-token-profile-1.0#PasswordDigest">{{digest}}</w:Password>'
    "<w:Nonce>{nonce}</w:Nonce><u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
)
_STREAM_URI = (
    f'<m:GetStreamUri xmlns:m="{_MEDIA}"><m:StreamSetup><t:Stream>RTP-Unicast</t:Stream><t:Transport>'
    "<t:Protocol>RTSP</t:Protocol></t:Transport></m:StreamSetup><m:ProfileToken>{token}</m:ProfileToken>"
    "</m:GetStreamUri>"
)


class OnvifFailed(Exception):
    """A camera does not say what its streams are; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream that a camera offers. encoding, size: for people; empty when the camera does not say."""

    url: str
    encoding: str
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnvifCamera:
    """A camera that answers ONVIF. service: the URL of its device service. user: empty for none."""

    service: str
    user: str = ""
    password: str = field(default="", repr=False)

    def streams(self) -> list[Stream]:
        """Return the streams, in the camera's order.

        Raises:
            OnvifFailed: it does not answer, rejects the password, or answers with nonsense.
        """
        question = f'<d:GetCapabilities xmlns:d="{_DEVICE}"><d:Category>Media</d:Category></d:GetCapabilities>'
        media = self._ask(self.service, question).findtext(f".//{_SCHEMA}Media/{_SCHEMA}XAddr") or self.service
        profiles = self._ask(media, f'<m:GetProfiles xmlns:m="{_MEDIA}"/>').iter(f"{{{_MEDIA}}}Profiles")
        streams, failures = [], []
        for profile in profiles:
            try:
                streams.append(self._stream(media, profile))
            except OnvifFailed as error:  # of a profile that has no stream
                failures.append(error)
        if failures and not streams:
            raise failures[0]
        return streams

    def _stream(self, media: str, profile: ElementTree.Element) -> Stream:
        answer = self._ask(media, _STREAM_URI.format(token=escape(profile.get("token", ""))))
        encoder = profile.find(f"{_SCHEMA}VideoEncoderConfiguration")
        resolution = None if encoder is None else encoder.find(f"{_SCHEMA}Resolution")
        sides = () if resolution is None else (resolution.findtext(f"{_SCHEMA}{side}", "") for side in SIDES)
        return Stream(
            url=(answer.findtext(f".//{_SCHEMA}Uri") or "").strip(),
            encoding="" if encoder is None else encoder.findtext(f"{_SCHEMA}Encoding", ""),
            size="x".join(sides),
        )

    def _ask(self, url: str, question: str) -> ElementTree.Element:
        header = self._login(self._time()) if self.user else ""
        return _post(url, _ENVELOPE.format(header=header, body=question))

    def _login(self, now: datetime) -> str:
        nonce, created = secrets.token_bytes(16), now.strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha1(nonce + created.encode() + self.password.encode()).digest()  # noqa: S324 -- as the standard says
        encoded = {"digest": base64.b64encode(digest).decode(), "nonce": base64.b64encode(nonce).decode()}
        return _LOGIN.format(user=escape(self.user), created=created, **encoded)

    def _time(self) -> datetime:
        """Return the camera's time, which it tells without a password; this machine's if it does not."""
        question = f'<d:GetSystemDateAndTime xmlns:d="{_DEVICE}"/>'
        try:
            now = _post(self.service, _ENVELOPE.format(header="", body=question)).find(f".//{_SCHEMA}UTCDateTime")
            parts = {} if now is None else {part.tag.removeprefix(_SCHEMA): part.text or "" for part in now.iter()}
            year, month, day, hour, minute, second = (int(parts[name]) for name in DATE_PARTS)
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except (OnvifFailed, KeyError, ValueError):
            return datetime.now(UTC)


def _post(url: str, envelope: str) -> ElementTree.Element:
    """Return the answer to a SOAP request."""
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise OnvifFailed(f"its service {url} is no web address")
    request = urllib.request.Request(url, envelope.encode(), {"Content-Type": "application/soap+xml; charset=utf-8"})  # noqa: S310 -- checked above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=_certificates_of_cameras()) as response:  # noqa: S310
            return ElementTree.fromstring(response.read(MAX_ANSWER_BYTES))  # noqa: S314 -- expat 2.4 bounds entities
    except HTTPError as error:
        raise OnvifFailed(_refusal(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise OnvifFailed(f"it does not answer: {getattr(error, 'reason', None) or error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise OnvifFailed("it answers with something that is no ONVIF") from error


def _refusal(error: HTTPError) -> str:
    """Return what a status other than success means; cameras answer 400, 401 or 500 to a wrong password."""
    with error:
        text = error.read(MAX_ANSWER_BYTES).decode(errors="replace")
    if error.code in (401, 403) or "NotAuthorized" in text or "FailedAuthentication" in text:
        return (
            "it needs a user of its ONVIF settings, or rejects the password; give --user and MASKWATCH_CAMERA_PASSWORD"
        )
    return f"it answers with status {error.code}"


def _certificates_of_cameras() -> ssl.SSLContext:
    """Return what accepts any certificate: cameras sign their own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
