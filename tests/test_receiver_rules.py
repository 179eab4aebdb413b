"""Receivers in a file of rules: what cannot be is named in one line, and no secret is ever shown."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

import maskwatch
from events.receiver_types import read_secret
from events.rule_file import parse_rules
from events.rule_types import rules_schema

SECRET = "not-to-be-shown-to-anybody"  # noqa: S105 -- of no receiver
GOOD = f"""
public_url = "https://masks.example.com"
[[rules]]
kind = "no_mask"
name = "bare"
[[webhooks]]
name = "office"
url = "https://example.com/events"
secret = {{file = "/FOLDER/secret"}}
[[mqtt]]
name = "house"
host = "192.168.1.5"
allow_private_address = true
username = "me"
password = "{SECRET}"
[[emails]]
name = "staff"
host = "smtp.example.com"
username = "me"
password = {{env = "TEST_SMTP_PASSWORD"}}
sender = "masks@example.com"
to = ["ann@example.com"]
rules = ["bare"]
[[apprise]]
name = "phone"
url = "ntfy://{SECRET}"
"""


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_SMTP_PASSWORD", SECRET)
    (tmp_path / "secret").write_text(SECRET + "\n")
    return GOOD.replace("/FOLDER", str(tmp_path))


def test_all_kinds_of_receivers_are_read(good: str) -> None:
    rules = parse_rules(good)

    assert [one.name for one in rules.receivers] == ["office", "house", "staff", "phone"]
    assert read_secret(rules.webhooks[0].secret, "secret") == SECRET
    jsonschema.validate(tomllib.loads(good), rules_schema())


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("allow_private_address = true", "", "mqtt 'house': 192.168.1.5 has the address 192.168.1.5, which is not on"),
        ('"192.168.1.5"', '"mqtt://house"', "mqtt 'house': host"),
        ('"192.168.1.5"', '"house"\nprefix = "a/#"', "mqtt 'house': prefix"),
        ('"192.168.1.5"', '"house"\nca_file = "/none"', "mqtt 'house': it has a ca_file, but no TLS"),
        ('"192.168.1.5"', '"house"\ntls = true\nca_file = "/none"', "mqtt 'house': its ca_file /none holds no cert"),
        ('username = "me"\npassword = "', 'password = "', "mqtt 'house': it has a password, but no username"),
        ('name = "house"', 'name = "office"', "receiver 'office': the name is given twice"),
        ('"masks@example.com"', '"masks"', "email 'staff': sender"),
        ('["ann@example.com"]', "[]", "email 'staff': to"),
        ('["ann@example.com"]', '["ann@[x"]', "email 'staff': to"),
        ('"192.168.1.5"', '"house"\ntls = true\nca_file = "\\u0000"', "mqtt 'house': its ca_file cannot be opened"),
        ('rules = ["bare"]', 'rules = ["bear"]', "email 'staff': there is no rule 'bear'"),
        ('rules = ["bare"]', 'security = "none"', "email 'staff': its password would be sent readable"),
        ("TEST_SMTP_PASSWORD", "TEST_NONE", "email 'staff': its password in the variable TEST_NONE has 0 letters"),
        ('{env = "TEST_SMTP_PASSWORD"}', "{}", "email 'staff': its password is neither in a variable nor in a file"),
        ("/secret", "/none", "webhook 'office': its secret cannot be read from the file"),
        ("ntfy://", "nfty://", "apprise 'phone': its url is none of a service that Apprise knows"),
        ("ntfy://", "ntfy://localhost/", "apprise 'phone': its url leads to localhost, this machine"),
        ("https://masks.example.com", "masks.example.com", "public_url"),
    ],
)
def test_what_cannot_be_is_named_in_one_line_without_secrets(
    before: str, after: str, says: str, good: str, tmp_path: Path
) -> None:
    assert before in good
    file = tmp_path / "rules.toml"
    file.write_text(good.replace(before, after, 1))

    done = CliRunner().invoke(maskwatch.cli, ["rules", "check", str(file)])

    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert says in line
    assert SECRET not in line


def test_a_secret_in_a_file_that_is_too_short_is_refused(good: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short\n")
    file = tmp_path / "rules.toml"
    file.write_text(good)

    done = CliRunner().invoke(maskwatch.cli, ["rules", "check", str(file)])

    assert "its secret in the file" in done.output
    assert "has 5 letters; it must have 16 or more" in done.output
