"""Why an attempt at a job failed, in one line for people, and whether there is another attempt.

note() is rq's exception handler: it is called in the work horse for what the training raised, and in the trainer for a
horse that died and for a job that another trainer left. What the user must mend is not tried again. The line stands in
the job's meta: under `error` when it was the last attempt, else at the end of `interrupted`.
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

MAX_CHARACTERS = 500


class HorseDied(Exception):
    """The process that trained ended before it could say why; the message says what is known."""


def note(job: Job, kind: type[BaseException], error: BaseException, _trace: TracebackType | None = None) -> None:
    """Write into a job's meta why an attempt failed; let it be the last one if another would meet the same."""
    if is_final(error):
        job.retries_left = 0
        job.meta["error"] = one_line(job, kind, error)
    elif job.should_retry:
        job.meta.setdefault("interrupted", []).append(one_line(job, kind, error))
    else:
        job.meta["error"] = f"{one_line(job, kind, error)}; given up after {RETRIES} more attempts"
    job.save_meta()  # type: ignore[no-untyped-call]


def is_final(error: BaseException) -> bool:
    """Return whether another attempt would meet the same: the user must mend it. A registry may answer again."""
    return isinstance(error, ValueError | ModelUnusable | JobTimeoutException) and not isinstance(error, StoreFailed)


def one_line(job: Job, kind: type[BaseException], error: BaseException) -> str:
    """Return an error as one line for people."""
    text = " ".join(str(error).split())[:MAX_CHARACTERS]
    if isinstance(error, AbandonedJobError):
        return "its trainer died, or could not reach Redis"
    if isinstance(error, JobTimeoutException):
        return f"it took longer than {(job.timeout or 0) / 3600:g} h: enqueue it with a higher --time-limit-h"
    if isinstance(error, ValueError | ModelUnusable | HorseDied) and text:
        return text
    return f"{kind.__name__}: {text}"


def how_it_died(status: int) -> str:
    """Say in words how a process ended, by what waitpid() tells."""
    if not os.WIFSIGNALED(status):
        return f"the training process ended with status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    hint = ", perhaps for want of memory" if number == signal.SIGKILL else ""
    return f"the training process was ended by signal {number} ({signal.strsignal(number)}){hint}"
