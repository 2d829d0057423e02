"""The evidence on a track, and the open-set decision on it."""

import base64
import binascii
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from worker.config import RecognitionConfig
from worker.types import Candidate, Embeddings, Match, Membership

FEW_FACES_MARGIN: Final = 0.1
"""By so much more, in cosine, a person must be similar who is named by fewer faces than a verdict needs otherwise."""
NAMING_REASONS: Final = frozenset({"matched", "few_faces"})
"""The reasons of verdicts that name a person."""
_LEAST_WEIGHT = 0.05
_SHORTEST_SUM = 1e-3


class People(Protocol):
    """The people who are known, and which of them a face shows: a gallery, or a classifier."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    @property
    def sample_count(self) -> int:
        """The number of faces that stand for people."""
        ...

    def __len__(self) -> int:
        """The number of people."""
        ...

    def threshold_of(self, camera_id: str) -> float | None:
        """Cosine from which a person is named there; None where the model's own applies."""
        ...

    def knows(self, identity_id: str) -> bool:
        """Whether somebody has this id."""
        ...

    def lapsed(self) -> frozenset[str]:
        """The ids of those who may not be recognised now, and are not found by :meth:`search`."""
        ...

    def search(self, embeddings: Embeddings, without: Collection[str] = ()) -> list[Candidate]:
        """The nearest person and the next one for each vector, as if the people ``without`` (ids) were not there."""
        ...

    def reload_if_changed(self) -> bool:
        """Takes up what changed meanwhile.

        Raises:
            GalleryError, ClassifierError: it was switched to another model, whose vectors do not compare.
        """
        ...

    def close(self) -> None:
        """Lets go of connections; may be called more than once."""
        ...


class TrackTemplate:
    """What the embedded faces of one track tell together: their mean, weighted by quality, as a unit vector.

    ``count`` is the number of embedded faces, poor ones included: each counts in proportion to its quality.
    ``best_quality`` is 0..1.
    """

    __slots__ = ("_best", "_sum", "best_quality", "count")

    def __init__(self, dimension: int) -> None:
        self._sum = np.zeros(dimension, np.float64)
        self._best = np.zeros(dimension, np.float32)
        self.count = 0
        self.best_quality = 0.0

    def add(self, vector: NDArray[np.float32], quality: float) -> None:
        """Adds the unit vector (d,) of one face of ``quality`` 0..1. A vector that is not finite tells nothing."""
        if not np.isfinite(vector).all():
            return
        self._sum += max(quality, _LEAST_WEIGHT) * vector.astype(np.float64)
        self._note_best(vector, quality)
        self.count += 1

    def merge(self, other: "TrackTemplate") -> None:
        """Adds everything that ``other`` has seen."""
        if other.count:
            self._sum += other._sum
            self._note_best(other._best, other.best_quality)
            self.count += other.count

    @property
    def vector(self) -> NDArray[np.float32]:
        """The unit vector float32 (d,).

        Raises:
            ValueError: nothing was added yet.
        """
        if not self.count:
            raise ValueError("the template of a track without embedded faces has no vector")
        length = float(np.linalg.norm(self._sum))
        # Faces that contradict each other can cancel out; the best of them still is a face.
        return (self._sum / length).astype(np.float32) if length > _SHORTEST_SUM else self._best.copy()

    def similarity(self, other: "TrackTemplate") -> float:
        """Cosine (-1..1) to another template; both need at least one face."""
        return float(np.clip(self.vector @ other.vector, -1.0, 1.0))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; vectors as base64 of little-endian float32."""
        return {
            "sum": base64.b64encode(self._sum.astype("<f4").tobytes()).decode(),
            "best": base64.b64encode(self._best.astype("<f4").tobytes()).decode(),
            "count": self.count,
            "best_quality": self.best_quality,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], dimension: int) -> Self:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: the vectors do not have ``dimension`` finite numbers, or no template has such numbers.
        """
        template = cls(dimension)
        template._sum = _decode(values["sum"], dimension).astype(np.float64)
        template._best = _decode(values["best"], dimension)
        template.count, template.best_quality = int(values["count"]), float(values["best_quality"])
        if template.count < 0 or not 0.0 <= template.best_quality <= 1.0:
            raise ValueError("a template has a count from 0 and a quality of 0 to 1")
        if template.count and not 0.9 <= float(np.linalg.norm(template._best.astype(np.float64))) <= 1.1:
            raise ValueError("the best vector of a template has the length 1")
        return template

    def _note_best(self, vector: NDArray[np.float32], quality: float) -> None:
        if not self.count or quality > self.best_quality:
            self._best = np.array(vector, np.float32)
            self.best_quality = float(quality)


def _decode(text: str, dimension: int) -> NDArray[np.float32]:
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise ValueError("a vector of a template is not base64 of float32") from None
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        raise ValueError(f"a vector of a template does not have {dimension} finite numbers")
    return vector


def decide(
    candidate: Candidate,
    config: RecognitionConfig,
    *,
    threshold: float,
    evidence: int,
    gallery_version: int,
    previous: Match | None = None,
    no_more_faces: bool = False,
) -> Match:
    """The verdict on a track whose template the gallery answered with ``candidate``.

    A person is named from ``threshold`` on, if they are nearer than the runner-up by ``config.margin`` and were seen in
    ``config.min_embeddings`` faces (``evidence`` is the number of faces). If a group of the person has a threshold, it
    takes the place of ``threshold``. A name given by ``previous`` stays down to ``threshold - config.hysteresis``.
    While it could stay, another person takes over only from ``threshold + config.margin`` on. A classifier has weighed
    the runner-up already: there the person must be probable enough, and no margin is asked for. Where ``no_more_faces``
    come, fewer of them name a person too, by the reason ``few_faces``, from ``threshold`` + :data:`FEW_FACES_MARGIN` on
    and if the runner-up is as much farther away. Where nobody is named and somebody nearer was passed over, since the
    face was said not to be theirs, the reason is ``denied``.
    """
    common = threshold
    threshold = _own(candidate.membership, common)
    reason = _reason_for_the_nearest(candidate, config, threshold, evidence)
    if reason == "not_enough_evidence" and no_more_faces and _is_beyond_doubt(candidate, threshold):
        reason = "few_faces"
    if reason in {"below_threshold", "empty_gallery"} and candidate.denied_similarity >= common:
        reason = "denied"
    named = candidate.identity_id if reason in NAMING_REASONS else None
    kept = previous.identity_id if previous is not None else None
    if kept is not None and kept != named and _stays(candidate, kept, named, config, common):
        named, reason = kept, "matched"
    member = candidate.membership
    if named is not None and named == candidate.runner_up_id:
        name, similarity, runner_up = candidate.runner_up_name, candidate.runner_up, candidate.similarity
        member = candidate.runner_up_membership
    else:
        name, similarity, runner_up = candidate.identity_name, candidate.similarity, candidate.runner_up
    return Match(
        identity_id=named,
        identity_name=name if named is not None else "",
        similarity=similarity,
        runner_up=runner_up,
        threshold=_own(member, common),
        gallery_version=gallery_version,
        reason=reason,
        probability=candidate.probability if named in (None, candidate.identity_id) else None,
        groups=member.groups if named is not None else (),
        threshold_group=member.strictest,
    )


def identify_faces(
    embeddings: Embeddings,
    people: People,
    threshold: float,
    search: Callable[[Embeddings, People], list[Candidate]] = lambda embeddings, people: people.search(embeddings),
    *,
    same_for_all: bool = False,
) -> list[Match]:
    """The open-set answer for each face of a photo: one photo is all the evidence there is. ``search`` gives the
    candidates for the faces. ``same_for_all``: groups with a threshold of their own go by ``threshold`` too."""
    config = RecognitionConfig(min_embeddings=1)
    found = search(embeddings, people)
    if same_for_all:
        found = [replace(each, membership=Membership(), runner_up_membership=Membership()) for each in found]
    return [
        decide(candidate, config, threshold=threshold, evidence=1, gallery_version=people.version)
        for candidate in found
    ]


def _own(member: Membership, common: float) -> float:
    """The threshold of a person's groups, else the ``common`` one."""
    return common if member.threshold is None else member.threshold


def _is_beyond_doubt(candidate: Candidate, threshold: float) -> bool:
    clearly = candidate.similarity >= threshold + FEW_FACES_MARGIN
    return clearly and candidate.probability is None and candidate.similarity - candidate.runner_up >= FEW_FACES_MARGIN


def _reason_for_the_nearest(candidate: Candidate, config: RecognitionConfig, threshold: float, evidence: int) -> str:
    if candidate.identity_id is None:
        return "empty_gallery"
    if evidence < config.min_embeddings:
        return "not_enough_evidence"
    if candidate.similarity < threshold:
        return "below_threshold"
    if candidate.probability is not None:
        return "improbable" if candidate.probability < candidate.least_probability else "matched"
    if candidate.similarity - candidate.runner_up < config.margin:
        return "ambiguous"
    return "matched"


def _stays(candidate: Candidate, kept: str, named: str | None, config: RecognitionConfig, threshold: float) -> bool:
    """Whether the person ``kept``, who was named before, keeps the name, though the nearest person alone says
    otherwise. ``threshold`` is the common one."""
    member = candidate.membership if kept == candidate.identity_id else candidate.runner_up_membership
    floor = _own(member, threshold) - config.hysteresis
    if kept == candidate.identity_id:
        probable = candidate.probability is None or candidate.probability >= (
            candidate.least_probability - config.hysteresis
        )
        return candidate.similarity >= floor and probable
    if kept != candidate.runner_up_id or candidate.runner_up < floor:
        return False
    return named is None or candidate.similarity < _own(candidate.membership, threshold) + config.margin
