"""What a process logs, on stderr: text for people, or one JSON object a line for programs.

As JSON nothing else is written: warnings, errors that nobody caught and those of threads become lines too. What native
libraries write to stderr themselves only a trainer gathers (`gather_foreign_lines`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

STDERR = 2

_identity: dict[str, str] = {}


def configure_logging(*, as_json: bool, level: str = "INFO") -> None:
    """Log to stderr, as text for people or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    if as_json:
        logging.captureWarnings(True)
        sys.excepthook = _log_error
        sys.unraisablehook = lambda found: _log_error(found.exc_type, found.exc_value, found.exc_traceback)
        threading.excepthook = lambda found: _log_error(found.exc_type, found.exc_value, found.exc_traceback)


def gather_foreign_lines() -> None:
    """Log as lines of ours what anything else writes to stderr from now on, forked processes included.

    Only where logs are JSON, and only for a process that waits for others and does no native work itself: who writes
    must never wait for a lock of the one who reads, and its last words must not be lost with it.
    """
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, JsonLines)]
    if not handlers:
        return
    ours = os.fdopen(os.dup(STDERR), "w", buffering=1)
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(ours)
    read_end, write_end = os.pipe()
    os.dup2(write_end, STDERR)
    os.close(write_end)
    threading.Thread(target=_log_lines, args=(read_end,), name="stderr", daemon=True).start()


def is_json() -> bool:
    """Return whether this process logs JSON lines."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def tell_identity(role: str, process_id: str) -> None:
    """Say which process writes the lines that follow."""
    _identity.update(role=role, process=process_id)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, pid, role and process; traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
            **_identity,
        }
        if record.exc_info and record.exc_info[1]:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's arguments do not fit its text; logging would print that as text
        return f"{record.msg} {record.args}"


def _log_lines(read_end: int) -> None:
    foreign = logging.getLogger("stderr")
    with open(read_end, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                foreign.info("%s", line.rstrip())


def _log_error(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):
        log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
