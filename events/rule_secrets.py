"""Secrets in rules: they are hidden from readers, and kept when rules are set again without them.

Which fields are secret is decided here alone, by their names. The URL of a receiver is one: paths are often secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from events.rule_file import BadRules
from events.rule_types import RuleSet

SECRET_FIELDS = frozenset({"password", "secret", "token", "url", "urls"})
# Where a secret is sent: it is kept for this place only, else rules could send it to another one.
PLACE_FIELDS = frozenset({"ca_file", "host", "port", "security", "tls", "url", "urls", "username"})
SET, NOT_SET = "set", "not set"


def hide_secrets(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return rules, as plain values, in which each secret is SET or NOT_SET."""
    return {name: _hidden(name, value) for name, value in content.items()}


def keep_secrets(content: Mapping[str, Any], before: RuleSet) -> dict[str, Any]:
    """Return rules, as plain values, with the secrets that they leave out.

    Args:
        before: the rules in force, from which secrets of receivers of the same kind and name are kept.

    Raises:
        BadRules: there is no secret to keep, or it would be sent to another place.
    """
    merged: dict[str, Any] = {}
    for field, value in content.items():
        listed = getattr(before, field, None)
        known = {one.name: one for one in listed} if isinstance(listed, list) else {}
        merged[field] = [_kept(field, one, known) for one in value] if isinstance(value, list) else value
    return merged


def _hidden(name: str, value: Any) -> Any:
    if name in SECRET_FIELDS:
        return SET if value and value != NOT_SET else NOT_SET
    if isinstance(value, dict):
        return hide_secrets(value)
    return [_hidden("", one) for one in value] if isinstance(value, (list, tuple)) else value


def _kept(field: str, raw: Any, known: Mapping[str, Any]) -> Any:
    """Return one of a list of rules, zones or receivers with its secrets."""
    if not isinstance(raw, dict):
        return raw
    name = raw.get("name")
    before = known.get(name) if isinstance(name, str) else None
    given = {key: value for key, value in raw.items() if key not in SECRET_FIELDS or value not in (SET, NOT_SET)}
    left_out = {key for key, value in raw.items() if key in SECRET_FIELDS and value == SET}
    where = f"{field} {name!r:.80}: "
    for key in SECRET_FIELDS & given.keys():
        if given[key] is None:
            raise BadRules(f"{where}its {key} is null: send '{NOT_SET}' for none")
        if not isinstance(given[key], (str, list)):
            raise BadRules(f"{where}over the API its {key} is written as it is, not as the place where it is kept")
    if before is None:
        if left_out:
            raise BadRules(f"{where}there is no {min(left_out)} to keep: send it")
        return given
    unchanged = {key: value for key, value in _secrets(before).items() if key not in raw or key in left_out}
    moved = sorted(key for key in PLACE_FIELDS if _differs(key, given, before, unchanged))
    if unchanged.keys() - PLACE_FIELDS and moved:
        raise BadRules(f"{where}its {moved[0]} has changed: send its {min(unchanged.keys() - PLACE_FIELDS)} again")
    return given | unchanged


def _secrets(record: Struct) -> dict[str, Any]:
    """Return the secrets that are set."""
    found = msgspec.to_builtins(record)
    return {key: value for key, value in found.items() if key in SECRET_FIELDS and value}


def _differs(key: str, given: Mapping[str, Any], before: Struct, unchanged: Mapping[str, Any]) -> bool:
    """Return whether a field is another one than before; one that is left out has its default."""
    fields = {one.name: one for one in msgspec.structs.fields(before)}
    if key not in fields or key in unchanged:
        return False
    return bool(given.get(key, fields[key].default) != getattr(before, key))
