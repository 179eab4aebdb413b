"""A valid record whose time or number cannot be is left out, so that it does not end a recorder again and again."""

from __future__ import annotations

import msgspec
import pytest
from event_scenes import BEGIN, Person, scene

from events.plausibility import is_plausible

RESULT = scene([Person(1, 0, 1, bare=[])], 1)[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),
        ({"captured_at": BEGIN + 10.0**9}, True),
        ({"captured_at": -1.0}, False),
        ({"captured_at": 1e15}, False),
        ({"seq": 2**60}, False),
        ({"start": 2**63}, False),
    ],
)
def test_a_result_has_a_time_and_numbers_that_can_be_stored(values: dict[str, float], expected: bool) -> None:
    found = is_plausible(msgspec.structs.replace(RESULT, **values))

    assert found is expected
