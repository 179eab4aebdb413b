"""Fuzz the decoders: `python -m bench.fuzz [--minutes M] [--seed S] [TARGET...]`. Exit status 1 if anything was found.

Each target runs in a process of its own, which a finding ends: an error that was not promised, a crash, or a round that
does not end. What was found is written to bench/out/fuzz, with its input and traceback, and the next round follows. One
round is repeated with `python -m bench.fuzz TARGET --seed S --round N`.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.fuzz.rounds import Round

TARGETS = ("message", "queue", "jpeg", "settings", "http", "socket", "sources", "annotations")
OUT = Path(__file__).parent.parent / "out" / "fuzz"
HUNG_S = 120.0  # a round that takes longer hangs
MAX_FINDINGS = 20  # of a target; then it is given up


@dataclass(slots=True)
class Tally:
    """What has happened to one target. kinds: how often each kind of finding came."""

    target: str
    seed: int
    rounds: int = 0
    executions: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def add_finding(self, text: str) -> None:
        """Count a finding, and save the first of its kind."""
        kind = kind_of(text)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if self.kinds[kind] > 1:
            return
        OUT.mkdir(parents=True, exist_ok=True)
        path = OUT / f"{self.target}-{self.seed}-{self.rounds}.txt"
        repeat = f"python -m bench.fuzz {self.target} --seed {self.seed} --round {self.rounds}"
        path.write_text(f"{repeat}\n\n{text}", errors="backslashreplace")
        print(f"{self.target}: {kind}\n  {path}\n  {repeat}", flush=True)


def main() -> int:
    """Run all targets, one after the other; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--round", type=int, help="run this round alone, in this process")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)  # for the process of a target
    args = parser.parse_args()
    if wrong := sorted(set(args.targets) - set(TARGETS)):
        parser.error(f"there is no target {', '.join(wrong)}; targets are {', '.join(TARGETS)}")
    if args.round is not None or args.first is not None:
        (target,) = args.targets
        run_rounds(target, args.seed, args.first, args.round)
        return 0
    print(f"seed {args.seed}", flush=True)
    tallies = [fuzz(target, args.seed, 60 * args.minutes) for target in args.targets or TARGETS]
    print(f"\n{'TARGET':<10} {'EXECUTIONS':>11} {'ROUNDS':>8} {'FINDINGS':>9}")
    for tally in tallies:
        print(f"{tally.target:<10} {tally.executions:>11} {tally.rounds:>8} {len(tally.kinds):>9}")
    return 1 if any(tally.kinds for tally in tallies) else 0


def fuzz(target: str, seed: int, seconds: float) -> Tally:
    """Run rounds of one target until the time has passed, in new processes after each finding."""
    tally, ends = Tally(target, seed), time.monotonic() + seconds
    while time.monotonic() < ends and sum(tally.kinds.values()) < MAX_FINDINGS:
        with tempfile.TemporaryFile() as errors:
            if _run_process(tally, ends, errors.fileno()):
                continue
            errors.seek(0)
            tally.add_finding(errors.read().decode(errors="backslashreplace"))
            tally.rounds += 1
    return tally


def run_rounds(target: str, seed: int, first: int | None, only: int | None) -> None:
    """Run one round, or all from the first on until stdin closes, at least one; print the executions of each."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    ready: AbstractContextManager[Round] = importlib.import_module(f"bench.fuzz.{target}").ready()
    ended = threading.Event()
    if only is None:
        threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    with ready as one_round:
        number = first or 0
        while True:
            number = number if only is None else only
            executions = one_round(random.Random(f"{seed} {target} {number}"))
            print(executions, flush=True)
            number += 1
            if only is not None or ended.is_set():
                return


def kind_of(text: str) -> str:
    """Return the line of a traceback that names the error, with numbers and quoted parts left out."""
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "input:", "Traceback"))]
    named = [line for line in lines if "Error" in line or "Exception" in line or "Promise" in line or "Fatal" in line]
    return (named or lines or ["ended without a word"])[-1][:200]


def _run_process(tally: Tally, ends: float, errors: int) -> bool:
    """Run rounds in a process until the time has passed; return False when it ended before, or hung."""
    command = [sys.executable, "-m", "bench.fuzz", tally.target, "--seed", str(tally.seed)]
    process = subprocess.Popen(
        [*command, "--first", str(tally.rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert process.stdin and process.stdout
    lines: queue.Queue[str] = queue.Queue()
    reading = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
    reading.start()
    begun = time.monotonic()
    while time.monotonic() < ends:
        try:
            tally.executions += int(lines.get(timeout=1.0))
        except queue.Empty:
            if process.poll() is not None:
                return False
            if time.monotonic() - begun > HUNG_S:
                process.send_signal(signal.SIGUSR1)  # writes where each thread is
                time.sleep(1.0)
                process.kill()
                process.wait()
                return False
        else:
            tally.rounds += 1
            begun = time.monotonic()
    process.stdin.close()
    try:
        ended_well = process.wait(HUNG_S) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    reading.join()
    while not lines.empty():
        tally.executions += int(lines.get())
        tally.rounds += 1
    return ended_well


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def _read_lines(stdout: Iterable[str], lines: queue.Queue[str]) -> None:
    for line in stdout:
        lines.put(line)


if __name__ == "__main__":
    sys.exit(main())
