"""Which samples of a gallery bear the wrong name, when two samples under different names are of one person.

One of such two is misplaced, and only the others tell which: the misplaced one does not fit the rest of its own people,
and fits the rest of the other person's. Once it is known, the samples that resembled it are explained: a person whose
photo lies under another name is nearer to that name than to their own, and nothing is wrong with them.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from worker.types import Rows, Vectors

_NOBODY: Final = -2.0
_CLEAR_MARGINS: Final = 3.0
"""Different people differ by chance in how much they resemble somebody, by about so many margins."""


@dataclass(slots=True)
class Misplaced:
    """What was found. A person is a number, a sample a row.

    ``moved`` says under whom each misplaced sample belongs, and ``like`` which sample there is its nearest. ``mixed``
    are pairs of people whose samples are mixed, where nothing tells which ones are right.
    """

    moved: dict[int, int] = field(default_factory=dict)
    like: dict[int, int] = field(default_factory=dict)
    mixed: set[tuple[int, int]] = field(default_factory=set)


def find_misplaced(
    vectors: Vectors,
    owners: Rows,
    suspects: Rows,
    *,
    threshold: float,
    margin: float,
    doubles: Collection[tuple[int, int]],
) -> Misplaced:
    """Which of ``suspects`` are misplaced: samples that are nearer to another person than to their own.

    Args:
        vectors: unit vectors float32 (n, d).
        owners: the person of each, int64 (n,).
        suspects: rows int64 (k,).
        threshold: cosine from which two samples are of one person.
        margin: how much nearer another person must be.
        doubles: pairs of people a < b who are one person under two names; between them nothing is misplaced.
    """
    search = _Search(vectors, owners.copy(), threshold, margin, doubles)
    # The clearest cases first: they may explain others.
    for row in sorted(suspects.tolist(), key=search.blame, reverse=True):
        if search.is_suspect(row):
            search.decide(row)
    return search.found


class _Search:
    def __init__(
        self, vectors: Vectors, owners: Rows, threshold: float, margin: float, doubles: Collection[tuple[int, int]]
    ) -> None:
        self.found = Misplaced()
        self._vectors, self._owners = vectors, owners
        self._threshold, self._margin, self._doubles = threshold, margin, doubles
        self._last: tuple[int, Vectors] = -1, vectors[:0, 0]

    def is_suspect(self, row: int) -> bool:
        """Whether a sample is nearer to another person than to all others of its own, as the samples lie now."""
        own, rival = self._own(row), self._rival(row)
        if own is None or rival is None:
            return False
        similarity = float(self._to_all(row)[rival])
        pair = self._pair(int(self._owners[row]), int(self._owners[rival]))
        if pair in self._doubles or pair in self.found.mixed:
            return False
        return similarity >= max(self._threshold, own + self._margin)

    def blame(self, row: int) -> float:
        """How much better the sample fits the other person than its own, without the sample that it resembles."""
        rival = self._rival(row)
        return _NOBODY if rival is None else self._blame(row, rival)

    def decide(self, row: int) -> None:
        """Moves the sample if it is the misplaced one of the two; else, if nothing tells, notes that both are mixed."""
        rival = self._rival(row)
        if rival is None:
            return
        person, other = int(self._owners[row]), int(self._owners[rival])
        if self._fits_better(row, rival) and self._blame(row, rival) >= self._blame(rival, row):
            self.found.moved[row], self.found.like[row] = other, rival
            self._owners[row] = other
        elif (self._own(row) or 0.0) < self._threshold and not self._fits_better(rival, row):
            self.found.mixed.add(self._pair(person, other))

    def _fits_better(self, row: int, rival: int) -> bool:
        """Whether a sample clearly fits the person of ``rival`` better than its own, apart from ``rival`` itself."""
        own, there = self._own(row), self._fit(row, int(self._owners[rival]), rival)
        if own is None:
            return False
        if there is None:
            return own < self._threshold
        return there >= max(own + _CLEAR_MARGINS * self._margin, self._threshold / 2)

    def _blame(self, row: int, rival: int) -> float:
        own, there = self._own(row), self._fit(row, int(self._owners[rival]), rival)
        if own is None:
            return _NOBODY
        # A person with a single sample says nothing more: the misplaced one is the one that has no place of its own.
        return self._threshold - own if there is None else there - own

    def _own(self, row: int) -> float | None:
        return self._fit(row, int(self._owners[row]), row)

    def _fit(self, row: int, person: int, without: int) -> float | None:
        """The highest similarity to the samples of ``person``, except ``without``; None if there is no other."""
        rows = np.flatnonzero(self._owners == person)
        rows = rows[(rows != without) & (rows != row)]
        return float(self._to_all(row)[rows].max()) if len(rows) else None

    def _rival(self, row: int) -> int | None:
        others = np.where(self._owners == self._owners[row], np.float32(_NOBODY), self._to_all(row))
        nearest = int(others.argmax())
        return nearest if others[nearest] > _NOBODY else None

    def _to_all(self, row: int) -> Vectors:
        if self._last[0] != row:
            self._last = row, self._vectors @ self._vectors[row]
        return self._last[1]

    @staticmethod
    def _pair(a: int, b: int) -> tuple[int, int]:
        return min(a, b), max(a, b)
