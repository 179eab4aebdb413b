"""A dedicated connection is kept, gives each command its own answer, and opens the connection again."""

from __future__ import annotations

import pytest
import redis
from conftest import Server

from pipeline.bus.dedicated_connection import DedicatedConnection


def test_each_command_gets_its_own_answer_also_after_an_error(server: Server) -> None:
    connection = DedicatedConnection(server.client)

    text, error, number = connection.execute_commands(("SET", "a", "text"), ("INCR", "a"), ("INCR", "b"))

    assert (text, number) == (b"OK", 1)
    assert isinstance(error, redis.ResponseError)
    with pytest.raises(redis.ResponseError, match="not an integer"):
        connection.execute_command("INCR", "a")
    assert connection.execute_command("INCR", "b") == 2


def test_a_connection_keeps_one_connection(server: Server) -> None:
    connection = DedicatedConnection(server.client)

    ids = [connection.execute_command("CLIENT", "ID") for _ in range(3)]

    assert len(set(ids)) == 1


def test_a_connection_that_was_closed_during_a_pause_is_opened_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bus.dedicated_connection.CHECK_AFTER_S", -1)
    connection = DedicatedConnection(server.client)
    before = connection.execute_command("CLIENT", "ID")
    server.client.client_kill_filter(_id=before)

    assert connection.execute_command("CLIENT", "ID") != before


def test_connections_that_are_not_used_any_more_give_their_connections_back(server: Server) -> None:
    ids = {DedicatedConnection(server.client).execute_command("CLIENT", "ID") for _ in range(300)}

    assert len(ids) == 300
    assert len(server.client.client_list()) < 10


def test_a_connection_that_was_cut_fails_once_and_is_opened_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bus.dedicated_connection.CHECK_AFTER_S", float("inf"))
    connection = DedicatedConnection(server.client)
    before = connection.execute_command("CLIENT", "ID")
    server.client.client_kill_filter(_id=before)

    with pytest.raises(redis.ConnectionError):
        connection.execute_command("PING")

    assert connection.execute_command("CLIENT", "ID") != before


def test_an_answer_that_came_too_late_is_not_that_of_the_next_command(server: Server) -> None:
    client = redis.Redis(unix_socket_path=server.url.removeprefix("unix://"), socket_timeout=0.05)
    connection = DedicatedConnection(client)

    with pytest.raises(redis.TimeoutError):
        connection.execute_commands(("BLPOP", "empty", 0.2), ("ECHO", "late"))

    assert connection.execute_command("ECHO", "next") == b"next"
    client.close()


def test_a_deferred_command_is_sent_with_the_next_one_and_before_it(server: Server) -> None:
    connection, answers = DedicatedConnection(server.client), []

    connection.defer(("INCR", "a"), answers.append)
    before = server.client.get("a")

    assert connection.execute_command("INCR", "a") == 2
    assert (before, answers) == (None, [1])


def test_a_deferred_command_is_sent_by_a_flush_once(server: Server) -> None:
    connection, answers = DedicatedConnection(server.client), []

    connection.defer(("INCR", "a"), answers.append)
    connection.flush()
    connection.flush()

    assert answers == [1]


def test_a_deferred_command_survives_a_lost_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bus.dedicated_connection.CHECK_AFTER_S", float("inf"))
    connection, answers = DedicatedConnection(server.client), []
    server.client.client_kill_filter(_id=connection.execute_command("CLIENT", "ID"))
    connection.defer(("INCR", "a"), answers.append)

    with pytest.raises(redis.ConnectionError):
        connection.flush()

    assert connection.execute_command("GET", "a") == b"1"
    assert answers == [1]


def test_an_error_of_a_deferred_command_is_raised_by_the_next_one_and_costs_no_other_answer(server: Server) -> None:
    connection, answers = DedicatedConnection(server.client), []
    server.client.set("text", "text")
    connection.defer(("INCR", "text"), lambda answer: answer)
    connection.defer(("INCR", "a"), answers.append)

    with pytest.raises(redis.ResponseError, match="not an integer"):
        connection.execute_command("PING")

    assert answers == [1]
    assert connection.execute_command("PING") == b"PONG"
