"""What is remembered of a sighting, and why it ended as it did: an account of its faces, also in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from worker.types import Candidate, Match

Vector = NDArray[np.float32]

_FACES: Final = {
    "too_small": "too small",
    "blurred": "blurred",
    "pose": "turned away",
    "exposure": "too dark, too bright or too flat",
    "low_score": "hardly recognised as a face",
    "low_start_score": "below the detection score that starts a track",
    "too_short": "seen too few times to count as a person",
}
_VERDICTS: Final = {
    "matched": "matched",
    "few_faces": "matched by a face or two that left no doubt: there were no more",
    "below_threshold": "below threshold",
    "ambiguous": "ambiguous: the two are too close to each other",
    "improbable": "the classifier was not sure enough",
    "not_enough_evidence": "not enough faces to tell",
    "empty_gallery": "nobody is enrolled",
    "identity_taken": "somebody else in the picture is nearer to that person, who cannot be there twice",
    "denied": "a face that is nearer still was said not to be that person",
}


@dataclass(slots=True)
class Account:
    """Of one sighting.

    ``faces``: detections on its tracks; ``rejected``: how many of them the quality gate refused, by reason;
    ``embedded``: how many were embedded (the rest was not needed); ``largest_px``: the shorter side of the largest,
    and ``least_px``, below which a face is refused as too small.
    ``continued_by``: tracks that were found to show the same person and went on with, or into, the sighting.
    ``nearest`` and ``runner_up`` are names (empty: nobody) with their cosines; ``reason`` is the verdict's.
    ``threshold_group``: the group that the threshold belongs to, if it is that of a group.
    """

    faces: int = 0
    largest_px: float = 0.0
    least_px: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    embedded: int = 0
    continued_by: list[int] = field(default_factory=list)
    nearest: str = ""
    similarity: float | None = None
    runner_up: str = ""
    runner_up_similarity: float | None = None
    threshold: float | None = None
    threshold_group: str = ""
    reason: str = ""

    def merge(self, other: "Account", track_id: int) -> None:
        """Adds what happened on the track ``track_id``, which showed the same person."""
        self.faces += other.faces
        self.largest_px = max(self.largest_px, other.largest_px)
        self.rejected += other.rejected
        self.embedded += other.embedded
        if track_id not in self.continued_by:
            self.continued_by.append(track_id)
        self.continued_by += [track for track in other.continued_by if track not in self.continued_by]

    def conclude(self, candidate: Candidate | None, match: Match | None, threshold: float, reason: str) -> None:
        """Notes the last verdict; ``candidate`` is what the gallery answered.

        ``threshold`` is the one in force now. That of the verdict may be another, if the configuration has changed
        since: it is the one that is noted, because the reason belongs to it.
        """
        self.threshold, self.reason = threshold if match is None else match.threshold, reason
        self.threshold_group = "" if match is None else match.threshold_group
        if candidate is not None and candidate.identity_id is not None:
            self.nearest, self.similarity = candidate.identity_name, candidate.similarity
            if candidate.runner_up_id:
                self.runner_up, self.runner_up_similarity = candidate.runner_up_name, candidate.runner_up
        if candidate is not None and reason == "denied":
            self.runner_up, self.runner_up_similarity = self.nearest, self.similarity
            self.nearest, self.similarity = candidate.denied_name, candidate.denied_similarity
        if match is not None and match.identity_id is not None and match.identity_name == self.runner_up:
            # The name was kept though somebody else has come nearer: the account is about the person named.
            self.nearest, self.runner_up = self.runner_up, self.nearest
            self.similarity, self.runner_up_similarity = self.runner_up_similarity, self.similarity

    def to_json(self) -> dict[str, Any]:
        """As JSON values; cosines to 4 decimals."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
        return rounded | {"rejected": dict(self.rejected), "continued_by": list(self.continued_by)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        made: Self = _accounts().validate_python(values)
        return made


@cache
def _accounts() -> TypeAdapter[Any]:
    return TypeAdapter(Account)


@dataclass(frozen=True, slots=True)
class EmbedderId:
    """What made a template. Only templates of the same one can be compared."""

    model_id: str
    preprocessing_digest: str


@dataclass(frozen=True, slots=True)
class Denial:
    """Somebody said ``at`` that a past sighting does not show this person; both texts are empty if the person has been
    removed since. ``given_id`` and ``unknown_id`` say whom it shows instead."""

    at: datetime
    identity_id: str
    identity_name: str
    given_id: str
    unknown_id: str


@dataclass(frozen=True, slots=True)
class CounterExample:
    """The template, float32 (d,) of unit length, of a sighting that does not show the person ``identity_id``."""

    identity_id: str
    template: Vector
    expires_s: float


@dataclass(frozen=True, slots=True)
class PastSighting:
    """A sighting that has ended. ``template`` float32 (d,) of unit length, None where no face was good enough;
    ``embedded_faces``: how many it is the mean of; ``event``: the fields of its last event; ``corrections``: how often
    people have changed the verdict since, and ``denials``, oldest first, which names they took back."""

    sighting_id: str
    camera_id: str
    started_at: datetime
    ended_at: datetime
    identity_id: str
    identity_name: str
    unknown_id: str
    embedder: EmbedderId
    template: Vector | None
    embedded_faces: int
    quality: float | None
    event: Mapping[str, str]
    account: Account
    corrections: int = 0
    denials: tuple[Denial, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownPerson:
    """Somebody who is not enrolled. ``template`` float32 (d,) of unit length, the mean of ``embedded_faces``; None
    once they are enrolled or forgotten. ``is_ignored``: nobody wants to be asked about them."""

    unknown_id: str
    embedder: EmbedderId
    template: Vector | None
    embedded_faces: float
    first_seen: datetime
    last_seen: datetime
    is_ignored: bool = False


@dataclass(frozen=True, slots=True)
class Naming:
    """An unknown person was named: their ``sightings`` (ids) and ``samples`` (ids, those that were added) are those of
    ``identity_id`` since. ``step`` takes it back."""

    step: str
    unknown_id: str
    identity_id: str
    sightings: tuple[str, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PastMerger:
    """The enrolled person ``other_id`` is ``identity_id`` since, with these past ``sightings`` (ids). ``step`` takes it
    back; ``told`` says what was changed, and in ``merger`` what the gallery had."""

    step: str
    identity_id: str
    other_id: str
    other_name: str
    sightings: tuple[str, ...]
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """Faces and tracks of one camera and hour that never became a sighting, for one reason."""

    camera_id: str
    hour: datetime
    reason: str
    tracks: int
    faces: int


def explain(sighting: PastSighting) -> str:
    """One sentence: what happened to the faces of a sighting, whom they were nearest to, and the verdict."""
    account = sighting.account
    parts = [_faces(account), _embedded(account)]
    if account.similarity is not None and account.threshold is not None:
        runner_up = ""
        if account.runner_up_similarity is not None:
            runner_up = f", runner-up {account.runner_up} {account.runner_up_similarity:.2f}"
        of_group = f" of the group {account.threshold_group}" if account.threshold_group else ""
        parts.append(
            f"nearest was {account.nearest} at {account.similarity:.2f} "
            f"(threshold {account.threshold:.2f}{of_group}{runner_up})"
            f": {verdict(account.reason)}{_moment(account.similarity - account.threshold, account.reason)}"
        )
    else:
        parts.append(verdict(account.reason))
    parts += [
        f"somebody said at {denial.at.astimezone().isoformat(' ', 'seconds')} that this was not "
        f"{denial.identity_name or 'the person named then, who has been removed since'}"
        for denial in sighting.denials
    ]
    if sighting.identity_name and sighting.event.get("identity_id") != sighting.identity_id:
        parts.append(f"named {sighting.identity_name} afterwards")
    elif sighting.unknown_id:
        parts.append(f"remembered as {sighting.unknown_id}")
    return "; ".join(part for part in parts if part)


def verdict(reason: str) -> str:
    """A reason as people would say it."""
    if reason in _FACES:
        return f"no face was good enough: {_FACES[reason]}"
    return _VERDICTS.get(reason, reason)


def _moment(above: float, reason: str) -> str:
    """Which moment a verdict is of that the two numbers, rounded as they are shown, seem to contradict."""
    if reason == "below_threshold" and above >= 0:
        return ", by the threshold that was in force when it was decided; the numbers are those of the end"
    if reason == "matched" and above < 0:
        return ", at a higher similarity before; a name is kept until it is clearly below the threshold"
    return ""


def explain_rest(tallies: Sequence[Tally]) -> list[str]:
    """One sentence for each camera and reason: faces and tracks that never became a sighting."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for tally in tallies:
        tracks, faces = sums.get((tally.camera_id, tally.reason), (0, 0))
        sums[tally.camera_id, tally.reason] = tracks + tally.tracks, faces + tally.faces
    return [
        f"{camera_id}: {_count(tracks, 'track') + ' of ' if tracks else ''}{_count(faces, 'face')} never became a "
        f"sighting: {_FACES.get(reason, reason)}"
        for (camera_id, reason), (tracks, faces) in sorted(sums.items())
    ]


def _faces(account: Account) -> str:
    refused = []
    for reason, count in account.rejected.most_common():
        limit = ""
        if reason == "too_small":
            limit = f" (min {account.least_px:.0f} px; the largest face had {account.largest_px:.0f})"
        refused.append(f"{count} {_FACES.get(reason, reason)}{limit}")
    seen = "seen once" if account.faces == 1 else f"seen {account.faces} times"
    return f"{seen}; {', '.join(refused)}" if refused else seen


def _embedded(account: Account) -> str:
    text = f"{account.embedded} embedded"
    if (rest := account.faces - account.embedded - account.rejected.total()) > 0:
        text += f" ({rest} were not needed)"
    if account.continued_by:
        tracks = ", ".join(str(track) for track in account.continued_by)
        text += f"; went on with track {tracks}, the same person"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
