"""A recorder takes up rules that were set over the API, unless it has a file, and tells readers which it uses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from test_event_store import active

from events.database import DatabaseAway, open_engine
from events.locations import sqlite_url
from events.rule_file import parse_rules
from events.rule_source import POLL_INTERVAL_S, RuleSource
from events.rule_types import DEFAULT_RULES, RuleSet
from events.stored_rules import RulesInFile, read_rules_in_force, save_rules
from events.tables import RULE_SETS

BARE = parse_rules(
    "[[rules]]\nkind = 'no_mask'\nname = 'bare'\n[[webhooks]]\nname = 'office'\n"
    "url = 'https://example.com/'\nsecret = 'sixteen letters!'\n"
)


class Monotonic:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    found = open_engine(sqlite_url(tmp_path / "events.db"))
    active(found)
    yield found
    found.dispose()


def save(engine: sa.Engine, rules: RuleSet) -> None:
    with engine.begin() as connection:
        save_rules(connection, rules)


def in_force(engine: sa.Engine) -> tuple[str, object]:
    with engine.begin() as connection:
        found = read_rules_in_force(connection)
    return found.origin, found.content["webhooks"]


def test_rules_that_are_set_are_taken_up_by_a_recorder_that_runs(engine: sa.Engine) -> None:
    clock = Monotonic()
    source = RuleSource(engine, None, clock)
    source.take_over()
    before = source.rules

    save(engine, BARE)
    early = source.refresh()
    clock.at += POLL_INTERVAL_S
    taken = source.refresh()
    clock.at += POLL_INTERVAL_S
    again = source.refresh()

    assert before == DEFAULT_RULES
    assert (early, taken, again) == (False, True, False)
    assert source.rules == BARE


def test_a_recorder_that_takes_over_begins_with_the_rules_that_were_set(engine: sa.Engine) -> None:
    save(engine, BARE)
    source = RuleSource(engine, None)

    source.take_over()

    assert source.rules == BARE
    assert in_force(engine)[0] == "api"


def test_rules_of_a_file_have_precedence_and_nobody_can_set_others(engine: sa.Engine) -> None:
    save(engine, DEFAULT_RULES)
    source = RuleSource(engine, BARE)

    source.take_over()
    with pytest.raises(RulesInFile, match="--rules"):
        save(engine, DEFAULT_RULES)

    (shown,) = (in_force(engine)[1],)
    with engine.begin() as connection:
        stored = str(connection.execute(sa.select(RULE_SETS.c.content).where(RULE_SETS.c.origin == "file")).scalar())
    assert source.rules == BARE
    assert not source.refresh()
    assert in_force(engine)[0] == "file"
    assert "'secret': 'set'" in str(shown)
    assert "sixteen" not in stored
    assert "example.com" not in stored


def test_a_recorder_without_a_file_lets_rules_be_set_again(engine: sa.Engine) -> None:
    RuleSource(engine, BARE).take_over()

    RuleSource(engine, None).take_over()
    save(engine, BARE)

    assert in_force(engine)[0] == "api"


def test_rules_that_a_database_lost_on_the_way_are_taken_up_when_it_is_back(engine: sa.Engine) -> None:
    clock = Monotonic()
    source = RuleSource(engine, None, clock)
    source.take_over()
    save(engine, BARE)
    clock.at += POLL_INTERVAL_S

    def gone(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "rule_sets.content" in statement:
            raise sqlite3.OperationalError("the connection is gone")

    sa.event.listen(engine, "before_cursor_execute", gone)
    with pytest.raises(DatabaseAway):
        source.refresh()
    sa.event.remove(engine, "before_cursor_execute", gone)
    clock.at += POLL_INTERVAL_S
    source.refresh()

    assert source.rules == BARE


def test_stored_rules_of_another_version_leave_those_before_in_force(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    source = RuleSource(engine, None)
    save(engine, BARE)
    with engine.begin() as connection:
        connection.execute(sa.update(RULE_SETS).values(content='{"rules": [{"kind": "later", "name": "x"}]}'))

    source.take_over()

    assert source.rules == DEFAULT_RULES
    assert "set them again" in caplog.text
