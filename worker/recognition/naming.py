"""An unknown person gets a name: enrolled from what was remembered, and their past sightings corrected."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.errors import GalleryError
from worker.events.codec import decode, event_id
from worker.gallery.contents import NewSample
from worker.gallery.gallery import Gallery
from worker.history.store import History, PastSighting, UnknownPerson, Vector
from worker.types import Embeddings, Event

MOST_SAMPLES: Final = 5
"""Sightings whose templates become samples, the best first: more look alike."""


@dataclass(frozen=True, slots=True)
class Named:
    """Who an unknown person is now, and what is to be published of their past sightings."""

    identity_id: str
    identity_name: str
    samples: int
    sightings: tuple[PastSighting, ...]
    corrections: tuple[Event, ...]


def enroll_unknown(unknown_id: str, name: str, history: History, gallery: Gallery) -> Named:
    """Adds the unknown person to ``gallery`` as ``name``, and makes the ``corrected`` events of their past sightings.

    May be repeated after a failure: samples are not added twice and the events have the same ids. Call
    :func:`settle` once the events are delivered.

    Raises:
        HistoryError: no such unknown person.
        GalleryError: another model, or the gallery cannot be written.
    """
    person = history.unknown(unknown_id)
    gallery.require_model(person.embedder.model_id, person.embedder.preprocessing_digest)
    sightings = history.sightings(unknown_id=unknown_id)
    stored = gallery.add(_samples(name, person, sightings))
    identity_id = gallery.person(name).identity_id
    corrections = [_correction(sighting, identity_id, name, gallery) for sighting in sightings]
    added = sum(sample is not None for sample in stored)
    return Named(identity_id, name, added, tuple(sightings), tuple(corrections))


def settle(unknown_id: str, named: Named, history: History) -> None:
    """Notes in ``history`` who the person was, and that they are unknown no more.

    Raises:
        HistoryError: it cannot be written.
    """
    sighting_ids = [sighting.sighting_id for sighting in named.sightings]
    history.name_sightings(sighting_ids, named.identity_id, named.identity_name)
    history.drop_unknown(unknown_id)


def _samples(name: str, person: UnknownPerson, sightings: Sequence[PastSighting]) -> list[NewSample]:
    usable = [s for s in sightings if s.template is not None and s.embedder == person.embedder]
    best = sorted(usable, key=lambda sighting: (-(sighting.quality or 0.0), sighting.sighting_id))[:MOST_SAMPLES]
    faces: list[tuple[str, Vector, float]] = [
        (f"sighting {s.sighting_id}", s.template, s.quality or 0.0) for s in best if s.template is not None
    ]
    if not faces and person.template is not None:
        faces = [(f"unknown {person.unknown_id}", person.template, 0.0)]
    if not faces:
        raise GalleryError(f"nothing is left of {person.unknown_id} to enroll from")
    return [
        NewSample(name, vector, origin, hashlib.sha256(vector.tobytes()).hexdigest(), quality=quality)
        for origin, vector, quality in faces
    ]


def _correction(sighting: PastSighting, identity_id: str, name: str, gallery: Gallery) -> Event:
    event = decode(sighting.event)
    similarity = margin = None
    if sighting.template is not None:
        (candidate,) = gallery.search(Embeddings(np.array([sighting.template]), sighting.embedder.model_id))
        if candidate.identity_id == identity_id:
            similarity = candidate.similarity
            margin = candidate.similarity - candidate.runner_up if candidate.runner_up_id else None
    return replace(
        event,
        event_id=event_id(sighting.sighting_id, "corrected", sighting.corrections, identity_id),
        type="corrected",
        identity_id=identity_id,
        identity_name=name,
        unknown_id="",
        similarity=similarity,
        margin=margin,
        gallery_version=gallery.version,
    )
