"""How everything is: workers, cameras, Redis, the database."""

from contextlib import suppress
from typing import Final

from fastapi import APIRouter

from worker import __version__
from worker.api.access import Reader, SharedParts
from worker.api.documents import StatusDocument
from worker.api.parts import Parts
from worker.errors import GalleryError, HistoryError, SinkError
from worker.fleet.registry import CameraRegistry, why_unowned
from worker.redis.client import REDIS_ERRORS
from worker.redis.errors import explain
from worker.service.status import condition_of, reported

router = APIRouter(tags=["status"])

_WELL: Final = {"streaming", "connecting", "ended"}


def status(parts: Parts) -> StatusDocument:
    """All of it; what cannot be asked is among the problems."""
    problems: list[str] = []
    workers: list[dict[str, object]] = []
    unowned: dict[str, str] = {}
    try:
        client = parts.redis()
        for found in reported(client, parts.config.fleet.name, problems.append):
            condition = condition_of(found)
            workers.append(found.document() | {"state": condition})
            problems += _of_worker(found.worker_id, condition, found.reasons | found.warnings)
            problems += [
                f"camera {camera.camera_id}: {camera.state}{': ' if camera.reason else ''}{camera.reason}"
                for camera in found.cameras
                if camera.state not in _WELL and condition not in {"silent", "gone"}
            ]
        for camera in CameraRegistry(client, parts.config.fleet).cameras():
            if not camera.owner:
                unowned[camera.definition.camera_id] = why_unowned(camera)
        problems += [f"camera {camera_id}: {why}" for camera_id, why in unowned.items() if why != "paused"]
        if not workers:
            problems.append("no worker has reported: is one running with this Redis and fleet.name?")
    except SinkError as error:
        problems.append(str(error))
    except REDIS_ERRORS as error:
        problems.append(explain(error, parts.config.redis))
    people = version = None
    try:
        with parts.history() as history:
            history.newest_model()
        people = len(parts.people())
        version = parts.gallery().version if parts.has_gallery() else None
    except (HistoryError, GalleryError) as error:
        problems.append(str(error))
    return StatusDocument(
        version=__version__, workers=workers, unowned=unowned, problems=problems, people=people,
        gallery_version=version,
    )  # fmt: skip


def cameras(parts: Parts) -> list[str]:
    """The names of the cameras that are read now; none where Redis cannot be asked."""
    with suppress(SinkError, *REDIS_ERRORS):
        found = reported(parts.redis(), parts.config.fleet.name)
        return sorted({camera.camera_id for worker in found for camera in worker.cameras})
    return []


def _of_worker(worker_id: str, condition: str, reasons: dict[str, str]) -> list[str]:
    if condition in {"silent", "gone"}:
        return [f"worker {worker_id} is {condition}: it has not reported for a while"]
    return [f"worker {worker_id}: {name}: {reason}" for name, reason in reasons.items()]


@router.get("/status", operation_id="show_status")
def show_status(_caller: Reader, parts: SharedParts) -> StatusDocument:
    """Workers, cameras, and what is wrong now."""
    return status(parts)
