"""Remove passwords from what others can read: log lines, errors, and the command line of this process.

Users write passwords into URLs, and into the flags of secrets. In doubt more than the password is hidden.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from pipeline.bus.connection import hide_password

HIDDEN = "***"
SECRET_FLAGS = frozenset({"--password-hash", "--session-key", "--metrics-token"})
_WORD = re.compile(r"\S+")


def redact(text: str) -> str:
    """Return a text with each URL in it without its passwords."""
    return _WORD.sub(lambda word: hide_password(word[0]) if ":/" in word[0] else word[0], text)


def redact_arguments(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without passwords: those in URLs, and the values of SECRET_FLAGS."""
    shown: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        flag, equals, _ = word.partition("=")
        if before in SECRET_FLAGS:
            shown.append(HIDDEN)
        elif flag in SECRET_FLAGS and equals:
            shown.append(f"{flag}={HIDDEN}")
        else:
            shown.append(hide_password(word))
    return shown


def redact_quoted_arguments(text: str, words: Sequence[str]) -> str:
    """Return an error about a command line without the passwords in its words, which the error may quote."""
    for word, shown in zip(words, redact_arguments(words), strict=True):
        for one, safe in ((word, shown), (word.partition("=")[2], shown.partition("=")[2])):
            if one and one != safe:
                whole = rf"(?<![\w-])(?:{re.escape(one)}|{re.escape(repr(one)[1:-1])})(?![\w-])"
                text = re.sub(whole, safe.replace("\\", r"\\"), text)
    return redact(text)


def hide_own_arguments() -> None:
    """Change the command line that other users of this machine see, if it holds a password."""
    shown = redact_arguments(sys.argv[1:])
    if shown != sys.argv[1:]:
        from setproctitle import setproctitle  # few commands need it

        setproctitle(" ".join(["maskwatch", *shown]))
