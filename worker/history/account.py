"""Why a sighting ended as it did: a compact account of what happened to its faces."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Self

from worker.types import Candidate, Match


@dataclass(slots=True)
class Account:
    """Of one sighting.

    ``faces``: detections on its tracks; ``rejected``: how many of them the quality gate refused, by reason;
    ``embedded``: how many were embedded (the rest was not needed); ``largest_px``: the shorter side of the largest,
    and ``least_px``, below which a face is refused as too small.
    ``continued_by``: tracks that were found to show the same person and went on with, or into, the sighting.
    ``nearest`` and ``runner_up`` are names (empty: nobody) with their cosines; ``reason`` is the verdict's.
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
        if candidate is not None and candidate.identity_id is not None:
            self.nearest, self.similarity = candidate.identity_name, candidate.similarity
            if candidate.runner_up_id:
                self.runner_up, self.runner_up_similarity = candidate.runner_up_name, candidate.runner_up
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
        """What :meth:`to_json` gave."""
        return cls(**values | {"rejected": Counter(values["rejected"])})
