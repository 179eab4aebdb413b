"""Messages by which Home Assistant finds cameras over MQTT: a device for each camera, with a sensor for what it shows.

The format is that of https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, one message a sensor. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from events.mqtt_topics import Topics
from events.state_board import CameraStatus, RuleStatus

OFFLINE_TEMPLATE = "{{ 'OFF' if value == 'offline' else 'ON' }}"
_NAMES = {
    "no_mask": "Without mask",
    "people_without_mask": "People without masks",
    "mask_share": "Few masks",
    "camera_offline": "Offline",
    "camera_unlabelled": "Not labelled",
}


def discovery_messages(
    camera: CameraStatus, topics: Topics, discovery_prefix: str, public_url: str | None
) -> dict[str, bytes]:
    """Return the messages that announce a camera, by topic. public_url: of the page; None for no link to it."""
    shared = {
        "device": _device(camera, public_url),
        "availability_topic": topics.status,
        "origin": {"name": "maskwatch"},
    }
    sensors = {
        ("binary_sensor", "online"): {
            "name": "Online",
            "state_topic": topics.state(camera.name),
            "value_template": OFFLINE_TEMPLATE,
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        },
        ("sensor", "people"): _measured(topics, camera, "People", "people", icon="mdi:account-group"),
        ("sensor", "masks"): _measured(
            topics, camera, "Masks worn", "masks_percent", icon="mdi:face-mask", unit_of_measurement="%"
        ),
        **{("binary_sensor", f"rule-{rule.name}"): _rule(topics, camera, rule) for rule in camera.rules},
    }
    messages = {}
    for (component, name), sensor in sensors.items():
        unique_id = f"{_node(topics)}_{camera.name}_{name}"
        topic = f"{discovery_prefix}/{component}/{_node(topics)}_{camera.name}/{name}/config"
        messages[topic] = msgspec.json.encode({"unique_id": unique_id, **sensor, **shared})
    return messages


def _rule(topics: Topics, camera: CameraStatus, rule: RuleStatus) -> dict[str, Any]:
    return {
        "name": f"{_NAMES.get(rule.kind, rule.kind)} ({rule.name})",
        "state_topic": topics.rule(camera.name, rule.name),
        "device_class": "problem",
    }


def _measured(topics: Topics, camera: CameraStatus, name: str, key: str, **more: str) -> dict[str, Any]:
    return {
        "name": name,
        "state_topic": topics.minute(camera.name),
        "value_template": f"{{{{ value_json.{key} }}}}",
        "state_class": "measurement",
        **more,
    }


def _device(camera: CameraStatus, public_url: str | None) -> dict[str, Any]:
    device: dict[str, Any] = {
        "identifiers": [f"maskwatch-{camera.name}"],
        "name": f"maskwatch {camera.name}",
        "manufacturer": "maskwatch",
        "model": "camera",
    }
    return device | ({"configuration_url": public_url} if public_url else {})


def _node(topics: Topics) -> str:
    """Return the prefix of topics as a part of an ID, so that two installations at a broker differ."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in topics.prefix)
