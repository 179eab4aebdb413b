"""Check messages by Home Assistant's own schemas: JSON with payloads by topic on stdin, a line for each that is wrong.

It runs with the packages of requirements/homeassistant.txt on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys

import voluptuous
from homeassistant.components.mqtt import binary_sensor, sensor
from homeassistant.components.mqtt.discovery import TOPIC_MATCHER

SCHEMAS = {"binary_sensor": binary_sensor.DISCOVERY_SCHEMA, "sensor": sensor.DISCOVERY_SCHEMA}
PREFIX = "homeassistant/"


def main() -> int:
    """Print what is wrong; return how many messages are."""
    wrong = 0
    for topic, payload in json.load(sys.stdin).items():
        match = TOPIC_MATCHER.match(topic.removeprefix(PREFIX))
        if not topic.startswith(PREFIX) or match is None:
            print(f"{topic}: Home Assistant does not read this topic")
            wrong += 1
            continue
        try:
            SCHEMAS[match["component"]](payload)
        except voluptuous.Invalid as error:
            print(f"{topic}: {error}")
            wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
