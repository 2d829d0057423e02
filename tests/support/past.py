"""Sightings and unknown people of the past, and a recorder that keeps what it is told of them."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np

from tests.support.sample_events import make_event
from worker.events.codec import encode
from worker.history.recorder import Recorder
from worker.history.records import Account, EmbedderId, PastSighting, UnknownPerson

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL = EmbedderId("m", "digest")
AXES = np.eye(16, dtype=np.float32)


def sighting(number: int = 0, template: np.ndarray | None = AXES[0], **changes: Any) -> PastSighting:
    started = NOON + timedelta(minutes=number)
    fields: dict[str, Any] = {
        "sighting_id": f"door_{number}",
        "camera_id": "door",
        "started_at": started,
        "ended_at": started + timedelta(seconds=10),
        "identity_id": "",
        "identity_name": "",
        "unknown_id": "",
        "embedder": MODEL,
        "template": template,
        "embedded_faces": 3,
        "quality": 0.75,
        "event": encode(make_event()),
        "account": Account(faces=5, rejected=Counter(blurred=2), embedded=3, reason="below_threshold"),
    }
    return PastSighting(**(fields | changes))


def unknown(name: str = "u-1", template: np.ndarray | None = AXES[0], **changes: Any) -> UnknownPerson:
    fields: dict[str, Any] = {
        "unknown_id": name, "embedder": MODEL, "template": template, "embedded_faces": 2.0, "first_seen": NOON,
        "last_seen": NOON,
    }  # fmt: skip
    return UnknownPerson(**(fields | changes))


class Notes:
    """A recorder that keeps in memory what it is told."""

    retention = None

    def __init__(self) -> None:
        self.people: list[UnknownPerson] = []
        self.sightings: list[PastSighting] = []
        self.rejects: list[tuple[str, int, int]] = []

    @property
    def recorder(self) -> Recorder:
        return cast(Recorder, self)

    def unknown(self, person: UnknownPerson) -> None:
        self.people.append(person)

    def sighting(self, sighting: PastSighting) -> None:
        self.sightings.append(sighting)

    def rejected(self, camera_id: str, at: datetime, reason: str, *, tracks: int = 0, faces: int = 0) -> None:
        self.rejects.append((reason, tracks, faces))
