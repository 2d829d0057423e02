"""How everything is: workers, cameras, Redis, the database."""

import time
from contextlib import suppress
from typing import Final

from fastapi import APIRouter

from worker import __version__
from worker.api.access import Reader, SharedParts
from worker.api.documents import StatusDocument, WrongDocument
from worker.api.parts import Parts
from worker.api.sight import in_sight
from worker.background import NO_SIGN
from worker.errors import DatabaseError, GalleryError, HistoryError, SinkError
from worker.fleet.registry import CameraRegistry, why_unowned
from worker.redis.client import REDIS_ERRORS
from worker.redis.errors import explain
from worker.service.status import CameraStatus, WorkerStatus, condition_of

router = APIRouter(tags=["status"])

_NOBODY: Final = "no worker has reported: is one running with this Redis and fleet.name?"
_WELL: Final = {"streaming", "connecting", "ended"}
_STALLED_S: Final = 40.0
_DAMAGED: Final = 0.05
_BEHIND: Final = 0.3
_LATE_S: Final = 2.0
_OLD_COPY_S: Final = 30.0
_WAITING_S: Final = 300.0
_GIVEN_UP_S: Final = 3600.0
_RECENT: Final = 50
"""From where on it is wrong: as in ``deploy/prometheus/rules``."""
_MANY_EVENTS: Final = 100
RUNBOOKS: Final = {
    "FacestreamCameraDown": "camera-down", "FacestreamCameraStalled": "camera-stalled",
    "FacestreamCameraDamaged": "camera-damaged", "FacestreamFallingBehind": "falling-behind",
    "FacestreamOverloaded": "falling-behind", "FacestreamEventsLate": "falling-behind",
    "FacestreamRedisUnreachable": "redis-unreachable", "FacestreamOutboxGrowing": "outbox-growing",
    "FacestreamOutboxDegraded": "outbox-degraded", "FacestreamHistoryDegraded": "history-degraded",
    "FacestreamThreadSilent": "thread-silent", "FacestreamWorkerLost": "worker-lost",
    "FacestreamNoWorkers": "worker-lost", "FacestreamCamerasUnowned": "cameras-unowned",
    "FacestreamGalleryOutOfDate": "gallery-out-of-date", "FacestreamConsoleFails": "console-down",
    "FacestreamAlertsWait": "console-alerts", "FacestreamAlertsGivenUp": "console-alerts",
}  # fmt: skip
"""The alerts of Prometheus that the console sees for itself, and the page that says what to do."""
_OF_CONDITION: Final = {
    "redis": "FacestreamRedisUnreachable", "outbox": "FacestreamOutboxDegraded", "sources": "FacestreamCameraDown",
    "gallery": "FacestreamGalleryOutOfDate", "load": "FacestreamOverloaded",
}  # fmt: skip
"""What keeps a worker from being ready."""


def status(parts: Parts) -> StatusDocument:
    """All of it; what cannot be asked is among the problems."""
    wrong: list[WrongDocument] = []
    unreadable: list[str] = []
    workers: list[dict[str, object]] = []
    unowned: dict[str, str] = {}
    try:
        client = parts.redis()
        for found in parts.workers(unreadable.append):
            condition = condition_of(found)
            workers.append(found.document() | {"state": condition})
            wrong += _of_worker(found, condition)
        wrong += map(_wrong, unreadable)
        for camera in parts.registered(CameraRegistry(client, parts.config.fleet)):
            if not camera.owner:
                unowned[camera.definition.camera_id] = why_unowned(camera)
        wrong += [
            _wrong(f"camera {camera_id}: {why}", "FacestreamCamerasUnowned")
            for camera_id, why in unowned.items()
            if why != "paused"
        ]
        if not workers:
            told = _NOBODY if in_sight() is None else "no worker has reported one of your cameras"
            wrong.append(_wrong(told, "FacestreamNoWorkers"))
    except SinkError as error:
        wrong.append(_wrong(str(error), "FacestreamRedisUnreachable"))
    except REDIS_ERRORS as error:
        wrong.append(_wrong(explain(error, parts.config.redis), "FacestreamRedisUnreachable"))
    people = version = None
    try:
        with parts.history() as history:
            history.newest_model()
        people = len(parts.people())
        version = parts.gallery().version if parts.has_gallery() else None
        wrong += _of_alerts(parts)
    except (HistoryError, GalleryError, DatabaseError) as error:
        wrong.append(_wrong(str(error), "FacestreamConsoleFails"))
    return StatusDocument(
        version=__version__, workers=workers, unowned=unowned, problems=[each.what for each in wrong], wrong=wrong,
        people=people, gallery_version=version,
    )  # fmt: skip


def cameras(parts: Parts) -> list[str]:
    """The names of the cameras that are read now; none where Redis cannot be asked."""
    with suppress(SinkError, *REDIS_ERRORS):
        return sorted({camera.camera_id for worker in parts.workers() for camera in worker.cameras})
    return []


def _wrong(what: str, alert: str = "") -> WrongDocument:
    return WrongDocument(what=what, alert=alert, runbook=RUNBOOKS[alert] if alert else "")


def _of_worker(found: WorkerStatus, condition: str) -> list[WrongDocument]:
    name = f"worker {found.worker_id}"
    if condition in {"silent", "gone"}:
        return [_wrong(f"{name} is {condition}: it has not reported for a while", "FacestreamWorkerLost")]
    told = [
        _wrong(
            f"{name}: {part}: {reason}",
            "FacestreamThreadSilent" if reason.startswith(NO_SIGN) else _OF_CONDITION.get(part, ""),
        )
        for part, reason in (found.reasons | found.warnings).items()
    ]
    if found.outbox_events > _MANY_EVENTS:
        told.append(_wrong(f"{name}: {found.outbox_events} events wait in its outbox", "FacestreamOutboxGrowing"))
    if (database := found.database) is not None:
        if database.waiting_rows:
            text = f"{name}: {database.waiting_rows} rows wait for the database: {database.problem or 'it is slow'}"
            told.append(_wrong(text, "FacestreamHistoryDegraded"))
        if (database.copy_age_s or 0.0) > _OLD_COPY_S and "gallery" not in found.warnings:
            text = f"{name}: its copy of the gallery is {database.copy_age_s:.0f} s old"
            told.append(_wrong(text, "FacestreamGalleryOutOfDate"))
    return told + [one for camera in found.cameras for one in _of_camera(camera)]


def _of_camera(camera: CameraStatus) -> list[WrongDocument]:
    name = f"camera {camera.camera_id}"
    if camera.state not in _WELL:
        return [_wrong(f"{name}: {camera.state}{': ' if camera.reason else ''}{camera.reason}", "FacestreamCameraDown")]
    told = []
    if camera.state == "streaming" and (camera.last_frame_age_s or 0.0) > _STALLED_S:
        told.append(_wrong(f"{name}: no frame for {camera.last_frame_age_s:.0f} s", "FacestreamCameraStalled"))
    for reasons, most, what, alert in (
        ({"undecodable"}, _DAMAGED, "frames are damaged", "FacestreamCameraDamaged"),
        ({"superseded", "stale"}, _BEHIND, "frames come too late for the worker", "FacestreamFallingBehind"),
    ):
        lost = sum(rate for reason, rate in camera.drops.items() if reason in reasons)
        if lost and lost / (lost + camera.fps) > most:
            told.append(_wrong(f"{name}: {100 * lost / (lost + camera.fps):.0f} % of its {what}", alert))
    if (camera.latency_p95_s or 0.0) > _LATE_S:
        text = f"{name}: one event in twenty takes longer than {camera.latency_p95_s:.1f} s"
        told.append(_wrong(text, "FacestreamEventsLate"))
    return told


def _of_alerts(parts: Parts) -> list[WrongDocument]:
    told = list[WrongDocument]()
    if in_sight() is not None:
        return told
    if (waiting := parts.book.waiting()).oldest_s > _WAITING_S:
        many = "1 alert waits" if waiting.count == 1 else f"{waiting.count} alerts wait"
        text = f"rules: {many}, the oldest for {waiting.oldest_s / 60:.0f} minutes"
        told.append(_wrong(text, "FacestreamAlertsWait"))
    since_s = time.time() - _GIVEN_UP_S
    if lost := sum(each.state == "failed" and each.made_s > since_s for each in parts.book.recent(_RECENT)):
        told.append(
            _wrong(f"rules: {lost} alert{'s' * (lost != 1)} of the last hour given up", "FacestreamAlertsGivenUp")
        )
    return told


@router.get("/status", operation_id="show_status")
def show_status(_caller: Reader, parts: SharedParts) -> StatusDocument:
    """Workers, cameras, and what is wrong now."""
    return status(parts)
