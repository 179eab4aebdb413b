"""The records of a rules file: rules and zones, with the receivers. The JSON schema is generated from them.

Durations are in seconds unless a name says otherwise; points of polygons are shares of the picture's width and height.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from events.receiver_types import AppriseService, Email, Mqtt, Name, ReceiverSettings, Webhook
from pipeline.bus.messages import CameraName
from pipeline.vision.faces import Share

DAY_S = 86_400

Seconds = Annotated[float, Meta(ge=0, le=DAY_S)]
Hours = Annotated[
    str,
    Meta(
        pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z",
        description="a part of the day, for example 08:00-18:00 or 22:00-06:00",
    ),
]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as datetime.weekday() counts
Point = tuple[Share, Share]


class Zone(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of one camera's picture. A face is in it if the middle of its box is."""

    name: Name
    camera: CameraName
    polygon: Annotated[list[Point], Meta(min_length=3, max_length=64)]


class _Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all rules have.

    cameras: empty for all. hours, weekdays: when the rule is in force; empty for always. A part of the day that passes
    midnight belongs to the day on which it begins.
    cooldown_s: the shortest time between the openings of two events of this rule and camera.
    """

    name: Name
    cameras: list[CameraName] = []
    hours: list[Hours] = []
    weekdays: list[Weekday] = []
    cooldown_s: Seconds = 0.0


class _FaceRule(_Rule, frozen=True, kw_only=True):
    """What the rules about faces have. zone: None for the whole picture."""

    zone: Name | None = None


class NoMask(_FaceRule, frozen=True, kw_only=True, tag="no_mask"):
    """Somebody wears no mask for some time."""

    seconds: Seconds = 5.0


class PeopleWithoutMask(_FaceRule, frozen=True, kw_only=True, tag="people_without_mask"):
    """Several people wear no mask at once, for some time."""

    people: Annotated[int, Meta(ge=1, le=1_000)]
    seconds: Seconds = 0.0


class MaskShare(_FaceRule, frozen=True, kw_only=True, tag="mask_share"):
    """Masks were worn in less than a share of the time that people were in the picture during the last minutes.

    min_people_s: with less time of people in these minutes, the share means nothing.
    """

    below_percent: Annotated[float, Meta(gt=0, le=100)]
    minutes: Annotated[float, Meta(gt=0, le=1_440)]
    min_people_s: Seconds = 10.0


class CameraOffline(_Rule, frozen=True, kw_only=True, tag="camera_offline"):
    """A camera brings no frames for some time after it counts as offline."""

    seconds: Seconds = 10.0


class CameraUnlabelled(_Rule, frozen=True, kw_only=True, tag="camera_unlabelled"):
    """A camera brings frames for some time, but none of them is labelled."""

    seconds: Seconds = 10.0


class CameraBack(_Rule, frozen=True, kw_only=True, tag="camera_back"):
    """A camera is live again that was offline for at least some time."""

    seconds: Seconds = 10.0


FaceRule: TypeAlias = NoMask | PeopleWithoutMask | MaskShare
CameraRule: TypeAlias = CameraOffline | CameraUnlabelled | CameraBack
Rule: TypeAlias = FaceRule | CameraRule


class RuleSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole rules file.

    timezone: of all hours and weekdays, and of times in messages for people, by its name in the IANA database.
    public_url: of the page, for links in messages; None for no links.
    """

    timezone: str = "UTC"
    public_url: Annotated[str, Meta(pattern=r"\Ahttps?://[^\s]+\Z", max_length=1_000)] | None = None
    zones: list[Zone] = []
    rules: list[Rule] = []
    webhooks: list[Webhook] = []
    mqtt: list[Mqtt] = []
    emails: list[Email] = []
    apprise: list[AppriseService] = []

    @property
    def receivers(self) -> list[ReceiverSettings]:
        """All to whom events are sent."""
        return [*self.webhooks, *self.mqtt, *self.emails, *self.apprise]


DEFAULT_RULES = RuleSet(rules=[NoMask(name="no-mask"), CameraOffline(name="camera-offline")])


def rules_schema() -> dict[str, Any]:
    """Return the JSON schema of a rules file."""
    return msgspec.json.schema(RuleSet)
