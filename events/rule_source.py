"""Where a recorder has its rules from: its file, else those that were set over the API, else the default ones.

Rules over the API are taken up while the recorder runs. Stored rules that cannot be used, such as those of another
version of maskwatch, are logged once, and the rules before them stay in force.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import sqlalchemy as sa

from events.database import database_errors
from events.rule_file import BadRules
from events.rule_types import DEFAULT_RULES, RuleSet
from events.stored_rules import note_file_rules, read_rules, read_rules_version

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 2.0


class RuleSource:
    """The rules of one recorder.

    Args:
        file_rules: those of its file; None without one.
        monotonic: seconds.

    Attributes:
        rules: those in force.
    """

    def __init__(
        self, engine: sa.Engine, file_rules: RuleSet | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.rules = file_rules or DEFAULT_RULES
        self._engine = engine
        self._file_rules = file_rules
        self._monotonic = monotonic
        self._version = 0
        self._poll_at = 0.0

    def take_over(self) -> None:
        """Tell readers of the database which rules are in force, when this recorder becomes the active one.

        Raises:
            DatabaseAway: the database does not answer.
        """
        with database_errors(), self._engine.begin() as connection:
            note_file_rules(connection, self._file_rules)
        self._poll_at = 0.0
        self.refresh()

    def refresh(self) -> bool:
        """Take up rules that were set since the last time, looked for once in POLL_INTERVAL_S; return whether any were.

        Raises:
            DatabaseAway: the database does not answer.
        """
        if self._file_rules is not None or self._monotonic() < self._poll_at:
            return False
        self._poll_at = self._monotonic() + POLL_INTERVAL_S
        with database_errors(), self._engine.begin() as connection:
            version = read_rules_version(connection)
            if version == self._version:
                return False
            before = self.rules
            try:
                self.rules = read_rules(connection).rules
            except BadRules as error:
                log.error("the rules that were set over the API cannot be used: %s; set them again", error)
        self._version = version  # only now: the database may have gone away before the rules were read
        return self.rules is not before
