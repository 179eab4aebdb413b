"""`maskwatch train`, `trainer` and `jobs`: data sets in, a model folder out, trained here or as a job by a trainer."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.errors import fail
from commands.shared import COMMON, checked_settings, prepare_process, redis_client, run_process, used_redis
from pipeline.bus.connection import CLUSTER, Redis
from pipeline.runtime.logs import configure_logging, is_json
from pipeline.runtime.redaction import redact
from pipeline.runtime.running_pipelines import find_running_pipelines
from pipeline.runtime.settings import Settings, setting_options

if TYPE_CHECKING:
    from trainer.fitting.progress import Progress
    from trainer.jobs.job_list import TrainingRun
    from trainer.settings import TrainSettings

START_TRAINER = "start one with `maskwatch trainer`"
# Not `pip install maskwatch[train]`: no package index has maskwatch.
GET_TRAINING = "run `make setup-dev` in a checkout of maskwatch's repository; no package index has it"
NEEDS_TENSORFLOW = f"training needs TensorFlow, which is not installed: {GET_TRAINING}"


@click.command()
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--out", required=True, help="The model folder to write.")
@click.option(
    "--arch",
    type=click.Choice(["lite", "resnet18", "resnet18-half", "resnet50", "yunet"]),
    default="lite",
    show_default=True,
)
@click.option("--validation", help="Data set that is reported on; default: a fifth of each data set.")
@click.option("--test", "tests", multiple=True, help="Data set that is measured once, at the end.")
@click.option(
    "--map",
    "class_names",
    multiple=True,
    metavar="NAME=mask|no_mask|ignore",
    help="What a class name of the data sets means, if it is none of the usual ones.",
)
@click.option("--leave-out-copies", is_flag=True, help="Leave out copies of pictures that are measured.")
@click.option("--leave-out", metavar="FILE", help="Hashes of pictures to leave out with their copies: held_back.txt.")
@click.option("--hold-back", metavar="FILE", help="Hashes of pictures to report on instead of a fifth: held_back.txt.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Default: the architecture's own.")
@click.option("--batch", type=click.IntRange(1, 4096), help="Crops or canvases a step.")
@click.option("--learning-rate", type=float, help="Default: the architecture's own.")
@click.option("--size-px", type=click.IntRange(32, 1280), help="Of a crop or canvas; default: the architecture's own.")
@click.option("--weights", help="Starting weights: imagenet, none, a run's classifier.keras, or .h5 of a ResNet50.")
@click.option("--teacher", "teachers", multiple=True, metavar="FOLDER", help="A trained model to learn from, too.")
@click.option("--margin", type=click.FloatRange(0, 1), help="Default: the architecture's own.")
@click.option("--mixed-precision", is_flag=True, help="Compute in bfloat16, which ResNets learn in faster.")
@click.option("--threads", type=click.IntRange(1), help="Default: all processors.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--models", envvar="MASKWATCH_MODELS", help="A model registry, folder or URL: the model is added to it.")
@click.option("--queue", is_flag=True, help="Queue it as a job for `maskwatch trainer`, and return at once.")
@click.option("--time-limit-h", type=click.IntRange(1, 8760), default=168, show_default=True, help="With --queue.")
@setting_options("redis_url", "jobs_redis")
def train(
    models: str | None,
    queue: bool,
    time_limit_h: int,
    redis_url: str | None,
    jobs_redis: str | None,
    **choices: Any,
) -> None:
    """Train a mask classifier, or the face detector yunet, on folders of pictures, and measure it."""
    from models.files import ModelUnusable
    from trainer.settings import TrainSettings

    settings, models = TrainSettings(**choices), models or None
    check_is_registry(models)
    if queue:
        jobs_settings = checked_settings({"redis_url": redis_url, "jobs_redis": jobs_redis})
        train_as_job(settings, models, time_limit_h, jobs_redis_url(jobs_settings))
        return
    if find_spec("tensorflow") is None:
        fail(NEEDS_TENSORFLOW, 1)
    configure_logging(as_json=is_json())
    try:
        run_process(lambda: train_here(settings, models), ModelUnusable, ValueError)
    except KeyboardInterrupt:
        click.echo(f"maskwatch: stopped: {resume_hint(Path(settings.out))}", err=True)
        os._exit(130)  # TensorFlow's threads, which feed the training, abort an interpreter that shuts down


def train_here(settings: TrainSettings, models: str | None) -> int:
    """Train in this process, with a line for each epoch."""
    from trainer.jobs.work_horse import train_and_register

    def print_epoch(progress: Progress) -> None:
        if progress.is_epoch_end:
            click.echo(progress.text())

    outcome = train_and_register(settings, models, print_epoch)
    click.echo(f"{Path(outcome.folder) / 'card.json'} describes the model and its measured figures")
    if outcome.registered_at:
        click.echo(
            f"{outcome.version} is registered at {redact(outcome.registered_at)}; "
            f"`maskwatch models promote {outcome.version}` makes it current"
        )
    return 0


def resume_hint(out: Path) -> str:
    """Return what the same command does after a training was stopped."""
    from models.card import CARD_NAME
    from trainer.fitting.run_folder import CHECKPOINT_NAME

    if (out / CARD_NAME).exists():
        return f"the model in {out} is finished; `maskwatch models register {out}` adds it to a registry"
    if (out / CHECKPOINT_NAME).exists():
        return f"the same command continues after the last epoch in {out}"
    return "no epoch was finished, so the same command starts from the beginning"


def train_as_job(settings: TrainSettings, models: str | None, time_limit_h: int, redis_url: str) -> None:
    """Check the settings and put the training into the queue as a job."""
    from models.files import ModelUnusable
    from trainer.jobs.enqueue import checked_spec, enqueue_job
    from trainer.jobs.job_list import has_trainer
    from trainer.jobs.job_spec import JobRejected

    try:
        spec = checked_spec(settings, models)
    except (ModelUnusable, ValueError) as error:
        fail(str(error), 1)
    with redis_client({"redis_url": redis_url}, JobRejected) as client:
        id_ = enqueue_job(client, spec, time_limit_s=time_limit_h * 3600)
        hint = "" if has_trainer(client) else f"; it waits for a trainer: {START_TRAINER}"
    hint += loss_hint(redis_url)
    click.echo(f"job {id_} is in the queue: `maskwatch jobs {id_}` shows its progress, --cancel ends it{hint}")


def loss_hint(redis_url: str) -> str:
    """Return what to do for jobs in the embedded server of a running pipeline; nothing for those in another Redis."""
    ends_with = [one for one in find_running_pipelines() if one.embedded and one.redis_url == redis_url]
    return "".join(
        f"; it is lost when `maskwatch {one.command}`, process {one.pid}, ends: --jobs-redis names a Redis that lasts"
        for one in ends_with
    )


@click.command()
@setting_options(*COMMON, "jobs_redis")
@click.option("--models", envvar="MASKWATCH_MODELS", help="A model registry, for jobs that name none.")
def trainer(**values: Any) -> None:
    """Do training jobs, one at a time; start one for each GPU, on as many machines as you like."""
    from trainer.jobs import trainer as process

    check_is_registry(values["models"])
    if find_spec("tensorflow") is None:
        fail(NEEDS_TENSORFLOW, 1)
    settings = prepare_process(values)
    run_process(lambda: process.main(settings, jobs_redis_url(settings)))


@click.command()
@click.argument("job_id", required=False, metavar="[ID]")
@click.option("--cancel", "cancels", is_flag=True, help="Cancel the job, waiting or running.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@setting_options("redis_url", "jobs_redis")
def jobs(job_id: str | None, cancels: bool, as_json: bool, **values: Any) -> None:
    """List training jobs with their progress, or show or cancel one."""
    from trainer.jobs.enqueue import cancel_job
    from trainer.jobs.job_list import job_with_id, list_jobs
    from trainer.jobs.job_spec import JobRejected

    if cancels and job_id is None:
        fail("--cancel needs the ID of a job; `maskwatch jobs` lists them", 2)
    with redis_client({"redis_url": jobs_redis_url(checked_settings(values))}, JobRejected) as client:
        if job_id is None:
            print_jobs(client, list_jobs(client), as_json)
        elif cancels:
            cancel_job(client, job_id)
            click.echo(f"job {job_id} is cancelled")
        else:
            print_jobs(client, job_with_id(client, job_id), as_json)


def print_jobs(client: Redis, found: list[TrainingRun] | TrainingRun, as_json: bool) -> None:
    """Print jobs, or one of them in full; on stderr, warn when jobs wait and no trainer is alive."""
    from trainer.jobs.job_list import has_trainer
    from trainer.jobs.job_table import job_details, jobs_table

    listed = found if isinstance(found, list) else [found]
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(jobs_table(found) if isinstance(found, list) else job_details(found))
    if any(run.state in ("queued", "lost") for run in listed) and not has_trainer(client):
        click.echo(f"no trainer is alive: {START_TRAINER}", err=True)


def jobs_redis_url(settings: Settings) -> str:
    """Return the URL of the Redis that keeps the jobs: --jobs-redis, else that of used_redis()."""
    url = settings.jobs_redis or used_redis(settings)
    if url.partition("://")[0] in CLUSTER:  # rq's transactions use keys of several slots
        fail("training jobs need a Redis that is no cluster: name one with --jobs-redis", 2)
    return url


def check_is_registry(location: str | None) -> None:
    """End with status 2 when the registry that was named is a model's own folder."""
    from models.card import CARD_NAME

    if location is not None and (Path(location) / CARD_NAME).is_file():
        fail(f"--models {location} is a model's folder: models are added to a registry, another folder or a URL", 2)
