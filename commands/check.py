"""`maskwatch check`: settings and environment in; a line for each part, what is missing and how to get it, out."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from commands.command import checked, server_for
from pipeline.bus.connection import connect, hide_password
from pipeline.runtime.settings import Settings, options


@click.command()
@options("redis_url", "models", "detector", "port", "host")
def check(**values: Any) -> None:
    """Check settings and environment; say what is missing and how to get it."""
    settings = checked(values)
    missing = 0
    for what, look in checks(settings):
        try:
            click.echo(f"ok       {what}: {look()}")
        except Exception as error:  # noqa: BLE001 -- whatever a part raises is what the user must know
            missing += 1
            click.echo(f"MISSING  {what}: {' '.join(str(error).split()) or type(error).__name__}")
    sys.exit(1 if missing else 0)


def checks(settings: Settings) -> list[tuple[str, Callable[[], str]]]:
    """Return what a working installation has, each with a look that says what is there or raises."""

    def detector() -> str:
        from models.detector import face_detector

        face_detector.load(settings.detector)
        return settings.detector

    def classifier() -> str:
        from models.classifier.trial import load_tried
        from models.registry.named import model_folder

        return load_tried(model_folder(settings.models)).card.version

    def photograph() -> str:
        from producer.sources.open_source import open_source

        open_source("demo").close()
        return "the demo has its photograph"

    def page() -> str:
        part = Path(__file__).parent.parent / "viewer" / "static" / "vendor" / "socket.io.min.js"
        if not part.is_file():
            raise FileNotFoundError(f"{part} is missing: run `make setup`")
        return "all its parts are there"

    def video() -> str:
        import av

        av.Codec("libx264", "w")
        return "H.264 can be written"

    def server() -> str:
        with server_for(settings) as server:
            server.wait()
            client = connect(server.url)
            version = client.info("server").get("valkey_version") or client.info("server")["redis_version"]
            client.close()
        return f"{hide_password(server.url) if settings.redis_url else 'embedded'}, version {version}"

    def port() -> str:
        with socket.create_server((settings.host, settings.port)):
            return f"{settings.host}:{settings.port} is free"

    def training() -> str:
        from trainer.networks.imagenet_weights import read_weights

        if find_spec("tensorflow") is None:
            return "not installed, needed only to train: pip install 'maskwatch[train]'"
        read_weights()
        return "TensorFlow is installed, and the weights to start from are there"

    return [
        ("face detector", detector),
        ("mask classifier", classifier),
        ("demo", photograph),
        ("page", page),
        ("video", video),
        ("Redis", server),
        ("port", port),
        ("training", training),
    ]
