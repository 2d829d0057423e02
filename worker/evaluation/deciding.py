"""The pairs that decide a threshold: the most similar faces that bear different names.

The lower the target, the fewer pairs decide. If one of them is one person under two names, the threshold is as high as
that person is similar to themselves, and misses everybody. So people should see these pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.evaluation.calibration import Floats, Indices, find_threshold
from worker.evaluation.false_matches import NonMatedScores, UnsupportedTargetError
from worker.evaluation.probes import PeopleFaces
from worker.evaluation.verification import Pairs

MOST_PAIRS: Final = 10
_FEWEST_MATED: Final = 5
_LIKE_ONE_PERSON: Final = 0.25
"""Two people are probably one if they are as similar as the photos of 3 in 4 people are to each other."""


@dataclass(frozen=True, slots=True)
class DecidingPair:
    """Two faces of different people, by their labels: the names, the photos (None: none), and their cosine.

    ``numbers`` are the numbers of the two people in the scores. ``looks_like_one`` says that they are as similar as
    photos of one person.
    """

    names: tuple[str, str]
    photos: tuple[Path | None, Path | None]
    similarity: float
    numbers: tuple[int, int]
    looks_like_one: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "names": list(self.names),
            "photos": ["" if photo is None else str(photo) for photo in self.photos],
            "similarity": round(self.similarity, 4),
            "looks_like_one_person": self.looks_like_one,
        }


def deciding_people(scores: NonMatedScores, faces: PeopleFaces, mated: tuple[Floats, Indices]) -> list[DecidingPair]:
    """The most similar people of ``faces``, each pair of people once, the most similar first."""
    found = []
    for first, second, similarity in _most_similar(scores):
        rows, columns = np.flatnonzero(faces.people == first), np.flatnonzero(faces.people == second)
        best = int((faces.vectors[rows] @ faces.vectors[columns].T).argmax())
        row, column = rows[best // len(columns)], columns[best % len(columns)]
        names, photos = (faces.names[first], faces.names[second]), (faces.photos[row], faces.photos[column])
        found.append(DecidingPair(names, photos, similarity, (first, second)))
    return _judged(found, mated)


def deciding_listed(
    scores: NonMatedScores,
    pairs: Pairs,
    similarities: Floats,
    photos: Sequence[Path | None],
    mated: tuple[Floats, Indices],
) -> list[DecidingPair]:
    """The most similar different people of a pairs file; ``photos`` are the files of its images."""
    apart = np.flatnonzero(~pairs.same)
    order = apart[np.argsort(-similarities[apart], kind="stable")]
    found: list[DecidingPair] = []
    # The scores are in the same order.
    for row, first, second in zip(order.tolist(), scores.first.tolist(), scores.second.tolist(), strict=True):
        numbers = (min(first, second), max(first, second))
        if len(found) == MOST_PAIRS:
            break
        if any(known.numbers == numbers for known in found):
            continue
        a, b = int(pairs.first[row]), int(pairs.second[row])
        names = (pairs.photos[a].person, pairs.photos[b].person)
        found.append(DecidingPair(names, (photos[a], photos[b]), float(similarities[row]), numbers))
    return _judged(found, mated)


def threshold_without(scores: NonMatedScores, target: float, pairs: Sequence[DecidingPair]) -> float | None:
    """The threshold for ``target`` if those of ``pairs`` that look like one person are left out; None if no such."""
    gone = [pair.numbers for pair in pairs if pair.looks_like_one]
    if not gone:
        return None
    low, high = np.minimum(scores.first, scores.second), np.maximum(scores.first, scores.second)
    kept = np.ones(len(low), bool)
    for first, second in gone:
        kept &= (low != min(first, second)) | (high != max(first, second))
    rest = replace(
        scores, similarities=scores.similarities[kept], shares=scores.shares[kept], first=scores.first[kept],
        second=scores.second[kept],
    )  # fmt: skip
    try:
        return find_threshold(rest, target).value
    except UnsupportedTargetError:
        return None


def _most_similar(scores: NonMatedScores) -> list[tuple[int, int, float]]:
    """The people of the highest scores, each pair once."""
    found: dict[tuple[int, int], float] = {}
    for first, second, similarity in zip(scores.first, scores.second, scores.similarities, strict=True):
        found.setdefault((int(min(first, second)), int(max(first, second))), float(similarity))
        if len(found) == MOST_PAIRS:
            break
    return [(first, second, similarity) for (first, second), similarity in found.items()]


def _judged(pairs: list[DecidingPair], mated: tuple[Floats, Indices]) -> list[DecidingPair]:
    similarities, people = mated
    if len(np.unique(people)) < _FEWEST_MATED:
        return pairs
    limit = float(np.quantile(similarities, _LIKE_ONE_PERSON))
    return [replace(pair, looks_like_one=pair.similarity >= limit) for pair in pairs]
