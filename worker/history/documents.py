"""What is remembered of the past as JSON values: what commands print with ``--json``, and what the API answers."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from worker.history.records import PastSighting, Tally, UnknownPerson
from worker.wire import rfc3339

Document = dict[str, Any]


def sighting_document(sighting: PastSighting) -> Document:
    """A past sighting, without its template."""
    return {
        "sighting_id": sighting.sighting_id,
        "camera_id": sighting.camera_id,
        "started_at": rfc3339(sighting.started_at),
        "ended_at": rfc3339(sighting.ended_at),
        "identity_id": sighting.identity_id,
        "identity_name": sighting.identity_name,
        "unknown_id": sighting.unknown_id,
        "quality": None if sighting.quality is None else round(sighting.quality, 4),
        "model_id": sighting.embedder.model_id,
        "denied": [
            {"at": rfc3339(denial.at), "identity_id": denial.identity_id, "identity_name": denial.identity_name}
            for denial in sighting.denials
        ],
    }


def unknown_document(person: UnknownPerson, sightings: int, cameras: Collection[str]) -> Document:
    """An unknown person, without what they are recognised by; ``sightings``: how often they were seen."""
    return {
        "unknown_id": person.unknown_id,
        "sightings": sightings,
        "first_seen": rfc3339(person.first_seen),
        "last_seen": rfc3339(person.last_seen),
        "cameras": sorted(cameras),
        "model_id": person.embedder.model_id,
        "ignored": person.is_ignored,
    }


def tally_document(tally: Tally) -> Document:
    """Faces and tracks of one camera and hour that never became a sighting."""
    return asdict(tally) | {"hour": rfc3339(tally.hour)}
