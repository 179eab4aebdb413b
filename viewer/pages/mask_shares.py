"""How many wore masks: counts of cameras in, sums by step, by camera and in all out, and these as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import tzinfo

from msgspec import Struct

from events.count_reading import PeriodCount
from viewer.pages.compliance_query import ComplianceQuery, Step
from viewer.pages.time_zones import hour_text, local

COLUMNS = ("begin", "camera", "masks_share", "people_s", "masks_s", "most_at_once")


class Sums(Struct, frozen=True, kw_only=True):
    """What was counted in a step, at a camera, or in all.

    people_s, masks_s: seconds times people, and people with a mask. most: people at once before one camera.
    """

    people_s: float = 0.0
    masks_s: float = 0.0
    most: int = 0

    @property
    def share(self) -> float | None:
        """The share of people_s in which masks were worn; None without people."""
        return self.masks_s / self.people_s if self.people_s else None

    def plus(self, other: PeriodCount) -> Sums:
        """Return the sum with what else was counted."""
        return Sums(
            people_s=self.people_s + other.people_s,
            masks_s=self.masks_s + other.masks_s,
            most=max(self.most, other.most),
        )


class Row(Struct, frozen=True, kw_only=True):
    """The sums of something. begin: of a step, Unix seconds; 0 for others."""

    name: str
    begin: float = 0.0
    sums: Sums


class Shares(Struct, frozen=True, kw_only=True):
    """What the Compliance page shows. steps: in order of time, without those that were not watched."""

    total: Sums
    steps: list[Row]
    cameras: list[Row]


def make_shares(counts: Sequence[PeriodCount], by: Step, zone: tzinfo) -> Shares:
    """Return the sums of counts."""
    total = Sums()
    steps: dict[float, Sums] = {}
    cameras: dict[str, Sums] = {}
    for count in counts:
        total = total.plus(count)
        steps[count.started_at] = steps.get(count.started_at, Sums()).plus(count)
        cameras[count.camera] = cameras.get(count.camera, Sums()).plus(count)
    return Shares(
        total=total,
        steps=[Row(name=step_name(begin, by, zone), begin=begin, sums=sums) for begin, sums in sorted(steps.items())],
        cameras=[Row(name=name, sums=sums) for name, sums in sorted(cameras.items())],
    )


def step_name(begin: float, by: Step, zone: tzinfo) -> str:
    """Return what a step is called, for example "Sat 31 Jan, 14:00"."""
    at = local(begin, zone)
    return f"{at:%a %-d %b}, {hour_text(at)}" if by == "hour" else f"{at:%a %-d %b %Y}"


def period_title(query: ComplianceQuery) -> str:
    """Return what the page shows, for example "Masks and people on 31 January 2026 by hour, on door"."""
    first, last = (f"{day:%-d %B %Y}" for day in (query.first, query.last))
    when = f"on {first}" if first == last else f"from {first} to {last}"
    return f"Masks and people {when}" + (f", camera {query.camera}" if query.camera else "")


def file_name(query: ComplianceQuery) -> str:
    """Return the name of an exported file, without its ending."""
    return "-".join(["compliance", *([query.camera] if query.camera else []), f"{query.first}", f"{query.last}"])


def as_csv(counts: Iterable[PeriodCount], zone: tzinfo) -> str:
    """Return counts as CSV with a header, a line for each step and camera."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for count in counts:
        share = "" if count.share is None else f"{count.share:.4f}"
        begin = local(count.started_at, zone).isoformat()
        writer.writerow([begin, count.camera, share, f"{count.people_s:.1f}", f"{count.masks_s:.1f}", count.most])
    return written.getvalue()


def as_records(counts: Iterable[PeriodCount], zone: tzinfo) -> list[dict[str, str | float | int | None]]:
    """Return counts as records for JSON, with the names of the CSV's columns."""
    return [
        {
            "begin": local(count.started_at, zone).isoformat(),
            "camera": count.camera,
            "masks_share": None if count.share is None else round(count.share, 4),
            "people_s": round(count.people_s, 1),
            "masks_s": round(count.masks_s, 1),
            "most_at_once": count.most,
        }
        for count in counts
    ]
