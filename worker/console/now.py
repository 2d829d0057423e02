"""What happens now: the newest sightings, and those to come."""

from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from worker.api import fleet
from worker.api.access import SharedParts
from worker.api.live import Entry
from worker.api.parts import Parts
from worker.api.sight import in_sight, sees
from worker.console.pages import Visitor, render
from worker.errors import SinkError
from worker.events.codec import decode
from worker.events.consumer.streams import stream_keys
from worker.redis.errors import told_redis_errors
from worker.types import Event
from worker.wire import as_text

router = APIRouter(include_in_schema=False)

_ENTRIES: Final = 120
_SHOWN: Final = 30
_PAGES: Final = 20
"""So far back is looked for the events of some cameras alone."""
_BEGINNING: Final = "0-0"


@router.get("/")
def now_page(caller: Visitor, parts: SharedParts) -> HTMLResponse:
    """The strip of sightings, newest first, and the cameras."""
    problem, entries = "", list[Entry]()
    try:
        entries = recent(parts, _ENTRIES)
    except SinkError as error:
        problem = str(error)
    newest: dict[str, Event] = {}
    for _, event in entries:
        newest.setdefault(event.sighting_id, event)
    # A correction is about somebody who came by before.
    events = sorted(newest.values(), key=lambda event: event.started_at, reverse=True)
    return render(
        "now", caller, events=events[:_SHOWN], after=entries[0][0] if entries else _BEGINNING,
        problem=problem, most=_SHOWN, **_tiles(parts),
    )  # fmt: skip


@router.get("/now/cameras")
def tiles(caller: Visitor, parts: SharedParts) -> HTMLResponse:
    """The cameras alone, which the open page asks for again and again."""
    return render("tiles", caller, **_tiles(parts))


def _tiles(parts: Parts) -> dict[str, Any]:
    status = fleet.status(parts)
    cameras = [camera | {"worker": worker} for worker in status.workers for camera in worker["cameras"]]
    return {"cameras": cameras, "unowned": status.unowned}


def recent(parts: Parts, most: int) -> list[Entry]:
    """The newest entries of the stream, newest first.

    Raises:
        SinkError: Redis cannot be asked.
    """
    found: list[tuple[tuple[int, int], Entry]] = []
    with told_redis_errors(parts.config.redis):
        client: Any = parts.redis()
        for key in stream_keys(client, parts.config.redis.stream):
            found += _newest(parts, client, key, most)
    found.sort(key=lambda each: each[0], reverse=True)
    return [entry for _, entry in found[:most]]


def _newest(parts: Parts, client: Any, key: str, most: int) -> list[tuple[tuple[int, int], Entry]]:
    """Of one stream, those that are in sight; the events of other cameras may lie between them."""
    found: list[tuple[tuple[int, int], Entry]] = []
    end = "+"
    for _ in range(_PAGES):
        page = client.xrevrange(key, max=end, count=most)
        for raw_id, fields in page:
            entry_id = as_text(raw_id)
            end = f"({entry_id}"
            with suppress(SinkError):  # what is no event is none of ours
                event = decode(fields)
                if sees(event.camera_id) and not parts.is_erased(event):
                    found.append((_order(entry_id), (entry_id, event)))
        if len(found) >= most or len(page) < most or in_sight() is None:
            break
    return found


def _order(entry_id: str) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition("-")
    return int(time_ms), int(number)
