"""Log to stderr: text for people, or one JSON object per line for programs. No line shows the password of a URL.

In JSON mode nothing else is written: warnings and uncaught errors, also those of threads, become lines too. What native
libraries write to stderr themselves is captured only where `capture_stderr` is called, which is the trainer.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from pipeline.runtime.redaction import redact

log = logging.getLogger(__name__)

STDERR = 2
FIELDS = ("asctime", "levelname", "name", "message", "process")
NAMES = {"asctime": "time", "levelname": "level", "name": "logger", "process": "pid", "exc_info": "traceback"}

Report = Callable[[type[BaseException], BaseException | None, TracebackType | None], None]  # of an uncaught error

_identity: dict[str, str] = {}


class _JsonLines(JsonFormatter):
    """Format a record as one JSON object: FIELDS by their NAMES, then role and process of `set_log_identity`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03d+00:00"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        record.msg, record.args = _message(record), None
        return super().format(record)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Hide passwords; add the identity after renaming: its field `process` is not the record's."""
        shown = {name: redact(value) if isinstance(value, str) else value for name, value in log_data.items()}
        return shown | _identity


class _TextLines(logging.Formatter):
    """Format a record for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback of an error below it."""
        return redact(super().format(record))


def configure_logging(*, as_json: bool, level: str = "INFO") -> None:
    """Log to stderr, as text or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(_JsonLines(FIELDS, rename_fields=NAMES))
    else:
        handler.setFormatter(_TextLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("werkzeug", "alembic"):  # alembic tells each look at the version of a schema
        logging.getLogger(name).setLevel(logging.WARNING)
    if as_json:
        logging.captureWarnings(True)
        _report_uncaught_errors(_log_error)


def hide_passwords_of_uncaught_errors() -> None:
    """Print errors that nothing catches, also those of threads, without the passwords in them."""
    _report_uncaught_errors(_print_error)


def capture_stderr() -> None:
    """Log as JSON lines what anything else writes to stderr from now on, including forked processes.

    Has an effect in JSON mode only. Only for a process that does no native work itself: a writer must not wait for a
    lock of the thread that reads, and its last output must not be lost with it.
    """
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, _JsonLines)]
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
    return any(isinstance(handler.formatter, _JsonLines) for handler in logging.getLogger().handlers)


def set_log_identity(role: str, process_id: str) -> None:
    """Set the role and process that the following JSON lines name."""
    _identity.update(role=role, process=process_id)


def _report_uncaught_errors(report: Report) -> None:
    sys.excepthook = report
    sys.unraisablehook = lambda found: report(found.exc_type, found.exc_value, found.exc_traceback)
    threading.excepthook = lambda found: report(found.exc_type, found.exc_value, found.exc_traceback)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's arguments do not match its format; logging would print that as text
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


def _print_error(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
