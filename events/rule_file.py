"""Read a rules file and check it: TOML in, a RuleSet out, or BadRules with one line that names what is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from events.addresses import BadReceiver
from events.receiver_checks import check_receiver
from events.receiver_types import AppriseService, Email, Mqtt, ReceiverSettings, Webhook
from events.rule_types import DEFAULT_RULES, CameraRule, Rule, RuleSet, Zone
from events.zones import is_simple

_KINDS: dict[str, tuple[str, Any]] = {
    "zones": ("zone", Zone),
    "rules": ("rule", Rule),
    "webhooks": ("webhook", Webhook),
    "mqtt": ("mqtt", Mqtt),
    "emails": ("email", Email),
    "apprise": ("apprise", AppriseService),
}
_PATH = re.compile(r" - at `\$\.?(.*?)`$")


class BadRules(ValueError):
    """A rules file that cannot be used; names the rule, zone or receiver, and what is wrong with it."""


def load_rules(path: Path | None) -> RuleSet:
    """Return the rules in a file. path: None for the default rules.

    Raises:
        BadRules: it cannot be read, is not TOML, or holds something that cannot be.
    """
    if path is None:
        return DEFAULT_RULES
    try:
        return parse_rules(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also for bytes that are no UTF-8
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadRules(f"rules file {path}: {reason}") from error


def parse_rules(text: str) -> RuleSet:
    """Return the rules in a text.

    Raises:
        BadRules: one of them cannot be.
        ValueError: it is not TOML.
    """
    return rules_from(tomllib.loads(text))


def rules_from(raw: dict[str, Any]) -> RuleSet:
    """Return the rules in the content of a file, or of a request.

    Raises:
        BadRules: one of them cannot be.
    """
    for field, (word, record_type) in _KINDS.items():
        if not isinstance(raw.get(field, []), list):
            raise BadRules(f"{field} is not a list: write [[{field}]] above each {word}")
        for number, one in enumerate(raw.get(field, []), 1):
            _convert(one, record_type, f"{word} {_name_of(one) or number}: ")
    rules: RuleSet = _convert(raw, RuleSet, "")
    _check(rules)
    return rules


def _name_of(raw: Any) -> str:
    name = raw.get("name") if isinstance(raw, dict) else None
    return repr(name) if isinstance(name, str) else ""


def _convert(raw: Any, record_type: Any, prefix: str) -> Any:
    """Return a record. prefix: of the error, says where the raw value is."""
    try:
        return msgspec.convert(raw, record_type)
    except msgspec.ValidationError as error:
        text, path = str(error), _PATH.search(str(error))
        where = f"{path[1]}: " if path and path[1] else ""
        raise BadRules(f"{prefix}{where}{_PATH.sub('', text)}") from error


def _check(rules: RuleSet) -> None:
    """Check what no type says.

    Raises:
        BadRules: a name is given twice or belongs to nothing, or a zone, receiver or time zone cannot be.
    """
    for field, (word, _) in _KINDS.items():
        _check_names(word, [one.name for one in getattr(rules, field)])
    try:
        ZoneInfo(rules.timezone)
    except (OSError, ValueError) as error:  # OSError: the name is that of a folder
        raise BadRules(f"timezone: {rules.timezone!r} is unknown; write for example Europe/Berlin") from error
    except KeyError as error:
        raise BadRules(f"timezone: {rules.timezone!r} is unknown; write for example Europe/Berlin") from error
    for zone in rules.zones:
        if not is_simple(zone.polygon):
            raise BadRules(f"zone {zone.name!r}: its polygon has no area, or its sides cross each other")
    for rule in rules.rules:
        _check_zone(rule, rules.zones)
    for field, (word, _) in _KINDS.items():
        if field not in ("zones", "rules"):
            _check_receivers(word, getattr(rules, field), rules)
    _check_names("receiver", [one.name for one in rules.receivers])


def _check_names(word: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadRules(f"{word} {twice[0]!r}: the name is given twice")


def _check_zone(rule: Rule, zones: Sequence[Zone]) -> None:
    if isinstance(rule, CameraRule) or rule.zone is None:
        return
    zone = next((one for one in zones if one.name == rule.zone), None)
    if zone is None:
        raise BadRules(f"rule {rule.name!r}: there is no zone {rule.zone!r}")
    if rule.cameras and rule.cameras != [zone.camera]:
        raise BadRules(f"rule {rule.name!r}: zone {zone.name!r} is of camera {zone.camera!r} alone")


def _check_receivers(word: str, receivers: Sequence[ReceiverSettings], rules: RuleSet) -> None:
    for receiver in receivers:
        unknown = sorted(set(receiver.rules) - {rule.name for rule in rules.rules})
        if unknown:
            raise BadRules(f"{word} {receiver.name!r}: there is no rule {unknown[0]!r}")
        try:
            check_receiver(receiver)
        except BadReceiver as error:
            raise BadRules(f"{word} {receiver.name!r}: {error}") from error
