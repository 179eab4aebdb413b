"""What Home Assistant is sent is accepted by its own schemas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing
from feeding import REPOSITORY

from events.camera_watch import CameraState
from events.home_assistant import discovery_messages
from events.mqtt_topics import Topics
from events.rule_file import parse_rules
from events.state_board import camera_status

PACKAGES = REPOSITORY / ".venv" / "homeassistant"
CHECK = Path(__file__).parent / "home_assistant_schemas.py"
RULES = """
[[rules]]
kind = "no_mask"
name = "bare"
[[rules]]
kind = "people_without_mask"
name = "group"
people = 2
[[rules]]
kind = "mask_share"
name = "share"
below_percent = 80
minutes = 10
[[rules]]
kind = "camera_offline"
name = "offline"
[[rules]]
kind = "camera_unlabelled"
name = "unlabelled"
[[rules]]
kind = "camera_back"
name = "back"
"""

Messages = dict[str, dict[str, object]]


@pytest.fixture
def messages() -> Messages:
    """All kinds of messages, of two cameras."""
    rules = parse_rules(RULES)
    found: Messages = {}
    for name in ("door", "back-yard"):
        camera = camera_status(name, "live", rules, CameraState())
        sent = discovery_messages(camera, Topics("site/maskwatch"), "homeassistant", "https://masks.example.com")
        found |= {topic: json.loads(payload) for topic, payload in sent.items()}
    return found


def complaints(messages: Messages) -> list[str]:
    """Return what Home Assistant says about messages, a line for each that it would not take."""
    if not (PACKAGES / "homeassistant").is_dir():
        missing("Home Assistant is not in .venv/homeassistant; run: make .setup-homeassistant")
    command = [sys.executable, "-W", "ignore", str(CHECK)]
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(command, input=json.dumps(messages), env=environment, capture_output=True, text=True)
    assert done.returncode == len(done.stdout.splitlines()), done.stderr
    return done.stdout.splitlines()


def test_home_assistant_takes_all_messages_and_complains_about_what_is_wrong(messages: Messages) -> None:
    first, second, third = (dict(message) for message in list(messages.values())[:3])
    wrong = {
        "homeassistant/binary_sensor/wrong/class/config": first | {"device_class": "no such class"},
        "homeassistant/sensor/wrong/topic/config": {key: second[key] for key in second if key != "state_topic"},
        "homeassistant/sensor/a b/c/d/config": third,
    }

    found = complaints(messages | wrong)

    assert len(messages) == 2 * 8
    assert [line.partition(": ")[0] for line in found] == list(wrong)


def test_each_sensor_has_an_identity_of_its_own_and_belongs_to_its_camera(messages: Messages) -> None:
    identities = {str(message["unique_id"]) for message in messages.values()}
    devices = {json.dumps(message["device"], sort_keys=True) for message in messages.values()}

    assert len(identities) == len(messages)
    assert len(devices) == 2
    assert {message["availability_topic"] for message in messages.values()} == {"site/maskwatch/status"}
