"""Parameters and answers of the operations on events, counts and deliveries."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from events.count_reading import Period, PeriodCount
from events.event_types import Event
from events.outbox import Delivery
from events.receiver_types import Name
from pipeline.bus.messages import CameraName

Unix: TypeAlias = Annotated[float, Meta(ge=0, le=100_000_000_000)]
Camera: TypeAlias = Annotated[CameraName, Meta(description="Only of this camera.")]
Since: TypeAlias = Annotated[Unix, Meta(description="Only what began at this time or later, Unix seconds.")]
Until: TypeAlias = Annotated[Unix, Meta(description="Only what began before this time, Unix seconds.")]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1_000, description="The most of a page.")]
Cursor: TypeAlias = Annotated[str, Meta(max_length=100, description="The next_cursor of the page before.")]
DeliveryId: TypeAlias = Annotated[int, Meta(ge=1, le=9_007_199_254_740_991, description="The delivery's ID.")]


class EventParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are wanted."""

    camera: Camera | UnsetType = UNSET
    kind: Annotated[str, Meta(pattern=r"\A[a-z_]{1,32}\Z", description="Only of this kind.")] | UnsetType = UNSET
    zone: Annotated[Name, Meta(description="Only in this zone.")] | UnsetType = UNSET
    rule: Annotated[Name, Meta(description="Only of this rule.")] | UnsetType = UNSET
    since: Since | UnsetType = UNSET
    until: Until | UnsetType = UNSET
    open: Annotated[bool, Meta(description="Only those that have not ended.")] = False
    limit: Limit = 100
    cursor: Cursor | UnsetType = UNSET


class EventList(Struct, frozen=True, kw_only=True):
    """A page of events, newest first. next_cursor: of the next page; null at the end."""

    events: list[Event]
    next_cursor: str | None


class OneEventParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which event is wanted."""

    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z", description="The event's ID.")]


class EventWithDeliveries(Struct, frozen=True, kw_only=True):
    """An event, and what became of its deliveries, oldest first."""

    event: Event
    deliveries: list[Delivery]


class CountParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which counts are wanted."""

    by: Annotated[Period, Meta(description="Of which length the periods are.")] = "hour"
    camera: Camera | UnsetType = UNSET
    since: (
        Annotated[Unix, Meta(description="From this time, Unix seconds; by default 60 minutes, 24 hours, 30 days ago.")]
        | UnsetType
    ) = UNSET
    until: Annotated[Unix, Meta(description="To this time, Unix seconds; by default now.")] | UnsetType = UNSET
    timezone: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"\A[A-Za-z0-9_+/-]+\Z",
            description="Whose hours and days they are, by its name in the IANA database.",
        ),
    ] = "UTC"


class CountList(Struct, frozen=True, kw_only=True):
    """Counts by time and camera, without periods in which a camera had no frames."""

    counts: list[PeriodCount]


class DeliveryParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are wanted."""

    state: (
        Annotated[Literal["pending", "delivered", "dead"], Meta(description="Only those in this state.")] | UnsetType
    ) = UNSET
    receiver: Annotated[Name, Meta(description="Only those to this receiver.")] | UnsetType = UNSET
    limit: Limit = 100
    cursor: Annotated[DeliveryId, Meta(description="The next_cursor of the page before.")] | UnsetType = UNSET


class DeliveryList(Struct, frozen=True, kw_only=True):
    """A page of deliveries, newest first. next_cursor: of the next page; null at the end."""

    deliveries: list[Delivery]
    next_cursor: str | None


class OneDeliveryParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which delivery is meant."""

    id: DeliveryId
