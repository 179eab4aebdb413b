"""The operations on the rules of events: read them without their secrets, and set all of them at once.

Rules are checked as those of a file are. What cannot be is refused with one line that names it, and changes nothing.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import sqlalchemy as sa
from flask import Response, request
from msgspec import Struct

from events.event_database import EventDatabase
from events.rule_file import BadRules, rules_from
from events.rule_secrets import keep_secrets
from events.rule_types import DEFAULT_RULES, RuleSet
from events.shown_rules import ShownRuleSet
from events.stored_rules import Origin, RulesInFile, read_rules, read_rules_in_force, save_rules
from viewer.api.operations import JSON_TYPE, NoParameters, Operation, json_response
from viewer.api.problems import ApiError
from viewer.security.middleware import MAX_RULES

MAX_DETAIL = 500  # characters of an error that may quote a request


class RulesInForce(Struct, frozen=True, kw_only=True):
    """The rules that recorders use. origin: default, api if they were set here, or file, which cannot be set here."""

    origin: Origin
    rules: ShownRuleSet  # type: ignore[valid-type]  # made from RuleSet


def rule_operations(database: EventDatabase) -> list[Operation]:
    """Return the operations."""

    def get_rules(_path: NoParameters, _query: NoParameters) -> Response:
        """Return the rules, zones and receivers in force; secrets are shown as 'set' or 'not set'."""
        return _rules_answer(database)

    def put_rules(_path: NoParameters, _query: NoParameters) -> Response:
        """Set all rules, zones and receivers at once; the active recorder uses them within seconds.

        A secret that is left out, or sent as 'set', is kept for the receiver of the same name, unless it would be sent
        to another place.
        """
        content = _content()
        try:
            with database.writing() as connection:
                save_rules(connection, rules_from(keep_secrets(content, _rules_before(connection))))
        except (BadRules, RecursionError) as error:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}"[:MAX_DETAIL]) from error
        except RulesInFile as error:
            raise ApiError(HTTPStatus.CONFLICT, str(error)) from error
        return _rules_answer(database)

    return [
        Operation(
            path="/rules", id="get_rules", summary="Get the rules of events", answer=RulesInForce, handle=get_rules
        ),
        Operation(
            method="PUT",
            path="/rules",
            id="set_rules",
            summary="Set the rules of events",
            scope="admin",
            body={JSON_TYPE: ShownRuleSet},
            max_body=MAX_RULES,
            answer=RulesInForce,
            errors={409: "The recorder has its rules from a file.", 415: "The content is not JSON."},
            handle=put_rules,
        ),
    ]


def _rules_answer(database: EventDatabase) -> Response:
    with database.reading() as connection:
        found = read_rules_in_force(connection)
    return json_response({"origin": found.origin, "rules": found.content})


def _rules_before(connection: sa.Connection) -> RuleSet:
    """Return the rules whose secrets are kept; rules of another version that cannot be read have none."""
    try:
        return read_rules(connection).rules
    except BadRules:
        return DEFAULT_RULES


def _content() -> dict[str, Any]:
    """Return the rules in the present request, as plain values.

    Raises:
        ApiError: it has another type, or is not a JSON object.
    """
    if request.mimetype != JSON_TYPE:
        detail = f"Content-Type {request.mimetype!a:.80} is not supported: send the rules as {JSON_TYPE}"
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    request.max_content_length = MAX_RULES
    try:
        return msgspec.json.decode(request.get_data(cache=False), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"the rules are not a JSON object: {error}"
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, detail[:MAX_DETAIL]) from error
