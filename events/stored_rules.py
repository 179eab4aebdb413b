"""Rules in the database: those that were set over the API, and those of the file that the active recorder has.

Rules of a file have precedence: while a recorder uses them, others can be read, but not set.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from events.rule_file import rules_from
from events.rule_secrets import hide_secrets
from events.rule_types import DEFAULT_RULES, RuleSet
from events.tables import RULE_SETS

Origin = Literal["default", "api", "file"]


class RulesInFile(Exception):
    """The rules of a file are in force, so that none can be set; says what to do."""


class StoredRules(Struct, frozen=True, kw_only=True):
    """Rules that were set over the API, secrets included. version: of what is stored; 0 for the default rules."""

    rules: RuleSet
    version: int


class RulesInForce(Struct, frozen=True, kw_only=True):
    """The rules that a recorder uses, for readers: secrets are hidden. origin: where they come from."""

    origin: Origin
    content: dict[str, object]


def read_rules(connection: sa.Connection) -> StoredRules:
    """Return the rules that were set over the API; the default ones if none were.

    Raises:
        BadRules: they are of another version of maskwatch.
    """
    row = connection.execute(sa.select(RULE_SETS).where(RULE_SETS.c.origin == "api")).first()
    if row is None:
        return StoredRules(rules=DEFAULT_RULES, version=0)
    return StoredRules(rules=rules_from(msgspec.json.decode(row.content)), version=row.version)


def read_rules_version(connection: sa.Connection) -> int:
    """Return the version of the rules that were set over the API; 0 if none were."""
    version = connection.execute(sa.select(RULE_SETS.c.version).where(RULE_SETS.c.origin == "api")).scalar()
    return version or 0


def read_rules_in_force(connection: sa.Connection) -> RulesInForce:
    """Return the rules that a recorder uses, without their secrets."""
    rows = {row.origin: row.content for row in connection.execute(sa.select(RULE_SETS))}
    for origin in ("file", "api"):
        if origin in rows:
            content = msgspec.json.decode(rows[origin], type=dict[str, object])
            return RulesInForce(origin=origin, content=hide_secrets(content))
    return RulesInForce(origin="default", content=hide_secrets(msgspec.to_builtins(DEFAULT_RULES)))


def save_rules(connection: sa.Connection, rules: RuleSet) -> None:
    """Store rules, secrets included, in the place of those that were set before.

    Raises:
        RulesInFile: the active recorder has rules of a file.
    """
    if connection.execute(sa.select(RULE_SETS.c.version).where(RULE_SETS.c.origin == "file")).first():
        raise RulesInFile(
            "the recorder has its rules from a file (--rules or MASKWATCH_RULES): change that file, or start it without"
        )
    _put(connection, "api", msgspec.json.encode(rules).decode())


def note_file_rules(connection: sa.Connection, rules: RuleSet | None) -> None:
    """Write the rules of the file that the active recorder has, without secrets; None if it has no file."""
    if rules is None:
        connection.execute(sa.delete(RULE_SETS).where(RULE_SETS.c.origin == "file"))
    else:
        _put(connection, "file", msgspec.json.encode(hide_secrets(msgspec.to_builtins(rules))).decode())


def _put(connection: sa.Connection, origin: Origin, content: str) -> None:
    same = RULE_SETS.c.origin == origin
    values = {"version": RULE_SETS.c.version + 1, "content": content}
    if connection.execute(sa.update(RULE_SETS).where(same).values(values)).rowcount == 0:
        connection.execute(sa.insert(RULE_SETS).values(origin=origin, version=1, content=content))
