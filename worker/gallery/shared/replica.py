"""A copy of a shared gallery: what a process holds of it, how it is written down, and how two become one."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from worker.errors import GalleryError
from worker.gallery.contents import Contents, Sample, empty
from worker.logs import get_logger
from worker.types import Vectors

FORMAT: Final = "facestream.shared_gallery.v1"

_log = get_logger(__name__)

Meta = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Copy:
    """One version of a shared gallery.

    ``incarnation`` is made when a gallery is created or restored; ``change`` is the id of the change that made the
    version. ``contains`` holds earlier incarnations with the last version of each that went into this one, and
    ``removed`` the ids of removed samples.
    """

    state: Contents
    incarnation: str
    change: str
    contains: Mapping[str, int] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    @property
    def place(self) -> tuple[str, str, str]:
        """What names this very version to a script."""
        return self.incarnation, str(self.state.version), self.change

    def has_seen(self, other: "Copy") -> bool:
        """Whether this copy, of another incarnation, grew out of ``other`` or a later version of it."""
        return self.contains.get(other.incarnation, 0) >= other.state.version

    def same_model(self, other: "Copy") -> bool:
        """Whether the vectors of both compare."""
        mine, theirs = self.state, other.state
        return (mine.model_id, mine.preprocessing_digest) == (theirs.model_id, theirs.preprocessing_digest)


def new_id() -> str:
    """The id of an incarnation or a change."""
    return secrets.token_hex(8)


def first_copy(model_id: str, preprocessing_digest: str, dimension: int) -> Copy:
    """A gallery of nobody."""
    return Copy(replace(empty(model_id, preprocessing_digest, dimension), version=1), new_id(), new_id())


def meta_of(state: Contents) -> dict[str, str]:
    """What is kept of a state beside people and samples."""
    return {
        "format": FORMAT,
        "model_id": state.model_id,
        "preprocessing_digest": state.preprocessing_digest,
        "dimension": str(state.dimension),
        "threshold": json.dumps(state.threshold),
        "camera_thresholds": json.dumps(state.camera_thresholds),
        "calibration": json.dumps(state.calibration),
        "created_at": state.created_at,
    }


def meta_of_copy(copy: Copy) -> dict[str, str]:
    """All that is kept of a copy beside people and samples; version and change come first."""
    own = {"version": str(copy.state.version), "change": copy.change, "incarnation": copy.incarnation}
    return own | meta_of(copy.state) | {"contains": json.dumps(dict(copy.contains))}


def record_of(sample: Sample, place: tuple[int, int], vector: Vectors) -> bytes:
    """A sample as Redis holds it: its fields, ``place`` in the gallery's order, and the digest of its vector."""
    return json.dumps(asdict(sample) | {"place": place, "vector_sha256": _digest(raw_vector(vector))}).encode()


def raw_vector(vector: Vectors) -> bytes:
    """A vector as Redis holds it: float32, little-endian."""
    return vector.astype("<f4").tobytes()


@dataclass(frozen=True, slots=True)
class Stored:
    """A sample as read from Redis; ``vector`` is None where it was not asked for or is damaged."""

    sample: Sample
    place: tuple[int, int]
    vector: Vectors | None


def stored(record: bytes, raw: bytes | None, dimension: int) -> Stored:
    """The sample in ``record`` with the vector in ``raw``.

    Raises:
        ValueError: the record cannot be read.
    """
    fields: dict[str, Any] = json.loads(record)
    first, second = fields.pop("place")
    digest = fields.pop("vector_sha256")
    vector = None
    if raw is not None and len(raw) == 4 * dimension and _digest(raw) == digest:
        vector = np.frombuffer(raw, "<f4").astype(np.float32)
    return Stored(Sample(**fields), (first, second), vector)


def updated(
    before: Copy | None,
    meta: Meta,
    people: Mapping[str, str],
    touched: Mapping[str, Stored | None],
    removed: frozenset[str],
    where: str,
) -> Copy:
    """The copy that Redis holds.

    Args:
        before: the copy that it grew out of, if any, of the same model.
        meta: as read.
        people: everybody's name by identity_id.
        touched: samples that may differ from those of ``before``; None for one that is gone.
        removed: ids of samples known to be removed, besides those of ``before``.
        where: what messages call the gallery.

    Raises:
        GalleryError: it was written by another version of this program.
    """
    if meta.get("format") != FORMAT:
        raise GalleryError(f"gallery {where} has format {meta.get('format')!r}, this version reads {FORMAT}; upgrade")
    own = _of_nobody(meta) if before is None else before.state
    known = _vectors_of(own, {key for key, found in touched.items() if found is not None and found.vector is None})
    fresh = sorted((found for found in touched.values() if found is not None), key=lambda found: found.place)
    new: list[tuple[Sample, Vectors]] = []
    for found in fresh:
        vector = known.get(found.sample.sample_id) if found.vector is None else found.vector
        if vector is None or found.sample.identity_id not in people:
            _log.warning("gallery_sample_damaged", gallery=where, sample=found.sample.sample_id)
            continue
        new.append((found.sample, vector))
    state = own.minus(set(touched)) if before is not None else own
    if len(new) < len(fresh):  # Redis has nobody without samples, but somebody may have damaged ones only
        left = {sample.identity_id for sample in state.samples} | {sample.identity_id for sample, _ in new}
        people = {key: name for key, name in people.items() if key in left}
    state = replace(state, names=dict(people))
    if new:
        state = state.plus([sample for sample, _ in new], np.stack([vector for _, vector in new]), state.names)
    gone = {sample_id for sample_id, found in touched.items() if found is None}
    return Copy(
        state=replace(state, **_fields(meta)),
        incarnation=meta["incarnation"],
        change=meta["change"],
        contains=json.loads(meta["contains"]),
        removed=(removed | gone) if before is None else (before.removed | removed | gone),
    )


def merged(one: Copy, other: Copy) -> Copy:
    """Two copies that grew apart as one, of a new incarnation: whoever is in either, less what was removed in either.

    Names, thresholds and ids are those of the copy with the higher version. Both must be of the same model.
    """
    first, second = sorted((one, other), key=lambda copy: copy.state.version, reverse=True)
    removed = first.removed | second.removed
    state = first.state.minus(set(removed))
    ids = {name: identity_id for identity_id, name in state.names.items()}
    known = {sample.sample_id for sample in state.samples} | removed
    photos = {sample.photo_sha256 for sample in state.samples}
    twins: set[str] = set()
    new: list[tuple[Sample, Vectors]] = []
    for block in second.state.blocks:
        for sample, vector in zip(block.samples, block.vectors, strict=True):
            if sample.sample_id in known:
                continue
            if sample.photo_sha256 in photos:
                twins.add(sample.sample_id)  # or it would come back once the other one is removed
                continue
            name = second.state.names[sample.identity_id]
            if sample.identity_id not in state.names:
                identity_id = ids.setdefault(name, sample.identity_id)
            else:
                identity_id = sample.identity_id
            new.append((replace(sample, identity_id=identity_id), vector))
    names = state.names | {key: name for name, key in ids.items()}
    if new:
        state = state.plus([sample for sample, _ in new], np.stack([vector for _, vector in new]), names)
    contains = dict(first.contains)
    for source in (second.contains, *({copy.incarnation: copy.state.version} for copy in (first, second))):
        for incarnation, version in source.items():
            contains[incarnation] = max(version, contains.get(incarnation, 0))
    state = replace(state, version=first.state.version + 1)
    return Copy(state, new_id(), new_id(), contains=contains, removed=removed | twins)


def restored(copy: Copy) -> Copy:
    """``copy`` as the gallery begins anew from it, where Redis has lost it."""
    return Copy(
        replace(copy.state, version=copy.state.version + 1),
        new_id(),
        new_id(),
        contains={**copy.contains, copy.incarnation: copy.state.version},
        removed=copy.removed,
    )


def nameless(meta: Meta) -> Copy:
    """The copy that ``meta`` describes, without people and samples."""
    state = replace(_of_nobody(meta), **_fields(meta))
    return Copy(state, meta["incarnation"], meta["change"], contains=json.loads(meta["contains"]))


def _of_nobody(meta: Meta) -> Contents:
    return empty(meta["model_id"], meta["preprocessing_digest"], int(meta["dimension"]))


def _fields(meta: Meta) -> dict[str, Any]:
    return {
        "version": int(meta["version"]),
        "threshold": json.loads(meta["threshold"]),
        "camera_thresholds": json.loads(meta["camera_thresholds"]),
        "calibration": json.loads(meta["calibration"]),
        "created_at": meta["created_at"],
    }


def _vectors_of(state: Contents, sample_ids: set[str]) -> dict[str, Vectors]:
    return {
        sample.sample_id: block.vectors[row]
        for block in (state.blocks if sample_ids else ())
        for row, sample in enumerate(block.samples)
        if sample.sample_id in sample_ids
    }


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]
