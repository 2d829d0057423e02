"""Similarities between different people, and what can be concluded from them about people not seen.

Rates are those of people: every person counts as one, however many photos show them, so that a rate says what a
random photo of a random person does. Sampling errors come from a bootstrap over people; see
:mod:`worker.evaluation.resampling`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from worker.errors import FacestreamError
from worker.evaluation.resampling import draw_people
from worker.evaluation.verification import Pairs

DRAWS: Final = 1000
_BLOCK_ROWS: Final = 1024
_KEPT_SHARE: Final = 30.0
"""Similarities are kept down to this many times the target rate: further than an interval reaches."""
_NOBODY: Final = -1

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class UnsupportedTargetError(FacestreamError):
    """There are too few people in the data to say anything about a rate as low as the target."""


@dataclass(frozen=True)
class FalseMatchScores:
    """Similarities of comparisons between different people, the highest first, as far down as they were kept.

    ``shares`` float64 (n,) is what each comparison counts, of 1 for all comparisons, kept or not. ``first`` and
    ``second`` int64 (n,) number the two people; ``second`` is -1 where one side is a given gallery, not a sample.
    ``people`` is how many were sampled, ``pairs_of_people`` in how many combinations; ``everybody`` is true if each
    was compared with each, all kept or not.

    Raises:
        ValueError: the similarities do not fall.
    """

    similarities: Floats
    shares: Floats
    first: Indices
    second: Indices
    people: int
    pairs_of_people: int
    everybody: bool = False

    def __post_init__(self) -> None:
        if np.any(np.diff(self.similarities) > 0):
            raise ValueError("similarities must fall")

    @property
    def of_strangers(self) -> bool:
        """Whether strangers were compared with a given gallery, rather than people with each other."""
        return bool(len(self.second)) and self.second[0] == _NOBODY

    @cached_property
    def rates(self) -> Floats:
        """The share of comparisons at or above each similarity (n,)."""
        return np.cumsum(self.shares)

    def rate_at(self, threshold: float) -> float:
        """The share of comparisons that reach ``threshold``."""
        count = self._count(threshold)
        return float(self.rates[count - 1]) if count else 0.0

    def threshold_at(self, rate: float) -> float:
        """The lowest threshold that no more than ``rate`` of the comparisons reach.

        Midway between the lowest similarity above it and the highest below it.
        """
        reached = int(np.searchsorted(self.rates, rate + 1e-12, side="right"))
        if reached == len(self.similarities):
            return float(self.similarities[-1]) if reached else -1.0
        # Equal similarities pass together or not at all.
        below = max(float(self.similarities[reached]), -1.0)
        above = self.similarities[:reached][self.similarities[:reached] > below]
        return (float(above[-1]) + below) / 2 if len(above) else min(1.0, below + 1e-4)

    def spread_at(self, threshold: float) -> tuple[float, float]:
        """The sampling variance of the rate at ``threshold``: what is due to people, what to single pairs of them.

        Their sum is the variance. From a bootstrap over people; deterministic.
        """
        count = self._count(threshold)
        rate = self.rate_at(threshold)
        if not count:
            return 0.0, 0.0
        reached = self._by_people(count)
        whole = None if self.everybody else self._by_people(len(self.shares))
        drawn = np.concatenate([self._drawn_rates(times, reached, whole) for times in draw_people(self.people, DRAWS)])
        total = float(np.nanvar(drawn, ddof=1))
        if self.of_strangers:
            return total, 0.0
        single = float(reached.data @ reached.data) * (1 - rate)
        # The bootstrap holds the people's part once and that of single pairs three times.
        return max(total - 3 * single, 0.0), single

    def _count(self, threshold: float) -> int:
        return int(np.searchsorted(-self.similarities, -threshold, side="right"))

    def _by_people(self, count: int) -> sparse.csr_array:
        """What the first ``count`` comparisons weigh together, by the two people (people, people or 1)."""
        first, second = self.first[:count], self.second[:count]
        low, high = np.minimum(first, second), np.maximum(first, second)
        shape = (self.people, self.people)
        if self.of_strangers:
            low, high, shape = high, np.zeros_like(high), (self.people, 1)
        summed = sparse.coo_array((self.shares[:count], (low, high)), shape=shape).tocsr()
        summed.sum_duplicates()
        return summed

    def _drawn_rates(self, times: Floats, reached: sparse.csr_array, whole: sparse.csr_array | None) -> Floats:
        """The rate in each sample of people, of ``times`` (draws, people) they were drawn."""
        if whole is not None:
            below = _weight(times, whole)
        else:
            below = (times.sum(axis=1) ** 2 - np.square(times).sum(axis=1)) / (self.people * (self.people - 1))
        above = _weight(times, reached)
        rates: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
        return rates


def _weight(times: Floats, by_people: sparse.csr_array) -> Floats:
    """The sum of what comparisons weigh, each times how often its people were drawn (draws,)."""
    if by_people.shape[1] == 1:
        alone: Floats = np.asarray(by_people.T @ times.T).ravel()
        return alone
    together: Floats = np.einsum("pd,dp->d", by_people.T @ times.T, times)
    return together


def everybody_with_everybody(vectors: NDArray[np.float32], people: Indices, target: float) -> FalseMatchScores:
    """The highest similarities between different people, each compared with each.

    Args:
        vectors: unit vectors (n, d).
        people: the person of each, int64 (n,), numbered from 0 without a gap.
        target: rate of interest; similarities far below its threshold are not kept.

    Raises:
        UnsupportedTargetError: fewer than two people.
    """
    counts = np.bincount(people)
    population = len(counts)
    if population < 2:
        raise UnsupportedTargetError("false matches need at least two people: give a folder of more people")
    pairs = population * (population - 1) // 2
    floor = _floor(vectors, people, target)
    rows, columns, similarities = _above(vectors, people, floor)
    shares = 1 / (counts[people[rows]] * counts[people[columns]] * pairs)
    order = np.argsort(-similarities, kind="stable")
    return FalseMatchScores(
        similarities[order], shares[order], people[rows][order], people[columns][order], population, pairs, True
    )


def listed_pairs(pairs: Pairs, similarities: Floats) -> FalseMatchScores:
    """The similarities of the pairs of different people in a pairs file."""
    first, second = pairs.people
    apart = ~pairs.same
    order = np.flatnonzero(apart)[np.argsort(-similarities[apart], kind="stable")]
    if not len(order):
        raise UnsupportedTargetError("the pairs file holds no pairs of different people")
    numbers, packed = np.unique(np.concatenate([first[order], second[order]]), return_inverse=True)
    first, second = packed[: len(order)].astype(np.int64), packed[len(order) :].astype(np.int64)
    distinct = len(np.unique(np.minimum(first, second) * len(numbers) + np.maximum(first, second)))
    shares = np.full(len(order), 1 / len(order))
    return FalseMatchScores(similarities[order], shares, first, second, len(numbers), distinct)


def strangers_against_gallery(similarities: Floats, people: Indices) -> FalseMatchScores:
    """Visits of strangers, each with its highest similarity to anybody in the gallery (n,).

    ``people`` int64 (n,), numbered from 0 without a gap, says which visits are of one person; the visits count alike.
    """
    if not len(similarities):
        raise UnsupportedTargetError("no stranger was seen: give footage or photos with faces of people not enrolled")
    order = np.argsort(-similarities, kind="stable")
    population = int(people.max()) + 1
    nobody = np.full(len(order), _NOBODY, np.int64)
    shares = np.full(len(order), 1 / len(order))
    return FalseMatchScores(similarities[order], shares, people[order], nobody, population, population)


def _floor(vectors: NDArray[np.float32], people: Indices, target: float) -> float:
    """A similarity that about 30 times ``target`` of the comparisons reach, from a sample of them."""
    if _KEPT_SHARE * target >= 0.5:
        return -math.inf
    rows = np.random.default_rng(0).permutation(len(vectors))[:2000]
    cosines = (vectors[rows] @ vectors[rows].T)[people[rows][:, None] != people[rows][None, :]]
    return float(np.quantile(cosines, 1 - _KEPT_SHARE * target)) if len(cosines) else -math.inf


def _above(
    vectors: NDArray[np.float32], people: Indices, floor: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Rows, columns and similarities of all comparisons between different people of at least ``floor``."""
    rows, columns, similarities = [], [], []
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS] @ vectors[start:].T
        later = np.arange(block.shape[1])[None, :] > np.arange(block.shape[0])[:, None]
        wanted = (block >= floor) & later & (people[start : start + len(block), None] != people[None, start:])
        row, column = np.nonzero(wanted)
        rows.append(row + start)
        columns.append(column + start)
        similarities.append(block[row, column].astype(np.float64))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(similarities)
