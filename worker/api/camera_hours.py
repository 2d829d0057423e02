"""Focus and light of a camera over time: how many faces before it were of no use, and why."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query

from worker.api import cameras
from worker.api.access import Reader, SharedParts
from worker.api.camera_documents import HourDocument, HoursPage
from worker.api.parts import Parts
from worker.api.problems import responses
from worker.history.hours import Hour
from worker.wire import rfc3339

router = APIRouter(tags=["cameras"])

HOURS: Final = 48
_MOST: Final = 24 * 31
_QUALITY: Final = ("blurred", "exposure", "pose", "too_small", "low_score")


def hours(parts: Parts, camera_id: str, most: int = HOURS) -> list[HourDocument]:
    """Of the last hours, as far as the past is kept.

    Raises:
        HistoryError: the past cannot be read.
    """
    since = datetime.now(UTC) - timedelta(hours=most - 1)
    with parts.history() as history:
        return [_document(hour) for hour in history.faces_by_hour(camera_id, since, _QUALITY)]


def _document(hour: Hour) -> HourDocument:
    return HourDocument(
        hour=rfc3339(hour.hour), faces=hour.faces, blurred=hour.rejected["blurred"], exposure=hour.rejected["exposure"]
    )


@router.get("/cameras/{camera_id}/hours", operation_id="list_camera_hours", responses=responses(HTTPStatus.NOT_FOUND))
def list_camera_hours(
    _caller: Reader, parts: SharedParts, camera_id: str, most: Annotated[int, Query(ge=1, le=_MOST)] = HOURS
) -> HoursPage:
    """How many faces were out of focus or badly lit, hour by hour, as far as the past is kept."""
    cameras.find(parts, camera_id)
    return HoursPage(items=hours(parts, camera_id, most))
