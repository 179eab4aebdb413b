"""`maskwatch trainer` and `jobs`: the process that does training jobs, and the list of the jobs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.shared import COMMON, DEFAULT_REDIS, checked, fail, prepare, redis_of, run
from pipeline.bus.connection import Redis
from pipeline.runtime.settings import Settings, options

if TYPE_CHECKING:
    from trainer.jobs.job_list import TrainingRun

START_TRAINER = "start one with `maskwatch trainer`"
NEEDS_TENSORFLOW = "training needs TensorFlow, which is not installed: pip install 'maskwatch[train]'"


@click.command()
@options(*COMMON, "jobs_redis")
@click.option("--models", envvar="MASKWATCH_MODELS", help="A model registry, for jobs that name none.")
def trainer(**values: Any) -> None:
    """Do training jobs, one at a time; start one for each GPU, on as many machines as you like."""
    from trainer.jobs import trainer

    check_registry(values["models"])
    if find_spec("tensorflow") is None:
        fail(NEEDS_TENSORFLOW, 1)
    settings = prepare(values)
    run(lambda: trainer.main(settings, jobs_url(values)))


@click.command()
@click.argument("job_id", required=False, metavar="[ID]")
@click.option("--cancel", "cancels", is_flag=True, help="Cancel the job, waiting or running.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options("redis_url", "jobs_redis")
def jobs(job_id: str | None, cancels: bool, as_json: bool, **values: Any) -> None:
    """List training jobs with their progress, or show or cancel one."""
    from trainer.jobs.enqueue import cancel
    from trainer.jobs.job_list import run_of, runs
    from trainer.jobs.job_spec import JobRefused

    if cancels and job_id is None:
        fail("which job? `maskwatch jobs` lists them: maskwatch jobs ID --cancel", 2)
    with redis_of({"redis_url": jobs_url(values)}, JobRefused) as client:
        if job_id is None:
            show(client, runs(client), as_json)
        elif cancels:
            cancel(client, job_id)
            click.echo(f"job {job_id} is cancelled")
        else:
            show(client, run_of(client, job_id), as_json)


def show(client: Redis, found: list[TrainingRun] | TrainingRun, as_json: bool) -> None:
    """Print jobs, or one of them in full; on stderr, warn when jobs wait and no trainer is alive."""
    from trainer.jobs.job_list import has_trainer
    from trainer.jobs.job_table import table, whole

    listed = found if isinstance(found, list) else [found]
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(table(found) if isinstance(found, list) else whole(found))
    if any(run.state in ("queued", "lost") for run in listed) and not has_trainer(client):
        click.echo(f"no trainer is alive: {START_TRAINER}", err=True)


def jobs_url(values: dict[str, Any]) -> str:
    """Return the URL of the Redis that keeps the jobs: --jobs-redis, else --redis, else the default."""
    settings: Settings = checked({name: values[name] for name in ("redis_url", "jobs_redis")})
    if settings.jobs_redis:
        checked({"redis_url": settings.jobs_redis})
    return settings.jobs_redis or settings.redis_url or DEFAULT_REDIS


def check_registry(location: str | None) -> None:
    """End with status 2 when the registry that was named is a model's own folder."""
    from models.classifier.card import CARD_NAME

    if location is not None and (Path(location) / CARD_NAME).is_file():
        fail(f"--models {location} is a model's folder: models are added to a registry, another folder or a URL", 2)
