"""The Compliance page: the share of masks and the people seen, by hour or day and camera; the same as CSV and JSON."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

import msgspec
from flask import Flask, Response, request
from sqlalchemy import Connection

from events.count_reading import PeriodCount, read_counts
from events.counted_cameras import read_counted_cameras
from events.event_database import EventDatabase
from viewer.pages.compliance_query import ComplianceQuery, compliance_query, compliance_url, period_links
from viewer.pages.mask_shares import as_csv, as_records, file_name, make_shares, period_title
from viewer.pages.rendering import FAILURES, PageRenderer, failure_status
from viewer.pages.time_zones import midnight, next_day, reader_zone, today, zone_name


def add_compliance(app: Flask, database: EventDatabase, pages: PageRenderer) -> None:
    """Add the page and its exports."""

    @app.get("/compliance")
    def compliance() -> Response:
        zone = reader_zone()
        try:
            query = compliance_query(request.args, today(zone))
            with database.reading() as connection:
                found = _found(connection, query, zone)
        except FAILURES as error:
            return pages.failure("compliance.html", zone, error)
        return pages.render("compliance.html", zone, asked=query, **found)

    @app.get("/compliance.csv")
    def compliance_csv() -> Response:
        return _export(database, "csv")

    @app.get("/compliance.json")
    def compliance_json() -> Response:
        return _export(database, "json")


def _found(connection: Connection, query: ComplianceQuery, zone: tzinfo) -> dict[str, Any]:
    """Return what the page shows."""
    return {
        "cameras": read_counted_cameras(connection),
        "periods": period_links(query, today(zone)),
        "shares": make_shares(_counts(connection, query, zone), query.by, zone),
        "title": period_title(query),
        "file_name": file_name(query),
        "csv_url": compliance_url(query, "compliance_csv"),
        "json_url": compliance_url(query, "compliance_json"),
    }


def _export(database: EventDatabase, ending: str) -> Response:
    """Return the counts that the present request asks for, as a file."""
    zone = reader_zone()
    try:
        query = compliance_query(request.args, today(zone))
        with database.reading() as connection:
            counts = _counts(connection, query, zone)
    except FAILURES as error:
        return Response(f"{error}\n", failure_status(error), mimetype="text/plain")
    if ending == "csv":
        answer = Response(as_csv(counts, zone), mimetype="text/csv")
    else:
        exported = {"by": query.by, "time_zone": zone_name(zone), "counts": as_records(counts, zone)}
        answer = Response(msgspec.json.format(msgspec.json.encode(exported)), mimetype="application/json")
    answer.headers["Content-Disposition"] = f'attachment; filename="{file_name(query)}.{ending}"'
    return answer


def _counts(connection: Connection, query: ComplianceQuery, zone: tzinfo) -> list[PeriodCount]:
    since, until = midnight(query.first, zone), midnight(next_day(query.last), zone)
    return read_counts(connection, query.by, since=since, until=until, camera=query.camera, zone=zone)
