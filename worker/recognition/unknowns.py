"""Unknown people keep an id across sightings, cameras and restarts, for a limited time; then, perhaps, they get a
name."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from worker.config import RedisConfig, UnknownsConfig
from worker.erased import Erased
from worker.errors import GalleryError, HistoryError, SinkError
from worker.events.codec import decode, event_id
from worker.events.publisher import publish_at_once
from worker.gallery.contents import NewSample
from worker.gallery.gallery import Gallery
from worker.history.fleet_past import Choice, FleetPast
from worker.history.recorder import Recorder
from worker.history.records import EmbedderId, Naming, PastSighting, UnknownPerson, Vector
from worker.history.regrouped import Regrouped, nearest_of
from worker.history.reuniting import nearest
from worker.history.store import History
from worker.logs import get_logger
from worker.redis.client import Client
from worker.types import Embeddings, Event

_GROWTH: Final = 256
_MOST_EVIDENCE: Final = 50.0
"""A template counts as the mean of this many faces at most, so that later ones still move it."""

Going = tuple[str, datetime, Vector | None]
"""Of a sighting that goes on: the id that its unknown person got, since when, and its template (d,) if it has one."""

_log = get_logger(__name__)


def unknown_id_of(sighting_id: str) -> str:
    """The id of the unknown person who was first met in this sighting; the same footage gives the same one."""
    return f"u-{hashlib.sha256(sighting_id.encode()).hexdigest()[:12]}"


class Unknowns:
    """The unknown people of all cameras of a worker. Owned by the pipeline's thread.

    A person is as near as their template, the mean over their sightings: to link by the nearest sample would chain
    strangers together, one look-alike at a time. What ``history`` holds is taken up at the start. What other workers
    and commands change there is taken up before each search.
    """

    def __init__(
        self,
        config: UnknownsConfig,
        embedder: EmbedderId,
        dimension: int,
        *,
        recorder: Recorder | None = None,
        history: History | None = None,
        fleet: FleetPast | None = None,
    ) -> None:
        self._config = config
        self._embedder = embedder
        self._recorder = recorder
        self._history = history
        self._fleet = fleet
        self._revision = 0
        self._regrouped = Regrouped()
        self._asked: dict[str, UnknownPerson] = {}
        self._people: list[UnknownPerson] = []
        self._rows: dict[str, int] = {}
        self._templates = np.zeros((_GROWTH, dimension), np.float32)
        self._last_seen_s = np.zeros(_GROWTH, np.float64)
        self._refresh()

    def __len__(self) -> int:
        return len(self._people)

    @property
    def _remember(self) -> timedelta:
        retention = self._recorder.retention if self._recorder else None
        days = retention.unknowns_days if retention else None
        return timedelta(days=self._config.remember_days if days is None else days)

    def identify(
        self,
        sighting_id: str,
        template: Vector,
        evidence: int,
        at: datetime,
        *,
        threshold: float,
        taken: Collection[str] = (),
        beside: Iterable[Going] = (),
    ) -> str:
        """The id of the unknown person with this ``template`` (d,), known so far or new; empty where the database of
        the fleet has not said yet who it is: ask again with the next frame.

        ``threshold`` is the camera's, which applies unless another one is configured; ``taken`` are other people who
        are in front of the camera at the same time, and ``beside`` sightings of others, so that it is none of them.
        """
        self._refresh()
        taken = {*taken, *(self._now(*other) for other in beside)}
        if self._config.threshold is not None:
            threshold = self._config.threshold
        own_id = unknown_id_of(sighting_id)
        if own_id in self._asked and own_id in self._rows:
            # What the database has been told by this worker comes back with what others told it.
            self._unasked(own_id)
            return own_id
        count = len(self._people)
        if count:
            similarities = self._templates[:count] @ template
            away = np.abs(self._last_seen_s[:count] - at.timestamp()) > self._remember.total_seconds()
            similarities[away] = -1.0
            similarities[[self._rows[unknown_id] for unknown_id in taken if unknown_id in self._rows]] = -1.0
            row = int(similarities.argmax())
            if similarities[row] >= threshold:
                known_as = self._people[row].unknown_id
                if own_id in self._asked:
                    self.retract(own_id)
                return known_as
        own = UnknownPerson(own_id, self._embedder, template.copy(), evidence, at, at)
        # Copies: the database is asked in another thread, which may answer after this one has gone on.
        kept_apart, remember_s = frozenset(taken), self._remember.total_seconds()
        return self._claimed(own, lambda others: nearest(own, others, threshold, kept_apart, remember_s))

    def known_as(self, unknown_id: str, started_at: datetime, template: Vector | None) -> str:
        """Who the person of a sighting is now that goes on since ``started_at``, in case that people were merged or
        parted meanwhile: of two who were parted, the one who is nearer to ``template`` (d,)."""
        if unknown_id:
            self._refresh()
        return self._now(unknown_id, started_at, template)

    def _now(self, unknown_id: str, started_at: datetime, template: Vector | None) -> str:
        choices = self._regrouped.choices(unknown_id, started_at.timestamp())
        if len(choices) == 1:
            return choices[0]
        return nearest_of(
            template, choices, {one: self._templates[self._rows[one]] for one in choices if one in self._rows}
        )

    def conclude(self, sighting_id: str, template: Vector, evidence: int, at: datetime) -> str:
        """The id of the person of a sighting that ends: empty, unless the database of the fleet is asked for it."""
        own_id = unknown_id_of(sighting_id)
        if own_id not in self._asked:
            return ""
        return self._claimed(UnknownPerson(own_id, self._embedder, template.copy(), evidence, at, at), None)

    def _claimed(self, own: UnknownPerson, choose: Choice | None) -> str:
        """Who ``own`` is. Without ``choose`` there is no time left to be told."""
        person: UnknownPerson | None = own
        if self._fleet is not None:
            person = self._fleet.claim(own, choose or _nobody, at_once=choose is None)
        if person is None:
            self._asked[own.unknown_id] = own
            return ""
        self._asked.pop(own.unknown_id, None)
        self._keep(person)
        if person.unknown_id == own.unknown_id:
            self._record(person)
        return person.unknown_id

    def met(self, unknown_id: str, template: Vector, evidence: int, at: datetime, *, is_new: bool) -> None:
        """A sighting of this person ended ``at``, with all that was learnt from it. ``is_new``: it was the first."""
        row = self._rows.get(unknown_id)
        if row is None:
            return
        person = self._people[row]
        if is_new:
            mean = template
            total = float(evidence)
        else:
            known = self._templates[row] * min(person.embedded_faces, _MOST_EVIDENCE)
            mean = known + template * np.float32(evidence)
            mean = (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float32)
            total = person.embedded_faces + evidence
        person = replace(person, template=mean.copy(), embedded_faces=total, last_seen=max(person.last_seen, at))
        self._keep(person)
        self._record(person)

    def retract(self, unknown_id: str) -> None:
        """The sighting in which this person was first met turned out to be somebody known."""
        gone = self._unasked(unknown_id)
        if (row := self._rows.get(unknown_id)) is not None:
            gone = self._people[row]
            self._drop(unknown_id)
        if gone is not None:
            self._record(replace(gone, template=None))

    def erase(self, erased: Erased) -> None:
        """Forgets those who were erased."""
        self._refresh()
        for unknown_id in list(self._asked):
            self.retract(unknown_id)
        for unknown_id in [person.unknown_id for person in self._people if person.unknown_id in erased]:
            self._drop(unknown_id)

    def _unasked(self, unknown_id: str) -> UnknownPerson | None:
        """Asks the database no more who this is; returns whom it was asked about."""
        if self._fleet is not None:
            self._fleet.give_up(unknown_id)
        return self._asked.pop(unknown_id, None)

    def _record(self, person: UnknownPerson) -> None:
        if self._recorder is not None:
            self._recorder.unknown(person)

    def _refresh(self) -> None:
        if self._fleet is not None:
            changed, self._regrouped = self._fleet.changed(), self._fleet.regrouped()
        elif self._history is not None:
            try:
                before = self._revision
                changed, self._revision = self._history.unknowns(before)
                if self._revision != before:
                    self._regrouped = self._history.regrouped()
            except HistoryError as error:
                _log.warning("unknown people are remembered by this worker alone", reason=str(error))
                return
        else:
            return
        for person in changed:
            if person.template is None:
                self._drop(person.unknown_id)
            elif person.embedder == self._embedder and person.template.shape == self._templates.shape[1:]:
                self._keep(person)

    def _keep(self, person: UnknownPerson) -> None:
        row = self._rows.get(person.unknown_id)
        if row is None:
            if len(self._people) >= self._config.max_people:
                oldest = int(self._last_seen_s[: len(self._people)].argmin())
                self._record(replace(self._people[oldest], template=None))
                self._drop(self._people[oldest].unknown_id)
            row = self._rows[person.unknown_id] = len(self._people)
            self._people.append(person)
            if row == len(self._templates):
                self._templates = np.concatenate([self._templates, np.zeros_like(self._templates)])
                self._last_seen_s = np.concatenate([self._last_seen_s, np.zeros_like(self._last_seen_s)])
        self._people[row] = person
        self._templates[row] = person.template
        self._last_seen_s[row] = person.last_seen.timestamp()

    def _drop(self, unknown_id: str) -> None:
        """Fills the gap with the last row."""
        row = self._rows.pop(unknown_id, None)
        if row is None:
            return
        last = len(self._people) - 1
        if row != last:
            self._people[row] = self._people[last]
            self._rows[self._people[row].unknown_id] = row
            self._templates[row] = self._templates[last]
            self._last_seen_s[row] = self._last_seen_s[last]
        self._people.pop()
        self._templates[last] = 0.0


def _nobody(_others: list[UnknownPerson]) -> None:
    """It is not asked any more."""


_PAGE: Final = 500
MOST_SAMPLES: Final = 5
"""The most sightings whose templates become samples, the best ones: further ones look alike."""


@dataclass(frozen=True, slots=True)
class Named:
    """Who an unknown person is now, and what is to be published of their past sightings."""

    identity_id: str
    identity_name: str
    sample_ids: tuple[str, ...]
    sightings: tuple[PastSighting, ...]
    corrections: tuple[Event, ...]

    @property
    def samples(self) -> int:
        """How many faces were enrolled."""
        return len(self.sample_ids)


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
    samples = _samples(name, person, sightings)
    gallery.add(samples)
    known_as = gallery.person(name)
    corrections = [
        correction(sighting, gallery, identity_id=known_as.identity_id, name=known_as.name) for sighting in sightings
    ]
    # Not what `add` returns: after a failure, some are there already.
    wanted = {sample.photo_sha256 for sample in samples}
    added = tuple(sample.sample_id for sample in known_as.samples if sample.photo_sha256 in wanted)
    return Named(known_as.identity_id, known_as.name, added, tuple(sightings), tuple(corrections))


def settle(unknown_id: str, named: Named, history: History) -> str:
    """Notes in ``history`` who the person was, and that they are unknown no more. Returns the id of this step, by
    which :meth:`History.naming` finds what :func:`take_name_back` takes back.

    Raises:
        HistoryError: it cannot be written.
    """
    sighting_ids = [sighting.sighting_id for sighting in named.sightings]
    return history.name_unknown(
        unknown_id, sighting_ids, named.identity_id, named.identity_name, named.sample_ids
    )  # fmt: skip


def take_name_back(naming: Naming, history: History, gallery: Gallery, client: Client, config: RedisConfig) -> None:
    """Publishes that a name was wrong, removes what the naming has enrolled, and makes the person unknown again. May be
    repeated after a failure.

    If nothing but this naming made the person known, all sightings that bear the name are meant, also later ones.

    Raises:
        SinkError: Redis does not take it, and nothing was changed.
        GalleryError: the gallery cannot be written.
        HistoryError: it was undone meanwhile, or cannot be written.
    """
    theirs = _named(naming, history, gallery)
    corrections = [correction(sighting, None, unknown_id=naming.unknown_id) for sighting in theirs]
    if lost := publish_at_once(client, config, corrections):
        raise SinkError(f"{lost} of {len(corrections)} 'corrected' events could not be delivered, and the name stays; "
                        "try again")  # fmt: skip
    for sample_id in sorted(set(naming.samples) & _samples_of(naming.identity_id, gallery)):
        gallery.remove_sample(sample_id)
    history.take_name_back(naming, [sighting.sighting_id for sighting in theirs])
    if not gallery.knows(naming.identity_id):
        history.forget_denials_of(naming.identity_id)


def _named(naming: Naming, history: History, gallery: Gallery) -> list[PastSighting]:
    """The sightings that are to be unknown again. Those to which people have given another name since are not."""
    wanted = None if _samples_of(naming.identity_id, gallery) <= set(naming.samples) else set(naming.sightings)
    theirs = all_of(history, naming.identity_id)
    return [sighting for sighting in theirs if wanted is None or sighting.sighting_id in wanted]


def all_of(history: History, identity_id: str) -> list[PastSighting]:
    """All past sightings that name this person, newest first."""
    found: list[PastSighting] = []
    before: tuple[float, str] | None = None
    while page := history.page(_PAGE, identity_id=identity_id, before=before):
        before = page[-1].started_at.timestamp(), page[-1].sighting_id
        found += page
    return found


def _samples_of(identity_id: str, gallery: Gallery) -> set[str]:
    return {sample.sample_id for sample in gallery.contents.samples_of(identity_id)}


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


def publish_regrouping(client: Client, config: RedisConfig, sightings: Sequence[PastSighting], unknown_id: str) -> None:
    """Publishes that the person of ``sightings`` is ``unknown_id`` now.

    Raises:
        SinkError: Redis does not take it.
    """
    if publish_at_once(client, config, [correction(sighting, None, unknown_id=unknown_id) for sighting in sightings]):
        raise SinkError("the 'corrected' events could not be delivered, and nothing was changed; try again")


def correction(
    sighting: PastSighting, gallery: Gallery | None, *, identity_id: str = "", name: str = "", unknown_id: str = ""
) -> Event:
    """The event which says that ``sighting`` shows this person. It has the same id each time it is made, until the
    history has taken the correction.

    Where a worker named the same person, its own cosines are told. ``gallery`` holds the person ``identity_id``, and is
    not needed for somebody unknown. Nobody but the owner of a camera speaks by the
    camera's epoch: so the event has none, and is delivered though the camera has changed hands since.
    """
    event = decode(sighting.event)
    similarity, margin = event.similarity, event.margin
    if gallery is not None and identity_id and identity_id != event.identity_id:
        similarity = margin = None
        if sighting.template is not None and sighting.embedder == made_with(gallery):
            (candidate,) = gallery.search(Embeddings(np.array([sighting.template]), sighting.embedder.model_id))
            vectors, _samples = gallery.vectors(identity_id)
            similarity = float((vectors @ sighting.template).max())
            if candidate.identity_id == identity_id:
                margin = candidate.similarity - candidate.runner_up if candidate.runner_up_id else None
    return replace(
        event,
        event_id=event_id(sighting.sighting_id, "corrected", sighting.corrections, identity_id or unknown_id),
        type="corrected",
        identity_id=identity_id,
        identity_name=name,
        unknown_id=unknown_id,
        similarity=similarity,
        margin=margin,
        gallery_version=event.gallery_version if gallery is None else gallery.version,
        epoch=0,
        groups="" if gallery is None else ",".join(gallery.contents.membership(identity_id).groups),
    )


def made_with(gallery: Gallery) -> EmbedderId:
    """What made the vectors of ``gallery``."""
    return EmbedderId(gallery.model_id, gallery.preprocessing_digest)
