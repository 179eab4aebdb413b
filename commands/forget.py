"""`maskwatch forget`: remove a camera that is out of use from the list."""

from __future__ import annotations

from typing import Any

import click

from commands.shared import redis_client
from pipeline.bus.shards import Bus
from pipeline.runtime.settings import setting_options


@click.command()
@click.argument("camera")
@setting_options("redis_url")
def forget(camera: str, **values: Any) -> None:
    """Remove CAMERA, which is out of use, from the list, and end its events.

    What was recorded of it stays. A camera that starts again under this name is a new one.
    """
    from pipeline.bus.forgetting import CannotForget, forget_camera

    with redis_client(values, CannotForget) as client:
        forget_camera(Bus(client), camera)
        click.echo(f"{camera} is forgotten")
