"""Consumers learn that somebody was erased; entries of that person are taken out of streams, where this is asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from worker.erased import Erased
from worker.events.codec import ERASED_BY, event_id, sighting_id
from worker.events.consumer.streams import FIND_COUNT, stream_keys
from worker.redis.client import Client
from worker.redis.keys import CAMERA_PLACEHOLDER, beside
from worker.types import Event
from worker.wire import as_text

NO_CAMERA: Final = "erased"
"""The camera of an event that is about a person, and about no sighting of one camera."""
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """A sighting that was erased."""

    sighting_id: str
    camera_id: str
    started_at: datetime
    ended_at: datetime
    identity_id: str
    unknown_id: str


def erased_events(
    client: Client, stream: str, sightings: Iterable[Seen], ids: Iterable[tuple[str, str]], at: datetime, by: str
) -> list[Event]:
    """The events that tell every consumer of ``stream``: one for each sighting, and in each stream one for each of
    ``ids``, which are pairs of ``identity_id`` and ``unknown_id``, of which one may be empty.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    cameras = [NO_CAMERA]
    if CAMERA_PLACEHOLDER in stream:
        before, after = stream.split(CAMERA_PLACEHOLDER, 1)
        cameras = [key[len(before) : len(key) - len(after)] for key in stream_keys(client, stream)]
    people = [
        Seen(sighting_id(camera, at, number), camera, at, at, *pair)
        for camera in cameras
        for number, pair in enumerate(ids)
    ]
    return [_event(seen, at, by) for seen in (*sightings, *people)]


def delete_entries(client: Client, stream: str, erased: Erased) -> int:
    """Deletes the entries of ``stream`` that bear an id of ``erased``, and such dead letters of its groups; returns how
    many. Events of the type ``erased`` stay.

    Raises:
        RedisError, OSError: Redis does not answer, or refuses.
    """
    gone = 0
    for key in stream_keys(client, stream):
        dead = beside(key, "dead:").replace("\\", "\\\\").replace("[", "\\[").replace("*", "\\*").replace("?", "\\?")
        letters = client.scan_iter(match=f"{dead}*", count=FIND_COUNT, _type="stream")
        for name in [key, *map(as_text, letters)]:
            for page in _pages(client, name):
                if doomed := [entry_id for entry_id, fields in page if _bears(fields, erased)]:
                    gone += int(client.xdel(name, *doomed))
    return gone


def _pages(client: Client, key: str) -> Iterator[Sequence[tuple[str, Mapping[Any, Any]]]]:
    first = "-"
    while page := client.xrange(key, min=first, count=_PAGE):
        entries = [(as_text(entry_id or b""), fields or {}) for entry_id, fields in page]
        yield entries
        first = f"({entries[-1][0]}"


def _bears(fields: Mapping[Any, Any], erased: Erased) -> bool:
    texts = {as_text(name): as_text(value) for name, value in fields.items()}
    return texts.get("type") != "erased" and any(texts.get(name, "") in erased for name in ERASED_BY)


def _event(seen: Seen, at: datetime, by: str) -> Event:
    number = seen.sighting_id.rpartition("_")[2]
    return Event(
        event_id=event_id(seen.sighting_id, "erased", 0, seen.identity_id or seen.unknown_id),
        type="erased",
        camera_id=seen.camera_id,
        track_id=int(number) if number.isdecimal() else 0,
        sighting_id=seen.sighting_id,
        identity_id=seen.identity_id,
        identity_name="",
        similarity=None,
        threshold=None,
        margin=None,
        quality=None,
        box=(0.0, 0.0, 0.0, 0.0),
        frame_size=(0, 0),
        captured_at=at.astimezone(UTC),
        started_at=seen.started_at,
        ended_at=seen.ended_at,
        pts_s=0.0,
        model_id="",
        gallery_version=0,
        worker_id=by,
        epoch=0,
        unknown_id=seen.unknown_id,
    )
