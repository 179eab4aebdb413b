"""Workers that are forked: their names, environment and ends, and a fork server that dies or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import Server, wait_until
from processes import gone, live

from pipeline.bus.status import read_heartbeats
from pipeline.runtime.children import ChildFailed, Children, fork_server, spawn
from pipeline.runtime.fork_server import ForkServer, StartFailed

QUIET = {"MASKWATCH_LOG_LEVEL": "warning"}


@pytest.fixture
def parent() -> Iterator[Connection]:
    """A pipe that stays open."""
    read_end, write_end = Pipe(duplex=False)
    yield read_end
    read_end.close()
    write_end.close()


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    """A fork server that has imported its modules."""
    with fork_server() as found:
        yield found


def test_a_forked_worker_is_a_child_with_the_name_of_its_subcommand_and_a_session_of_its_own(
    server: Server, forks: ForkServer
) -> None:
    with Children(forks) as children:
        children.start("detect", "--log-level", "warning", environment={"MASKWATCH_REDIS_URL": server.url})
        wait_until(lambda: live(server, "detector"), 30, "a detector lives")
        (pid,) = children.pids("detect")

        assert command(pid).startswith("maskwatch detect --log-level warning --parent-fd ")
        assert parent_of(pid) == os.getpid()
        assert os.getsid(pid) == pid
        assert [beat.pid for beat in read_heartbeats(server.client)] == [pid]
    assert gone([pid])


def test_a_forked_worker_has_the_environment_of_now_and_not_that_of_the_fork_server(
    server: Server, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWATCH_THREADS", "no number")
    with Children(forks) as children:
        children.start("detect", environment={"MASKWATCH_REDIS_URL": server.url})
        with pytest.raises(ChildFailed, match="detect"):
            wait_until(lambda: children.supervise() is not None, 30, "it cannot start")

    monkeypatch.setenv("MASKWATCH_THREADS", "1")
    with Children(forks) as children:
        children.start("detect", environment=QUIET | {"MASKWATCH_REDIS_URL": server.url})
        wait_until(lambda: live(server, "detector"), 30, "another one starts")


def test_the_status_of_a_forked_process_is_that_of_its_subcommand_or_of_its_signal(
    server: Server, tmp_path: Path, parent: Connection, forks: ForkServer
) -> None:
    environment = os.environ | {"MASKWATCH_REDIS_URL": server.url}
    nowhere = str(tmp_path / "nothing")

    done = forks.start(["detect", "--help"], parent.fileno(), environment)
    misused = forks.start(["detect", "--no-such-flag"], parent.fileno(), environment)
    failed = forks.start(["classify", "--models", nowhere], parent.fileno(), environment)
    killed = forks.start(["detect"], parent.fileno(), environment)
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(0.01)
    killed.send_signal(signal.SIGKILL)

    assert [process.wait(30) for process in (done, misused, failed, killed)] == [0, 2, 1, -signal.SIGKILL]
    killed.send_signal(signal.SIGKILL)  # it has ended: nothing happens


def test_an_error_of_the_system_that_ends_a_forked_process_is_told_as_it_is(tmp_path: Path, parent: Connection) -> None:
    program = (
        "import sys; from pipeline.runtime import fork_server\n"
        "def fail(*_, **__): raise PermissionError(13, 'Permission denied', '/etc/tokens')\n"
        "fork_server.runpy.run_module = fail; fork_server.serve_forks(int(sys.argv[1]))"
    )
    with (
        (tmp_path / "errors").open("wb") as errors,
        ForkServer(
            lambda fd: subprocess.Popen([sys.executable, "-c", program, str(fd)], pass_fds=[fd], stderr=errors)
        ) as forks,
    ):
        status = forks.start(["view"], parent.fileno(), os.environ).wait(30)

    assert status == 1
    assert (tmp_path / "errors").read_text().endswith("PermissionError: [Errno 13] Permission denied: '/etc/tokens'\n")


def test_a_forked_worker_ends_when_the_other_end_of_its_pipe_closes(server: Server, forks: ForkServer) -> None:
    read_end, write_end = Pipe(duplex=False)
    process = forks.start(["detect"], read_end.fileno(), os.environ | QUIET | {"MASKWATCH_REDIS_URL": server.url})
    wait_until(lambda: live(server, "detector"), 30, "a detector lives")

    write_end.close()

    assert process.wait(30) == 0
    read_end.close()


def test_workers_go_on_without_the_fork_server_and_the_next_one_is_forked_by_another(server: Server) -> None:
    environment = QUIET | {"MASKWATCH_REDIS_URL": server.url}
    with fork_server() as forks, Children(forks) as children:
        children.start("detect", environment=environment)
        wait_until(lambda: live(server, "detector"), 30, "a detector lives")
        before, (first,) = forks.pid, children.pids("detect")
        assert before is not None

        os.kill(before, signal.SIGKILL)
        children.start_another("detect")
        wait_until(lambda: live(server, "detector", 2), 30, "another detector lives")
        children.supervise()

        assert {beat.pid for beat in read_heartbeats(server.client)} == children.pids("detect")
        assert first in children.pids("detect")
        assert forks.pid not in (before, None)


def test_a_fork_server_that_hangs_is_replaced_and_meanwhile_a_new_interpreter_is_the_worker(
    server: Server, parent: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    environment = QUIET | {"MASKWATCH_REDIS_URL": server.url}
    with ForkServer(lambda fd: spawn(["fork-children"], fd, {}), timeout_s=0.5) as forks, Children(forks) as children:
        assert forks.pid is not None
        os.kill(forks.pid, signal.SIGSTOP)

        children.start("detect", environment=environment)
        wait_until(lambda: live(server, "detector"), 30, "a detector lives")

        (pid,) = children.pids("detect")
        assert "python" in command(pid)
    assert "the fork server failed: timed out; a new interpreter runs detect" in caplog.text


def test_a_fork_server_that_cannot_start_anything_says_so(parent: Connection) -> None:
    with (
        ForkServer(lambda fd: spawn(["no-such-command"], fd, {}), timeout_s=10) as forks,
        pytest.raises(StartFailed, match="the fork server failed"),
    ):
        forks.start(["detect"], parent.fileno(), os.environ)


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_killed_children_are_gone_at_once_and_none_is_restarted(server: Server, forks: ForkServer) -> None:
    with Children(forks) as children:
        for command_name in ("detect", "classify"):
            children.start(command_name, environment=QUIET | {"MASKWATCH_REDIS_URL": server.url})
        wait_until(lambda: live(server, "detector") and live(server, "classifier"), 30, "both live")
        pids = [*children.pids("detect"), *children.pids("classify")]

        children.kill()

        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert gone(pids)
