"""What there is of a person: found before anything is changed, and shown to those who are asked."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from worker import encryption
from worker.config import Config, history_place
from worker.database.owned import REPLIES
from worker.erased import Erasure, digest_of, with_keys
from worker.erasure import search
from worker.errors import ErasureError, GalleryError
from worker.events.erasing import Seen
from worker.gallery.contents import Contents
from worker.gallery.crops import CropStore
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.history.erasing import Someone, Trace, Wanted
from worker.history.records import EmbedderId
from worker.history.retention import Retention
from worker.history.store import FILE, History
from worker.people_keys import named
from worker.types import Embeddings, Vectors

_THRESHOLD: Final = 0.5
"""For the past of a gallery whose model is not at hand and that is not calibrated."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks to be forgotten: ids and names of people, ids of unknown people, or faces (n, d) of one model.

    ``trained``: id and name of somebody whom a classifier names, where there is no gallery."""

    people: tuple[str, ...] = ()
    trained: tuple[tuple[str, str], ...] = ()
    unknown_ids: tuple[str, ...] = ()
    faces: tuple[EmbedderId, Vectors, float] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything of them. ``beside``: sightings of others (id, camera, start) whose whole frames may show them.
    ``needles``: what to look for in files afterwards; ``unsearched``: names that cannot be looked for. ``tags``: of the
    keys by which a database has sealed all of this, with "" among them if it has not sealed something; empty without a
    database. ``retention``: for how long things are kept, as far as a database says so."""

    identity_ids: frozenset[str]
    names: frozenset[str]
    sample_ids: frozenset[str]
    unknown_ids: frozenset[str]
    traces: tuple[Trace, ...]
    beside: tuple[tuple[str, str, float], ...]
    crops: int
    needles: tuple[bytes, ...]
    unsearched: tuple[str, ...]
    tags: frozenset[str] = frozenset()
    retention: Retention = field(default_factory=Retention)

    def __bool__(self) -> bool:
        return bool(self.identity_ids or self.unknown_ids or self.traces)

    def erasure(self, erasure_id: str, at: str) -> Erasure:
        """What the list of erased people gets."""
        ids = {*self.identity_ids, *self.sample_ids, *self.unknown_ids, *(trace.sighting_id for trace in self.traces)}
        return Erasure(erasure_id, at, frozenset(map(digest_of, ids)) | with_keys(self.tags - {""}))

    @property
    def someone(self) -> Someone:
        """What the past has of them."""
        seen = {trace.sighting_id for trace in self.traces}
        return Someone(self.identity_ids, self.unknown_ids, seen, self.names)

    @property
    def is_sealed(self) -> bool:
        """Whether all that a database has of them goes with the keys."""
        return bool(self.tags) and "" not in self.tags

    def seen(self) -> list[Seen]:
        """The sightings, as consumers are told of them."""
        return [
            Seen(trace.sighting_id, trace.camera_id, _time(trace.started_s), _time(trace.ended_s), trace.identity_id,
                 trace.unknown_id)
            for trace in self.traces
        ]  # fmt: skip

    def ids(self) -> list[tuple[str, str]]:
        """The ids, as consumers are told of them."""
        return [
            *((identity_id, "") for identity_id in sorted(self.identity_ids)),
            *(("", unknown_id) for unknown_id in sorted(self.unknown_ids)),
        ]

    def document(self) -> dict[str, int]:
        """How much there is of what."""
        return {
            "people": len(self.identity_ids),
            "samples": len(self.sample_ids),
            "crops": self.crops,
            "unknown_people": len(self.unknown_ids),
            "past_sightings": len(self.traces),
            "frames_of_others": len(self.beside),
        }


def galleries_of(gallery: Gallery) -> list[Gallery]:
    """The gallery, and the one that the last switch of models put aside."""
    previous = gallery.previous() if isinstance(gallery, DatabaseGallery | FolderGallery) else None
    return [gallery, *filter(None, [previous])]


def make_plan(request: Request, galleries: Sequence[Gallery], config: Config) -> Plan:
    """What there is of the people in ``request``, in ``galleries`` and in the past of a worker with ``config``.

    Raises:
        GalleryError: nobody is called so, or a gallery is damaged.
        HistoryError: the past cannot be read.
        ErasureError: there is nobody like that.
    """
    identity_ids = {_resolve(galleries, person) for person in request.people} | {key for key, _ in request.trained}
    if request.faces is not None:
        identity_ids |= _shown(request.faces, galleries)
    place = history_place(config)
    if place is not None and not has_past(place):
        place = None
    earlier_names: set[str] = set()
    if place is not None:
        with History.open(place) as history:
            identity_ids, earlier_names = history.known_as(identity_ids)
    versions = [version for gallery in galleries for version in _versions(gallery)]
    sample_ids, names = _known_as(identity_ids, versions, galleries[0].contents if galleries else None)
    vectors = [_vectors_of(version, sample_ids) for version in versions]
    faces = _faces_by_model(versions, sample_ids, galleries)
    if request.faces is not None and request.faces[0] not in faces:
        faces[request.faces[0]] = request.faces[1:]
    wanted = Wanted(frozenset(identity_ids), frozenset(request.unknown_ids), faces)
    traces: Sequence[Trace] = ()
    unknown_ids = frozenset(request.unknown_ids)
    beside: tuple[tuple[str, str, float], ...] = ()
    others = {
        key: name for gallery in galleries for key, name in gallery.contents.names.items() if key not in identity_ids
    }
    staying = {*others.values()}
    gone_names = frozenset({*names, *earlier_names, *(name for _, name in request.trained)} - staying)
    templates: list[bytes] = []
    tags: set[str] = set()
    retention = Retention()
    if place is not None:
        with History.open(place) as history:
            traces, unknown_ids, past_names = history.traces(wanted)
            gone_names |= past_names - staying
            beside = tuple(history.beside(traces))
            seen = {trace.sighting_id for trace in traces}
            templates = history.templates_of(seen, unknown_ids)
            retention = history.retention()
            if isinstance(place, str):
                tags |= history.tags_of(Someone(identity_ids, unknown_ids, seen, gone_names), others)
    of_names, unsearched = search.needles_of_names(gone_names, staying)
    of_vectors = [needle for some in vectors if len(some) for needle in search.needles_of_vectors(some)]
    needles = tuple(dict.fromkeys([*of_names, *of_vectors, *(raw[: search.NEEDLE_BYTES] for raw in templates)]))
    by_face = {trace.sighting_id for trace in traces if not trace.identity_id and not trace.unknown_id}
    ids = {*identity_ids, *unknown_ids, *by_face}
    tags |= _tags(galleries, identity_ids, ids, gone_names, isinstance(place, str))
    crops = sum(len(sample_ids & CropStore(gallery.folder).sample_ids()) for gallery in galleries[:1] if gallery.folder)
    plan = Plan(frozenset(identity_ids), gone_names, frozenset(sample_ids), unknown_ids, tuple(traces), beside, crops,
                needles, tuple(unsearched), frozenset(tags), retention)  # fmt: skip
    if not plan:
        raise ErasureError("nobody like that is known, and no past sighting shows them: there is nothing to forget")
    return plan


def _tags(
    galleries: Sequence[Gallery],
    identity_ids: Collection[str],
    ids: Collection[str],
    names: Collection[str],
    has_shared_past: bool,
) -> set[str]:
    """By which keys galleries in a database have sealed these people, and those by which anything will be sealed that a
    worker writes of them until it knows; "" is among them if something is not sealed."""
    shared = [gallery for gallery in galleries if isinstance(gallery, DatabaseGallery)]
    if not shared and not has_shared_past:
        return set()
    tags = {tag for gallery in shared for tag in gallery.tags_of(identity_ids)}
    if (keys := encryption.keys().people) is None:
        return tags | {""}
    again = [REPLIES, *(named(name).owner for name in names)]
    return tags | {keys.tag_of(an_id) for an_id in ids} | {keys.living_tag_of(owner) for owner in again}


def has_past(place: Path | str) -> bool:
    """Whether there is a history, which is true of every database."""
    return isinstance(place, str) or (place / FILE).exists()


def _resolve(galleries: Sequence[Gallery], person: str) -> str:
    """The id of a person, who may be only in a gallery that was put aside."""
    for gallery in galleries[1:]:
        with suppress(GalleryError):
            return galleries[0].person(person).identity_id
        with suppress(GalleryError):
            return gallery.person(person).identity_id
    return galleries[0].person(person).identity_id


def _shown(faces: tuple[EmbedderId, Vectors, float], galleries: Sequence[Gallery]) -> set[str]:
    embedder, vectors, threshold = faces
    found: set[str] = set()
    for gallery in galleries:
        if (gallery.model_id, gallery.preprocessing_digest) == (embedder.model_id, embedder.preprocessing_digest):
            for candidate in gallery.search(Embeddings(vectors, embedder.model_id)):
                if candidate.identity_id and candidate.similarity >= threshold:
                    found.add(candidate.identity_id)
    return found


def _versions(gallery: Gallery) -> list[Contents]:
    past = gallery.past_contents() if isinstance(gallery, FolderGallery) else []
    return [*past, gallery.contents]


def _known_as(identity_ids: set[str], versions: Sequence[Contents], now: Contents | None) -> tuple[set[str], set[str]]:
    """Adds to ``identity_ids`` the ids under which these people were before they were merged; returns their samples and
    names in all versions. Who is somebody else in the version in use, ``now``, is left out with all samples: the two
    were one for a while, and that was undone."""
    samples: set[str] = set()
    others = set() if now is None else now.names.keys() - identity_ids
    not_theirs = set() if now is None else {each.sample_id for each in now.samples if each.identity_id in others}
    while True:
        for version in versions:
            for sample in version.samples:
                if sample.identity_id in identity_ids and sample.sample_id not in not_theirs:
                    samples.add(sample.sample_id)
        owners = {
            sample.identity_id for version in versions for sample in version.samples if sample.sample_id in samples
        } - others
        if owners <= identity_ids:
            break
        identity_ids |= owners
    names = {name for version in versions for key, name in version.names.items() if key in identity_ids}
    return samples, names


def _vectors_of(version: Contents, sample_ids: Collection[str]) -> Vectors:
    rows = [
        block.vectors[row]
        for block in version.blocks
        for row, sample in enumerate(block.samples)
        if sample.sample_id in sample_ids
    ]
    return np.stack(rows) if rows else np.empty((0, version.dimension), np.float32)


def _faces_by_model(
    versions: Sequence[Contents], sample_ids: Collection[str], galleries: Sequence[Gallery]
) -> dict[EmbedderId, tuple[Vectors, float]]:
    thresholds = {_made_with(gallery.contents): gallery.threshold for gallery in galleries}
    faces: dict[EmbedderId, tuple[Vectors, float]] = {}
    for version in versions:
        mine = _vectors_of(version, sample_ids)
        made_with = _made_with(version)
        if len(mine):
            threshold = thresholds.get(made_with)
            before = faces[made_with][0] if made_with in faces else mine[:0]
            faces[made_with] = np.concatenate([before, mine]), _THRESHOLD if threshold is None else threshold
    return faces


def _made_with(contents: Contents) -> EmbedderId:
    return EmbedderId(contents.model_id, contents.preprocessing_digest)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def counted(count: Counter[str]) -> str:
    """``2 sightings, 1 unknown person``, or ``nothing``."""
    return ", ".join(_one_or_many(number, what) for what, number in sorted(count.items())) or "nothing"


def _one_or_many(number: int, what: str) -> str:
    if number == 1:
        noun, _, rest = what.replace("people", "person").partition(" of ")
        what = f"{noun.removesuffix('s')} of {rest}" if rest else noun.removesuffix("s")
    return f"{number} {what}"
