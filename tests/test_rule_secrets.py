"""Secrets of rules are hidden from readers, and kept for the place to which they were sent before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from events.rule_file import BadRules, parse_rules, rules_from
from events.rule_secrets import hide_secrets, keep_secrets
from events.shown_rules import ShownRuleSet

RULES = parse_rules(
    """
[[rules]]
kind = "no_mask"
name = "bare"
[[webhooks]]
name = "office"
url = "https://example.com/very/secret/path"
secret = "sixteen letters!"
"""
)


def webhook(**values: object) -> dict[str, Any]:
    return {"webhooks": [{"name": "office"} | values]}


def test_readers_see_which_secrets_are_set_and_none_of_them() -> None:
    shown = hide_secrets(msgspec.to_builtins(RULES))

    assert shown["webhooks"] == [
        {"name": "office", "url": "set", "secret": "set", "rules": [], "allow_private_address": False}
    ]
    assert shown["rules"][0]["name"] == "bare"
    assert hide_secrets(shown) == shown
    assert msgspec.to_builtins(msgspec.convert(shown, ShownRuleSet)) == shown


@pytest.mark.parametrize(
    "sent",
    [
        webhook(),
        webhook(url="set", secret="set"),
        webhook(url="https://example.com/very/secret/path"),
        webhook(secret="sixteen letters!"),
    ],
)
def test_secrets_that_are_left_out_are_kept(sent: dict[str, Any]) -> None:
    rules = rules_from(keep_secrets(sent | {"rules": []}, RULES))

    assert rules.webhooks == RULES.webhooks


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (webhook(url="https://elsewhere.example/"), "webhooks 'office': its url has changed: send its secret again"),
        (webhook(secret="not set"), "webhook 'office': Object missing required field `secret`"),
        (webhook(secret=None), "webhooks 'office': its secret is null: send 'not set' for none"),
        (webhook(secret={"file": "/etc/passwd"}), "over the API its secret is written as it is"),
        ({"webhooks": [{"name": "new", "url": "https://example.com/", "secret": "set"}]}, "no secret to keep"),
        ({"webhooks": [{"name": "new", "url": "https://example.com/"}]}, "webhook 'new': Object missing"),
        ({"webhooks": [{"name": ["office"]}]}, "webhook 1: name: Expected `str`"),
        ({"webhooks": ["office"]}, "webhook 1: Expected `object`"),
        ({"webhooks": "office"}, "webhooks is not a list"),
        ({"timezone": {"name": "UTC"}}, "timezone: Expected `str`"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_line_without_the_secret(sent: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRules) as caught:
        rules_from(keep_secrets(sent, RULES))

    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "sixteen" not in str(caught.value)


def test_a_secret_goes_to_another_place_only_when_it_is_sent_again() -> None:
    sent = webhook(url="https://elsewhere.example/", secret="sixteen letters?")

    (moved,) = rules_from(keep_secrets(sent, RULES)).webhooks

    assert (moved.url, moved.secret) == ("https://elsewhere.example/", "sixteen letters?")
