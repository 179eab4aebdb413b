"""`maskwatch check`: settings and environment in; a line for each part, what is missing and how to get it, out."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click

from commands.shared import checked_settings, parsed_source, redis_server
from commands.training import GET_TRAINING
from pipeline.bus.connection import connect, hide_password
from pipeline.runtime.redaction import redact
from pipeline.runtime.running_pipelines import find_running_pipelines
from pipeline.runtime.settings import Settings, setting_options


@click.command()
@setting_options("redis_url", "models", "model", "detector", "port", "host")
def check(**values: Any) -> None:
    """Check settings and environment; report what is missing and how to get it."""
    settings = checked_settings(values)
    missing = 0
    for part, find in environment_checks(settings):
        try:
            click.echo(f"ok       {part}: {find()}")
        except Exception as error:  # noqa: BLE001 -- each library has errors of its own, and the user must see them all
            missing += 1
            click.echo(f"MISSING  {part}: {' '.join(redact(str(error)).split()) or type(error).__name__}")
    sys.exit(1 if missing else 0)


def environment_checks(settings: Settings) -> list[tuple[str, Callable[[], str]]]:
    """Return the parts of a working installation, each with a function that describes what it finds, or raises."""

    def detector() -> str:
        from models.detector.card import read_detector_card
        from models.detector.self_test import load_with_self_test
        from models.registry.kinds import DETECTOR
        from models.registry.resolve import current_folder

        folder = current_folder(None if settings.detector == "haar" else settings.models, DETECTOR)
        load_with_self_test(settings.detector, folder=folder)
        version = "" if settings.detector == "haar" else f", version {read_detector_card(folder).version}"
        return f"{settings.detector}{version}"

    def classifier() -> str:
        from models.classifier.self_test import load_with_self_test
        from models.registry.kinds import CLASSIFIER
        from models.registry.resolve import current_folder

        return load_with_self_test(current_folder(settings.models, CLASSIFIER)).card.version

    def photograph() -> str:
        parsed_source("demo").open().close()
        return "the demo has its photograph"

    def page() -> str:
        from viewer.page_parts import check_page_parts

        check_page_parts()
        return "all its parts are there"

    def video() -> str:
        import av

        av.Codec("libx264", "w")
        return "H.264 can be written"

    def server() -> str:
        with redis_server(settings) as server:
            server.wait()
            with connect(server.url) as client:
                version = client.info("server").get("valkey_version") or client.info("server")["redis_version"]
        return f"{hide_password(server.url) if settings.redis_url else 'embedded'}, version {version}"

    def port() -> str:
        address = f"{settings.host}:{settings.port}"
        for pipeline in find_running_pipelines():
            if (pipeline.host, pipeline.port) == (settings.host, settings.port):
                return f"{address} is that of `maskwatch {pipeline.command}`, process {pipeline.pid}, which runs"
        try:
            with socket.create_server((settings.host, settings.port)):
                return f"{address} is free"
        except OSError as error:
            raise OSError(f"{address} cannot be used: {error.strerror}; choose another --port or --host") from error

    def training() -> str:
        from trainer.data.published_detector import read_published
        from trainer.networks.imagenet_weights import read_imagenet_weights

        if find_spec("tensorflow") is None:
            return f"not installed, needed only to train: {GET_TRAINING}"
        read_published()  # every training needs it
        read_imagenet_weights()
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
