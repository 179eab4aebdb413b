"""The life of a process: one name for one camera, Redis lost and found, JSON logs, children that stay up."""

from __future__ import annotations

import json
import logging

import pytest
import redis
from conftest import Server

from pipeline import messages
from pipeline.lease import Lease, NameTaken
from pipeline.process import Unreachable, check_reachable, configure_logging, connect, running


def test_a_name_in_use_is_refused_with_its_holder(server: Server) -> None:
    with running("camera", server.url) as first, running("camera", server.url) as second:
        holder = Lease(first, "door")
        holder.take()

        with pytest.raises(NameTaken, match=r"'door' is published by process \d+ on "):
            Lease(second, "door").take()

        holder.release()


def test_a_name_that_was_given_back_is_free_at_once(server: Server) -> None:
    with running("camera", server.url) as run:
        first, second = Lease(run, "door"), Lease(run, "door")
        first.take()
        first.release()

        second.take()

        assert server.client.get("lease:door") == second.token
        second.release()


def test_the_name_of_a_holder_that_died_is_free_after_its_lease(server: Server) -> None:
    died = messages.encode(messages.Holder(host="there", pid=1, token="x"))
    server.client.set("lease:door", died, px=1_000)

    with running("camera", server.url) as run:
        lease = Lease(run, "door")
        lease.take()

        assert server.client.get("lease:door") == lease.token
        lease.release()


def test_losing_redis_is_told_once_and_finding_it_again_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running("detector", server.url, heartbeat=False) as run:
        for _ in range(7):
            with run.reconnecting():
                raise redis.ConnectionError("away")
        with run.reconnecting():
            run.client.ping()

    texts = [record.message for record in caplog.records if "Redis at" in record.message]
    assert sum("failed" in text for text in texts) == 1
    assert sum("answers again" in text for text in texts) == 1


def test_a_moment_without_redis_is_not_worth_a_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running("detector", server.url, heartbeat=False) as run:
        with run.reconnecting():
            raise redis.ConnectionError("away")
        with run.reconnecting():
            run.client.ping()

    assert [r.message for r in caplog.records if "failed" in r.message or "again" in r.message] == []


def test_a_redis_that_is_not_there_is_told_with_its_place_and_without_its_password() -> None:
    url = "redis://:secret@127.0.0.1:1/0"

    with pytest.raises(Unreachable, match=r"no Redis answers at redis://:\*\*\*@127\.0\.0\.1:1") as error:
        check_reachable(connect(url), url)

    assert "secret" not in str(error.value)


def test_logs_can_be_json_lines_with_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    configure_logging(as_json=True)
    try:
        raise ValueError("boo")
    except ValueError:
        logging.getLogger("test").exception("frame %s", "door:1:2")
    finally:
        logging.getLogger().handlers[:] = before

    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["text"]) == ("ERROR", "frame door:1:2")
    assert "ValueError: boo" in line["traceback"]
