"""A file of rules that cannot be is refused with one line that names what is wrong; its schema is that of its types."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

import maskwatch
from events.addresses import BadReceiver, check_url, resolve
from events.rule_file import BadRules, load_rules, parse_rules
from events.rule_types import DEFAULT_RULES, NoMask, rules_schema

GOOD = """
timezone = "Europe/Berlin"
[[zones]]
name = "entrance"
camera = "door"
polygon = [[0.0, 0.2], [0.5, 0.2], [0.5, 1.0]]
[[rules]]
kind = "no_mask"
name = "bare"
zone = "entrance"
seconds = 7
[[webhooks]]
name = "office"
url = "https://example.com/events"
secret = "sixteen letters!"
rules = ["bare"]
"""


def test_a_file_of_rules_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(GOOD)

    rules = load_rules(file)

    assert rules.rules == [NoMask(name="bare", zone="entrance", seconds=7)]
    assert (rules.zones[0].camera, rules.webhooks[0].name) == ("door", "office")


def test_without_a_file_there_are_rules() -> None:
    assert load_rules(None) is DEFAULT_RULES


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('kind = "no_mask"', 'kind = "hat"', "rule 'bare': kind: Invalid value 'hat'"),
        ("seconds = 7", "seconds = -1", "rule 'bare': seconds"),
        ("seconds = 7", "secnods = 7", "rule 'bare': Object contains unknown field `secnods`"),
        ('name = "bare"', "", "rule 1: Object missing required field `name`"),
        ('zone = "entrance"', 'zone = "exit"', "rule 'bare': there is no zone 'exit'"),
        ("seconds = 7", 'cameras = ["yard"]', "rule 'bare': zone 'entrance' is of camera 'door' alone"),
        ("seconds = 7", 'hours = ["8-18"]', "rule 'bare': hours"),
        ("seconds = 7", 'weekdays = ["monday"]', "rule 'bare': weekdays"),
        ("[0.5, 1.0]]", "[0.5, 7.0]]", "zone 'entrance': polygon"),
        ("[0.5, 1.0]]", "[0.25, 0.2]]", "zone 'entrance': its polygon has no area"),
        ("[0.5, 1.0]]", "[0.0, 1.0], [0.5, 1.0]]", "its sides cross"),
        ("Europe/Berlin", "Europe/Bonn", "timezone: 'Europe/Bonn' is unknown"),
        ("Europe/Berlin", "../etc/passwd", "timezone"),
        ('rules = ["bare"]', 'rules = ["bear"]', "webhook 'office': there is no rule 'bear'"),
        ("sixteen letters!", "short", "webhook 'office': secret"),
        ("https://example.com/events", "ftp://example.com", "webhook 'office': its url is not http"),
        ("https://example.com/events", "https://example.com:99999/", "webhook 'office': its url cannot be parsed"),
        ("https://example.com/events", "http://me:secret@example.com/", "webhook 'office': its url holds a user"),
        ("https://example.com/events", "http://127.0.0.1/", "webhook 'office': 127.0.0.1 has the address"),
        ("https://example.com/events", "http://localhost:80/", "webhook 'office': its url leads to localhost"),
        ("[[webhooks]]", "[[rules]]\nkind = 'camera_back'\nname = 'bare'\n[[webhooks]]", "rule 'bare': the name is"),
        ("[[webhooks]]", "[webhooks]", "webhooks is not a list"),
        ("[[zones]]", "[[zones", "rules file"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(before: str, after: str, says: str, tmp_path: Path) -> None:
    assert before in GOOD
    file = tmp_path / "rules.toml"
    file.write_text(GOOD.replace(before, after))

    done = CliRunner().invoke(maskwatch.cli, ["record", "--rules", str(file), "--redis", "redis://127.0.0.1:1"])

    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert says in line
    assert str(file) in line
    assert "secret@" not in line


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "no text"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    if content:
        file.write_bytes(content)

    with pytest.raises(BadRules, match=r"rules file .*rules\.toml"):
        load_rules(file)


@pytest.mark.parametrize(
    "url",
    ["nosql://x", "sqlite:///", "sqlite://", "mysql://a@b/c", "postgresql://", "sqlite:///:memory:"],
)
def test_a_database_that_cannot_be_is_refused_in_one_line(url: str) -> None:
    done = CliRunner().invoke(maskwatch.cli, ["record", "--database", url, "--redis", "redis://127.0.0.1:1"])

    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert "--database" in line


def test_the_schema_accepts_what_is_accepted() -> None:
    schema = rules_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(GOOD.replace("seconds = 7", "seconds = -1")), schema)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.1.2.3", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0"),  # noqa: S104
        *("[::1]", "[fe80::1]", "[fd00::1]", "[fec0::1]", "[::a00:1]", "[::ffff:10.0.0.1]", "[2002:a00:1::]"),
        *("[64:ff9b::a00:1]", "[64:ff9b:1::1]", "224.0.0.1"),
    ],
)
def test_addresses_of_the_own_network_are_refused(address: str) -> None:
    with pytest.raises(BadReceiver, match="not on the public Internet"):
        check_url(f"https://{address}/", allow_private=False)


@pytest.mark.parametrize("address", ["2130706433", "0x7f.1", "127.1"])
def test_other_ways_to_write_an_address_are_refused_when_it_is_used(address: str) -> None:
    with pytest.raises(BadReceiver, match="not on the public Internet"):
        resolve(address, 80, allow_private=False)


def test_an_address_of_the_own_network_may_be_allowed() -> None:
    assert check_url("http://10.0.0.1:8080/x", allow_private=True).port == 8080
    assert resolve("127.0.0.1", 80, allow_private=True) == "127.0.0.1"
    assert parse_rules("").rules == []
