"""The type of rules as readers get them, and send them: made from RuleSet, with its secrets hidden."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from events.rule_secrets import SECRET_FIELDS, SET
from events.rule_types import RuleSet

HiddenSecret = Annotated[
    str,
    Meta(
        max_length=2_000,
        description="Shown as 'set' or 'not set'. Sent as 'set' or left out, the present one is kept.",
    ),
]


def _shown(found: Any) -> Any:
    """Return a type of rules as readers get it: each of its secrets is a HiddenSecret. The same type without any."""
    if isinstance(found, type) and issubclass(found, Struct):
        return _shown_struct(found)
    if not (arguments := get_args(found)):
        return found
    shown = tuple(_shown(one) for one in arguments)
    if shown == arguments:
        return found
    origin = get_origin(found)
    if origin is Annotated:
        return Annotated[(shown[0], *arguments[1:])]
    return Union[shown] if origin in (Union, UnionType) else origin[shown]  # noqa: UP007 -- of a tuple


def _shown_struct(found: type[Struct]) -> type[Struct]:
    fields: list[Any] = []
    changed = False
    for one in msgspec.structs.fields(found):
        is_secret = one.name in SECRET_FIELDS
        shown = HiddenSecret if is_secret else _shown(one.type)
        changed = changed or is_secret or shown is not one.type
        default = SET if is_secret else one.default
        if one.default_factory is not msgspec.NODEFAULT:
            fields.append((one.name, shown, msgspec.field(default_factory=one.default_factory)))
        elif default is not msgspec.NODEFAULT:
            fields.append((one.name, shown, default))
        else:
            fields.append((one.name, shown))
    if not changed:
        return found
    settings: dict[str, Any] = {"kw_only": True, "frozen": True, "forbid_unknown_fields": True}
    return msgspec.defstruct(f"Shown{found.__name__}", fields, namespace={"__doc__": found.__doc__}, **settings)


ShownRuleSet = _shown_struct(RuleSet)
