"""Run the Redis of a deployment without its users: Debian's redis-server with deploy/redis/redis.conf, on a socket.

It is another build than the embedded server, with another allocator, and a frame costs it less (docs/scale.md).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from redis.backoff import ConstantBackoff
from redis.retry import Retry

from pipeline.bus.connection import connect

CONF = Path(__file__).parent.parent / "deploy" / "redis" / "redis.conf"
START_TRIES = 250  # every 20 ms


@contextlib.contextmanager
def deployed_redis() -> Iterator[str]:
    """Run a Redis while the block runs; yield its URL, which answers. Exits if there is no redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("bench: there is no redis-server: install Debian's package of this name, or give --embedded")
    with tempfile.TemporaryDirectory(prefix="maskwatch-") as folder:
        socket = f"{folder}/s"
        command = [program, str(CONF), "--port", "0", "--unixsocket", socket, "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with connect(f"unix://{socket}") as client:
                Retry(ConstantBackoff(0.02), START_TRIES).call_with_retry(client.ping, lambda _: None)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait()
