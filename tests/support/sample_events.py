"""Events for tests."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from worker.events.codec import encode, event_id, sighting_id
from worker.types import Event

STARTED_AT = datetime(2026, 3, 1, 8, 30, 0, 123_000, tzinfo=UTC)


def make_event(ordinal: int = 0, **changes: Any) -> Event:
    """A plausible event; ``ordinal`` makes it different from the others."""
    sighting = sighting_id("door", STARTED_AT, 7)
    event = Event(
        event_id=event_id(sighting, "updated", ordinal, "p-1"),
        type="updated",
        camera_id="door",
        track_id=7,
        sighting_id=sighting,
        identity_id="p-1",
        identity_name="Zoë Ångström",
        similarity=0.71,
        threshold=0.35,
        margin=0.4,
        quality=0.8,
        box=(1.0, 2.5, 33.25, 44.0),
        frame_size=(1920, 1080),
        captured_at=datetime(2026, 3, 1, 8, 30, 1, 500_000, tzinfo=UTC),
        started_at=STARTED_AT,
        ended_at=None,
        pts_s=float(ordinal),
        model_id="vggface2-resnet50",
        gallery_version=3,
        worker_id="worker-a",
        epoch=0,
    )
    return replace(event, **changes)


def stream_fields(event: Event, **changes: str | bytes) -> dict[Any, Any]:
    """``event`` as ``XADD`` takes it, with other values of some fields."""
    return {**encode(event), **changes}
