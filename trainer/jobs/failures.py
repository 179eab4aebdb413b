"""Record why an attempt at a job failed, as one line of text, and decide whether there is another attempt.

record_failure() is rq's exception handler: it is called in the work horse for an exception of the training, and in the
trainer for a horse that died and for a job that another trainer abandoned. A failure that only the user can correct is
not retried. The line is written to the job's meta: as `error` after the last attempt, else appended to `interrupted`.
"""

from __future__ import annotations

import os
import signal
from types import TracebackType

from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.timeouts import JobTimeoutException

from models.files import ModelUnusable
from models.registry.store import StoreFailed
from trainer.jobs.job_spec import RETRIES

MAX_MESSAGE_CHARS = 500


class HorseDied(Exception):
    """The training process ended without an exception; the message is its exit status in words."""


def record_failure(
    job: Job, kind: type[BaseException], error: BaseException, _trace: TracebackType | None = None
) -> None:
    """Write into a job's meta why an attempt failed; prevent further attempts if they would fail too."""
    if is_permanent(error):
        job.retries_left = 0
        job.meta["error"] = one_line_error(job, kind, error)
    elif job.should_retry:
        job.meta.setdefault("interrupted", []).append(one_line_error(job, kind, error))
    else:
        job.meta["error"] = f"{one_line_error(job, kind, error)}; given up after {RETRIES} more attempts"
    job.save_meta()


def is_permanent(error: BaseException) -> bool:
    """Return whether another attempt would fail too, until the user corrects something. A registry may recover."""
    return isinstance(error, ValueError | ModelUnusable | JobTimeoutException) and not isinstance(error, StoreFailed)


def one_line_error(job: Job, kind: type[BaseException], error: BaseException) -> str:
    """Return an error as one line of text."""
    text = " ".join(str(error).split())[:MAX_MESSAGE_CHARS]
    if isinstance(error, AbandonedJobError):
        return "its trainer died, or could not reach Redis"
    if isinstance(error, JobTimeoutException):
        return f"it took longer than {(job.timeout or 0) / 3600:g} h: enqueue it with a higher --time-limit-h"
    if isinstance(error, ValueError | ModelUnusable | HorseDied) and text:
        return text
    return f"{kind.__name__}: {text}"


def exit_reason(status: int) -> str:
    """Describe a wait status in words."""
    if not os.WIFSIGNALED(status):
        return f"the training process ended with status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    hint = ", possibly out of memory" if number == signal.SIGKILL else ""
    return f"the training process was ended by signal {number} ({signal.strsignal(number)}){hint}"
