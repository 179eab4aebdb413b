"""The operations of the API that only read: cameras, status, models in use, training jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import redis
from flask import Response
from msgspec import Struct

from pipeline.bus.status import Camera, Status, read_status
from pipeline.runtime.worker_context import WorkerContext
from viewer.api.operations import CameraParameters, NoParameters, Operation, json_response
from viewer.api.problems import ApiError
from viewer.snapshots import NoSnapshot, Snapshots, UnknownCamera

NO_CAMERA = {404: "There is no such camera."}
MODEL_ROLES = ("detector", "classifier")


class CameraList(Struct, frozen=True, kw_only=True):
    """The cameras, by name, without the files that are labelled."""

    cameras: list[Camera]


class ModelInUse(Struct, frozen=True, kw_only=True):
    """A version that live workers use. role: detector or classifier. processes: how many of them use it."""

    role: str
    version: str
    processes: int


class ModelList(Struct, frozen=True, kw_only=True):
    """The versions in use. While workers change to another version there are two of a role."""

    models: list[ModelInUse]


class JobListing(Struct, frozen=True, kw_only=True):
    """How training jobs are listed. record_type: of one job. read: returns all jobs, oldest first."""

    record_type: type[Struct]
    read: Callable[[], Sequence[Struct]]


def reading_operations(context: WorkerContext, snapshots: Snapshots, jobs: JobListing | None) -> list[Operation]:
    """Return the operations. jobs: None leaves the one of jobs out."""
    of_jobs = [_jobs_operation(jobs)] if jobs else []
    return [*_camera_operations(context, snapshots), *_pipeline_operations(context), *of_jobs]


def models_in_use(status: Status) -> list[ModelInUse]:
    """Return the versions that live workers use."""
    found = Counter((one.role, one.model) for one in status.processes if one.role in MODEL_ROLES and one.model)
    return [
        ModelInUse(role=role, version=str(version), processes=count) for (role, version), count in sorted(found.items())
    ]


def _camera_operations(context: WorkerContext, snapshots: Snapshots) -> list[Operation]:
    def cameras(_path: NoParameters, _query: NoParameters) -> Response:
        """List the cameras with their state, rates and counts."""
        return json_response(CameraList(cameras=read_status(context.bus).cameras))

    def camera(path: CameraParameters, _query: NoParameters) -> Response:
        """Return one camera with its state, rates and counts."""
        for one in read_status(context.bus).cameras:
            if one.name == path.name:
                return json_response(one)
        raise ApiError(HTTPStatus.NOT_FOUND, f"there is no camera {path.name!r}: /api/v1/cameras lists them")

    def snapshot(path: CameraParameters, _query: NoParameters) -> Response:
        """Return the newest labelled frame of a camera as JPEG, with its boxes and labels drawn in."""
        try:
            return Response(snapshots.newest(path.name), content_type="image/jpeg")
        except UnknownCamera as error:
            raise ApiError(HTTPStatus.NOT_FOUND, f"{error}: /api/v1/cameras lists them") from error
        except NoSnapshot as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=1) from error

    of_one: dict[str, Any] = {"path_type": CameraParameters, "errors": NO_CAMERA}
    return [
        Operation(path="/cameras", id="list_cameras", summary="List the cameras", answer=CameraList, handle=cameras),
        Operation(
            path="/cameras/{name}", id="get_camera", summary="Get one camera", answer=Camera, handle=camera, **of_one
        ),
        Operation(
            path="/cameras/{name}/snapshot.jpg",
            id="get_snapshot",
            summary="Get a camera's newest labelled frame",
            answer="image/jpeg",
            handle=snapshot,
            **of_one,
        ),
    ]


def _pipeline_operations(context: WorkerContext) -> list[Operation]:
    def status(_path: NoParameters, _query: NoParameters) -> Response:
        """Return cameras, files that are labelled, processes and streams, as `maskwatch status --json` prints them."""
        return json_response(read_status(context.bus))

    def models(_path: NoParameters, _query: NoParameters) -> Response:
        """List the model versions that live workers use; `maskwatch models list` lists those of a registry."""
        return json_response(ModelList(models=models_in_use(read_status(context.bus))))

    return [
        Operation(path="/status", id="get_status", summary="Get the whole status", answer=Status, handle=status),
        Operation(path="/models", id="list_models", summary="List the models in use", answer=ModelList, handle=models),
    ]


def _jobs_operation(jobs: JobListing) -> Operation:
    answer = msgspec.defstruct("JobList", [("jobs", list[jobs.record_type])], frozen=True, kw_only=True)  # type: ignore[name-defined]

    def list_all(_path: NoParameters, _query: NoParameters) -> Response:
        """List the training jobs, oldest first, as `maskwatch jobs --json` prints them."""
        try:
            return json_response({"jobs": jobs.read()})
        except redis.RedisError as error:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the training jobs cannot be read: {error}; name their Redis with --jobs-redis of the viewer",
                retry_after_s=1,
            ) from error

    return Operation(path="/jobs", id="list_jobs", summary="List the training jobs", answer=answer, handle=list_all)
