"""Which commands of the documentation run beside a running demo, and why the others do not.

Each command of README.md and docs/ begins like exactly one of these; the longest beginning counts. A new command that
begins like none of them fails a test of tests/test_beside_a_demo.py: add it where it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from documented import Command, block_commands, inline_commands

# They end by themselves, with status 0.
RUN = (
    "maskwatch check",
    "maskwatch dead",
    "maskwatch deliveries list",
    "maskwatch demo --help",
    "maskwatch events",
    "maskwatch health",
    "maskwatch jobs",
    "maskwatch label",
    "maskwatch models",
    "maskwatch rules",
    "maskwatch status",
    "maskwatch tokens",
    "maskwatch train --help",
    "maskwatch train faces --out runs/next --queue",
    "maskwatch --help",
    "curl -sS",
)
SET = ("export",)  # variables of the commands behind it
# Of those that run, the only ones that may print nothing: a file, and lists for programs.
MAY_BE_SILENT = ("curl -sS --fail -o", "maskwatch events --camera", "maskwatch deliveries list")
NOT_RUN = {
    "runs until it is stopped; test_process.py and test_label.py start each": (
        "maskwatch camera",
        "maskwatch classify",
        "maskwatch --config maskwatch.toml demo",
        "maskwatch demo",
        "maskwatch detect",
        "maskwatch record",
        "maskwatch trainer",
        "maskwatch up",
        "maskwatch view",
    ),
    "shows metrics of a detector that runs until it is stopped; test_metrics.py": (
        "curl http://127.0.0.1:9400/metrics",
    ),
    "trains for minutes to hours; test_training.py, test_trainer.py": ("maskwatch train", "python -m trainer"),
    "breaks pipelines for minutes; test_chaos.py": ("maskwatch chaos",),
    "asks for a password; test_docs.py answers": ("maskwatch password",),
    "asks the network for cameras; test_discover.py has some": ("maskwatch discover",),
    "needs a delivery that failed; test_deliveries.py": ("maskwatch deliveries replay",),
    "needs a camera that is out of use; test_forgetting.py": ("maskwatch forget",),
    "measures or fuzzes for minutes": (
        "make bench",
        "make fuzz",
        "pytest",
        "python -m bench",
        "python -m pytest",
    ),
    "changes the checkout": (
        "git pull",
        "make certificates",
        "make demo",
        "make env",
        "make format",
        "make lint",
        "make lock",
        "make setup",
        "make setup-dev",
        "make test",
        ".",
    ),
    "needs Docker; test_compose.py": ("docker",),
    "needs Kubernetes; test_kubernetes.py": ("grep", "kubectl", "printf", "sed"),
}


def is_run(command: Command) -> bool:
    """Return whether a command runs beside a demo."""
    return _kind(command) in RUN


def is_set(command: Command) -> bool:
    """Return whether a command sets a variable."""
    return _kind(command) in SET


def is_classified(command: Command) -> bool:
    """Return whether a command begins like one of those that are known here."""
    return _kind(command) is not None


def commands_of(page: str) -> Iterator[Command]:
    """Yield the commands of a page: those of its blocks in their order, then those in its text with arguments."""
    yield from block_commands(page)
    yield from (command for command in inline_commands(page) if not command.is_name)


def _kind(command: Command) -> str | None:
    words = " ".join(command.words).replace(".venv/bin/", "", 1)
    known = [*RUN, *SET, *(kind for kinds in NOT_RUN.values() for kind in kinds)]
    found = [kind for kind in known if re.match(rf"{re.escape(kind)}(?![\w-])", words)]
    return max(found, key=len, default=None)
