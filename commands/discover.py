"""`maskwatch discover`: the network cameras that answer ONVIF, and the addresses of their streams.

Exit status: 0 when a camera answered, 1 when none did.
"""

from __future__ import annotations

import os

import click

from commands.errors import fail


@click.command()
@click.option("--user", default="", help="User of the cameras; its password is read from MASKWATCH_CAMERA_PASSWORD.")
@click.option("--within-s", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="How long to listen.")
@click.option("--host", default="", help="Ask this address alone, for example that of a camera behind a router.")
def discover(user: str, within_s: float, host: str) -> None:
    """List cameras of this network with the addresses of their streams (ONVIF)."""
    from producer.discovery.onvif import OnvifCamera, OnvifFailed
    from producer.discovery.probe import MULTICAST, find_devices

    try:
        devices = find_devices(within_s, (host, MULTICAST[1]) if host else MULTICAST)
    except OSError as error:
        fail(f"the network cannot be asked: {error.strerror or error}; is this machine connected?", 1)
    if not devices:
        fail(
            f"no camera answered within {within_s:g} s; cameras answer in their own network only, and many only after "
            "ONVIF was switched on in their settings",
            1,
        )
    password = os.environ.get("MASKWATCH_CAMERA_PASSWORD", "")  # no flag: every user can read a command line
    for device in devices:
        _print_line(f"{device.host}  {device.name}")
        try:
            for stream in OnvifCamera(service=device.service, user=user, password=password).streams():
                _print_line(f"    {stream.url}  {stream.encoding} {stream.size}")
        except OnvifFailed as error:
            _print_line(f"    {error}")


def _print_line(text: str) -> None:
    """Print a line; what it says comes from the network, and must not control the terminal."""
    click.echo("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text).rstrip())
