"""The life of a process: camera leases, lost connections to Redis, stuck loops, JSON logs."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import pytest
import redis
from conftest import Server, wait_until
from prometheus_client import REGISTRY

from pipeline.bus import keys, messages
from pipeline.bus.connection import Redis, Unreachable, check_reachable, connect
from pipeline.bus.leases import Lease, NameTaken
from pipeline.bus.messages import AnnouncedModel
from pipeline.runtime.children import SUPERVISE_INTERVAL_S
from pipeline.runtime.settings import Settings
from pipeline.runtime.stop_signals import SIGNALS, calling_on_stop_signals
from pipeline.runtime.watchdog import STUCK_S, Watchdog
from pipeline.runtime.worker_context import KICK_INTERVAL_S, QUIET_FAILURES, WorkerContext, worker_context
from workers import detect
from workers.detect import ActiveModelCache

FIRST = AnnouncedModel(version="first", crop_px=112, margin=0.1)
ANNOUNCED = AnnouncedModel(version="announced", crop_px=96, margin=0.2)


def test_a_name_in_use_is_rejected_with_its_holder(server: Server) -> None:
    with (
        worker_context("camera", Settings(redis_url=server.url)) as first,
        worker_context("camera", Settings(redis_url=server.url)) as second,
    ):
        holder = Lease(first.bus.shard_of("door"), "door", first.wait)
        holder.acquire()
        holder.keep_renewing()

        with pytest.raises(NameTaken, match=r"'door' is published by process \d+ on "):
            Lease(second.bus.shard_of("door"), "door", second.wait).acquire()

        holder.release()


def test_a_released_name_is_free_at_once(server: Server) -> None:
    with worker_context("camera", Settings(redis_url=server.url)) as context:
        shard = context.bus.shard_of("door")
        first, second = Lease(shard, "door", context.wait), Lease(shard, "door", context.wait)
        first.acquire()
        first.release()

        second.acquire()

        assert server.client.get("{s0}:lease:door") == second.token
        second.release()


@pytest.mark.parametrize("left_ms", [1_000, 600_000], ids=["in time", "with a clock that was set back"])
def test_the_name_of_a_holder_that_died_is_free_after_its_lease(server: Server, left_ms: int) -> None:
    died = messages.encode(messages.LeaseHolder(host="there", pid=1, token="x"))
    server.client.set("{s0}:lease:door", died, px=left_ms)

    with worker_context("camera", Settings(redis_url=server.url)) as context:
        lease = Lease(context.bus.shard_of("door"), "door", context.wait)
        lease.acquire()

        assert server.client.get("{s0}:lease:door") == lease.token
        lease.release()


def test_a_lost_redis_is_logged_once_and_so_is_the_recovery(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        for _ in range(7):
            with context.reconnecting():
                raise redis.ConnectionError("away")
        with context.reconnecting():
            context.client.ping()

    texts = [record.message for record in caplog.records if "Redis" in record.message]
    assert sum("no Redis answers" in text for text in texts) == 1
    assert sum("answers again" in text for text in texts) == 1


def test_a_short_failure_of_redis_is_not_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        with context.reconnecting():
            raise redis.ConnectionError("away")
        with context.reconnecting():
            context.client.ping()

    assert [r.message for r in caplog.records if "no Redis" in r.message or "again" in r.message] == []


def test_an_unreachable_redis_is_reported_with_its_location_and_without_its_password() -> None:
    url = "redis://:secret@127.0.0.1:1/0"

    with pytest.raises(Unreachable, match=r"no Redis answers at redis://:\*\*\*@127\.0\.0\.1:1") as error:
        check_reachable(connect(url), url)

    assert "secret" not in str(error.value)


def test_a_busy_redis_is_logged_once_and_so_is_the_recovery(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(detect, "MODEL_POLL_INTERVAL_S", 0.0)
    server.client.config_set("busy-reply-threshold", 50)
    cache, hanging = ActiveModelCache(FIRST), connect(server.url)
    script = threading.Thread(target=run_for_ever, args=(hanging,))
    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        script.start()
        wait_until(lambda: is_busy(server), 10, "Redis runs a script that does not end")
        for _ in range(QUIET_FAILURES + 2):
            with context.reconnecting():
                cache.get(context)
        server.client.script_kill()
        script.join()
        wait_until(lambda: not is_busy(server), 10, "the script has ended")
        with context.reconnecting():
            cache.get(context)

    texts = [record.message for record in caplog.records if not record.message.startswith(context.id)]
    assert ["runs a script" in text for text in texts] == [True, False]
    assert "answers again" in texts[1]
    hanging.close()


def test_an_invalid_announcement_is_logged_once_and_so_is_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(detect, "MODEL_POLL_INTERVAL_S", 0.0)
    cache = ActiveModelCache(FIRST)
    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        server.client.lpush(keys.MODEL, "a list")
        meanwhile = [cache.get(context) for _ in range(3)]
        server.client.delete(keys.MODEL)
        server.client.set(keys.MODEL, b"junk")
        meanwhile += [cache.get(context) for _ in range(3)]
        server.client.set(keys.MODEL, messages.encode(ANNOUNCED))
        after = [cache.get(context) for _ in range(3)]

    assert (meanwhile, after) == ([FIRST] * 6, [ANNOUNCED] * 3)
    texts = [record.message for record in caplog.records if f"key {keys.MODEL}" in record.message]
    assert ["ignored until it is valid again" in text for text in texts] == [True, False]
    assert "is valid again" in texts[1]


def test_a_user_who_may_not_read_announcements_is_logged_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detect, "MODEL_POLL_INTERVAL_S", 0.0)
    server.client.execute_command("ACL", "SETUSER", "default", "-get")
    cache = ActiveModelCache(FIRST)

    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        for _ in range(QUIET_FAILURES + 2):
            with context.reconnecting():
                cache.get(context)

    (text,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "denies this user the command" in text


def run_for_ever(client: Redis) -> None:
    with contextlib.suppress(redis.RedisError):  # until somebody ends it
        client.eval("while true do end", 0)


def is_busy(server: Server) -> bool:
    try:
        return not server.client.ping()
    except redis.ResponseError:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all intervals from seconds to tenths."""
    monkeypatch.setattr("pipeline.runtime.worker_context.KICK_INTERVAL_S", 0.05)
    for name, value in (("INTERVAL_S", 0.05), ("STUCK_S", 0.5), ("TTL_MS", 500)):
        monkeypatch.setattr("pipeline.runtime.heartbeat." + name, value)


def lives(server: Server, context: WorkerContext) -> bool:
    return server.client.exists(f"{{all}}:heartbeat:{context.id}") == 1


def test_a_stuck_process_sends_no_heartbeat(server: Server, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    noticed = threading.Event()

    def look() -> None:
        age_s = "maskwatch_loop_age_seconds"
        wait_until(
            lambda: (REGISTRY.get_sample_value(age_s) or 0) > 0.5 and not lives(server, context), 10, "it is noticed"
        )
        noticed.set()

    with worker_context("detector", Settings(redis_url=server.url)) as context:
        wait_until(lambda: context.should_run() and lives(server, context), 10, "it lives while its loop runs")
        threading.Thread(target=look).start()

        assert noticed.wait(15)
        wait_until(lambda: context.should_run() and lives(server, context), 10, "it lives again when its loop runs")

    stuck = [record.message for record in caplog.records if "is stuck" in record.message]
    assert "in test_a_stuck_process" in stuck[-1]
    assert any("no longer stuck" in record.message for record in caplog.records)


def test_a_loop_that_waits_kicks_the_watchdog(server: Server, quick: None) -> None:
    with worker_context("camera", Settings(redis_url=server.url), heartbeat=False) as context:
        seconds = itertools.count()
        context.watchdog = Watchdog(lambda: float(next(seconds)))
        context.should_run()

        def poll() -> None:
            """Poll until the loop has kicked, so that a poll returns a smaller age than the one before."""
            ages = [0.0, 0.0]
            while ages[-1] >= ages[-2]:
                ages.append(context.watchdog.poll())
            context.request_stop()

        threading.Thread(target=poll).start()

        assert context.wait(60)


def test_a_wait_ends_when_the_process_should(server: Server) -> None:
    with worker_context("camera", Settings(redis_url=server.url), heartbeat=False) as context:
        threading.Timer(0.1, context.request_stop).start()

        assert context.wait(60)


def test_the_age_of_a_loop_is_the_time_since_its_last_kick() -> None:
    now = [0.0]
    watchdog = Watchdog(lambda: now[0])
    watchdog.kick()

    ages = []
    for now[0] in (1.0, 2.0, 3.0):
        ages.append(watchdog.poll())
    watchdog.kick()

    assert (ages, watchdog.poll()) == ([1.0, 2.0, 3.0], 0.0)


def test_a_process_that_was_suspended_is_not_stuck() -> None:
    now = [0.0]
    watchdog = Watchdog(lambda: now[0])
    watchdog.kick()

    now[0] = 3600.0

    assert watchdog.poll() < STUCK_S


def test_the_slowest_loop_counts_and_other_threads_do_not() -> None:
    now = [0.0]
    watchdog, begun, go_on = Watchdog(lambda: now[0]), threading.Event(), threading.Event()

    def stand() -> None:
        with watchdog.monitor():
            begun.set()
            go_on.wait()

    threads = [threading.Thread(target=stand), threading.Thread(target=watchdog.kick)]
    for thread in threads:
        thread.start()
    begun.wait()
    threads[1].join()
    now[0] = 2.0
    watchdog.poll()
    watchdog.kick()

    assert watchdog.poll() == 2.0
    assert "wait (threading.py" in watchdog.slowest_stack()
    go_on.set()
    threads[0].join()
    assert watchdog.poll() == 0.0


def test_a_reconnect_is_counted(server: Server) -> None:
    before = REGISTRY.get_sample_value("maskwatch_redis_reconnects_total") or 0
    with worker_context("detector", Settings(redis_url=server.url), heartbeat=False) as context:
        for _ in range(2):
            with context.reconnecting():
                raise redis.ConnectionError("away")
        away = REGISTRY.get_sample_value("maskwatch_redis_up")
        with context.reconnecting():
            context.client.ping()

    assert REGISTRY.get_sample_value("maskwatch_redis_reconnects_total") == before + 1
    assert (away, REGISTRY.get_sample_value("maskwatch_redis_up")) == (0, 1)


SIGNALLED_WHILE_WAITING = r"""
import signal, sys, threading
WAIT_S = float(sys.argv[1])
def trace(frame, event, argument):
    return in_wait(frame) if frame.f_code is threading.Event.wait.__code__ else None
def in_wait(frame):
    lines = []
    def at_line(frame, event, argument):
        lines.append(event)
        # the first line of Event.wait takes the Event's lock; the second runs while it is held
        if lines == ["line", "line"] and frame.f_locals["timeout"] == WAIT_S:
            sys.settrace(None)
            print("signalled", flush=True)
            signal.raise_signal(signal.SIGTERM)
        return at_line
    return at_line
sys.settrace(trace)
"""

WAITING_WORKER = r"""
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import worker_context
with worker_context("detector", Settings(redis_url=sys.argv[2]), heartbeat=False) as context:
    print("waited" if context.wait(60) else "timed out", flush=True)
"""

PIPELINE = r"""
from maskwatch import main
sys.argv[1:] = ["up", "--port", "0", "--redis", sys.argv[2]]
main()
"""


@pytest.mark.parametrize(
    ("program", "wait_s", "said"),
    [(WAITING_WORKER, KICK_INTERVAL_S, ["signalled", "waited"]), (PIPELINE, SUPERVISE_INTERVAL_S, ["signalled"])],
    ids=["worker", "up"],
)
def test_a_stop_signal_while_the_main_thread_holds_the_lock_of_its_event_ends_the_process(
    server: Server, program: str, wait_s: float, said: list[str]
) -> None:
    command = [sys.executable, "-c", SIGNALLED_WHILE_WAITING + program, str(wait_s), server.url]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            ended, _ = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    assert [line for line in ended.splitlines() if not line.startswith("Viewer")] == said
    assert process.returncode == 0


def test_a_stop_signal_is_reported_in_another_thread_and_the_handlers_before_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    called: list[str] = []

    with calling_on_stop_signals(lambda: called.append(threading.current_thread().name)):
        for number in SIGNALS:
            signal.raise_signal(number)
        wait_until(lambda: len(called) == 2, 5, "both signals are reported")

    assert called == ["signals", "signals"]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_stop_signal_to_a_fork_does_not_stop_its_parent() -> None:
    called: list[int] = []

    with calling_on_stop_signals(lambda: called.append(1)):
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        os.waitpid(child, 0)

    assert called == []


TROUBLE = r"""
import gc, logging, sys, threading, warnings
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import worker_context
configure_logging(as_json=True)
logging.getLogger("test").info("before")
class Unlucky:
    def __del__(self):
        raise RuntimeError("in a destructor")
with worker_context("detector", Settings(redis_url=sys.argv[1])):
    warnings.warn("a warning\nof two lines")
    logging.getLogger("rq.worker").warning("of a %s library", "foreign")
    logging.getLogger("test").error("wrong arguments %d", "one", "two")
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    Unlucky()
    try:
        raise ValueError("boo \u2603")
    except ValueError:
        logging.getLogger("test").exception("frame %s", "door:1:2")
raise KeyError("nobody catches this")
"""


def test_as_json_nothing_is_written_but_json_lines(server: Server) -> None:
    ended = subprocess.run([sys.executable, "-c", TROUBLE, server.url], capture_output=True, text=True)

    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    found = [(line["level"], line["logger"], line["message"].partition("\n")[0]) for line in lines]
    assert (ended.returncode, found[0]) == (1, ("INFO", "test", "before"))
    assert ("WARNING", "rq.worker", "of a foreign library") in found
    assert ("ERROR", "test", "wrong arguments %d ('one', 'two')") in found
    assert ("CRITICAL", "pipeline.runtime.logs", "ZeroDivisionError: division by zero") in found
    assert ("CRITICAL", "pipeline.runtime.logs", "RuntimeError: in a destructor") in found
    assert found[-1] == ("CRITICAL", "pipeline.runtime.logs", "KeyError: 'nobody catches this'")
    (warned,) = [line for line in lines if line["logger"] == "py.warnings"]
    assert "a warning\nof two lines" in warned["message"]
    (caught,) = [line for line in lines if line["message"] == "frame door:1:2"]
    assert "ValueError: boo \u2603" in caught["traceback"]
    assert (caught["role"], caught["process"].partition("-")[0]) == ("detector", "detector")
    assert all(datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0) for line in lines)


FOREIGN = r"""
import logging, os, sys
from pipeline.runtime.logs import configure_logging, capture_stderr
configure_logging(as_json=True)
capture_stderr()
if os.fork() == 0:
    logging.getLogger("horse").info("from a fork")
    os.system("echo; echo native of a fork 1>&2; printf '\\377' 1>&2; echo no text 1>&2")
    os._exit(0)
os.wait()
sys.stdin.read()
"""


def test_what_native_libraries_of_a_trainers_fork_write_becomes_json_lines_too() -> None:
    command = [sys.executable, "-c", FOREIGN]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        assert process.stderr
        lines = [json.loads(process.stderr.readline()) for _ in range(3)]
        process.stdin.close()
        rest = process.stderr.read()

    assert [(line["logger"], line["message"]) for line in lines] == [
        ("horse", "from a fork"),
        ("stderr", "native of a fork"),
        ("stderr", "\ufffdno text"),
    ]
    assert rest == ""
