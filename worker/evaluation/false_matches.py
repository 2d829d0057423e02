"""Non-mated comparisons, of different people, and what their similarities say about people who were not measured.

Rates are those of people: every person counts the same, however many photos show them. A rate is what a random photo of
a random person gives.

The sample is one of people, not of comparisons. A comparison of two people depends on both, so two comparisons that
share a person are correlated. We resample people. If A is drawn twice and B three times, their pair counts six times
(Owen, "The pigeonhole bootstrap", 2007). This keeps the correlation, but counts the noise of a single pair of people
three times. That excess is known and subtracted, which gives the variance of Fafchamps and Gubert (2007) for dyadic
data.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, stats

from worker.errors import FacestreamError

DRAWS: Final = 1000
_BLOCK_ROWS: Final = 1024
_CERTAINTY: Final = 0.95
_KEPT_SHARE: Final = 30.0
"""Similarities are kept down to this many times the target rate, which is beyond the end of an interval."""
_NOBODY: Final = -1
_BLOCK_NUMBERS: Final = 4_000_000

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class UnsupportedTargetError(FacestreamError):
    """The data hold too few people to say anything about a rate as low as the target."""


def draw_people(people: int, draws: int, seed: int = 0) -> Iterator[Floats]:
    """Draws as many people as there are, with replacement, ``draws`` times.

    Yields blocks float64 (some draws, people) that say how often each person was drawn.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(people, 1 / people)
    block = max(1, _BLOCK_NUMBERS // people)
    for start in range(0, draws, block):
        yield generator.multinomial(people, shares, size=min(block, draws - start)).astype(np.float64)


def variance_of_mean(first: Indices, second: Indices, values: Floats) -> float:
    """Sampling variance of the mean of ``values`` float64 (n,), one for each comparison of two people.

    ``first`` and ``second`` int64 (n,) are the people of each comparison; they may be the same person. This is the
    variance for dyadic data in closed form.
    """
    residuals = values - values.mean()
    apart = first != second
    by_person = np.bincount(np.concatenate([first, second[apart]]), np.concatenate([residuals, residuals[apart]]))
    low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
    _, pair = np.unique(low * (int(high.max(initial=0)) + 1) + high, return_inverse=True)
    twice = np.bincount(pair, residuals[apart])
    # Negatively correlated comparisons can bring the difference down to 0. Independent comparisons are the lower limit.
    return float(max(by_person @ by_person - twice @ twice, residuals @ residuals)) / len(values) ** 2


def effective_count(rate: float, variance: float) -> float:
    """How many independent comparisons estimate ``rate`` (0..1) with this ``variance``; infinite if there is none."""
    return rate * (1 - rate) / variance if variance > 0 else float("inf")


def rate_interval(rate: float, trials: float) -> tuple[float, float]:
    """Two-sided 95% interval for a ``rate`` (0..1) that was measured.

    We convert the data to an equivalent number of independent comparisons (``trials``) and use its Beta interval: that
    of Jeffreys, as Korn and Graubard (1998) propose for survey data. It holds for the few events of a low rate, which
    percentiles of a bootstrap do not.
    """
    hits = rate * trials
    low, high = stats.beta.ppf([0.025, 0.975], hits + 0.5, trials - hits + 0.5)
    return (0.0 if hits == 0 else float(low)), float(high)


def rate_limit(rate: float, trials: float) -> float:
    """What another group of the same size will not exceed with 95 % certainty, if ``trials`` show ``rate``.

    It is the one-sided form of :func:`rate_interval`, with half the trials: the other group has a sampling error too.
    """
    hits = rate * trials / 2
    return float(stats.beta.ppf(_CERTAINTY, hits + 0.5, trials / 2 - hits + 0.5))


def certain_rate(target: float, trials: float) -> float:
    """The highest rate that, seen in ``trials`` comparisons, shows that another group of that size keeps ``target``.

    It is 0 if no rate would show that.
    """
    if rate_limit(0.0, trials) >= target:
        return 0.0
    return float(optimize.brentq(lambda rate: rate_limit(rate, trials) - target, 0.0, target))


@dataclass(frozen=True)
class NonMatedScores:
    """Similarities of non-mated comparisons, of different people, the highest first. Low ones may be left out.

    ``shares`` float64 (n,) is the weight of each comparison; the weights of all comparisons, with those left out, add
    up to 1. ``first`` and ``second`` int64 (n,) are the numbers of the two people; ``second`` is -1 if the other side
    is a given gallery and not a sample. ``people`` is the number of people in the sample, ``pairs_of_people`` that of
    their pairs. ``everybody`` says whether each person was compared with each other.

    Raises:
        ValueError: the similarities are not in falling order.
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
        """Whether strangers were compared with a given gallery, and not people with each other."""
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

        It lies midway between the lowest similarity above it and the highest below it.
        """
        reached = int(np.searchsorted(self.rates, rate + 1e-12, side="right"))
        if reached == len(self.similarities):
            return float(self.similarities[-1]) if reached else -1.0
        # Equal similarities reach a threshold together or not at all.
        below = max(float(self.similarities[reached]), -1.0)
        above = self.similarities[:reached][self.similarities[:reached] > below]
        return (float(above[-1]) + below) / 2 if len(above) else min(1.0, below + 1e-4)

    def spread_at(self, threshold: float) -> tuple[float, float]:
        """The sampling variance of the rate at ``threshold`` in two parts: due to people, and due to single pairs.

        The sum of the parts is the variance. It comes from resampling people, always with the same random numbers.
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
        # Resampling people counts the part of people once and that of single pairs three times.
        return max(total - 3 * single, 0.0), single

    def _count(self, threshold: float) -> int:
        return int(np.searchsorted(-self.similarities, -threshold, side="right"))

    def _by_people(self, count: int) -> sparse.csr_array:
        """The sum of the weights of the first ``count`` comparisons for each two people (people, people or 1)."""
        first, second = self.first[:count], self.second[:count]
        low, high = np.minimum(first, second), np.maximum(first, second)
        shape = (self.people, self.people)
        if self.of_strangers:
            low, high, shape = high, np.zeros_like(high), (self.people, 1)
        summed = sparse.coo_array((self.shares[:count], (low, high)), shape=shape).tocsr()
        summed.sum_duplicates()
        return summed

    def _drawn_rates(self, times: Floats, reached: sparse.csr_array, whole: sparse.csr_array | None) -> Floats:
        """The rate in each resample. ``times`` (draws, people) is how often each person was drawn."""
        if whole is not None:
            below = _weight(times, whole)
        else:
            below = (times.sum(axis=1) ** 2 - np.square(times).sum(axis=1)) / (self.people * (self.people - 1))
        above = _weight(times, reached)
        rates: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
        return rates


def _weight(times: Floats, by_people: sparse.csr_array) -> Floats:
    """The sum of the weights of the comparisons in each resample (draws,), in which a pair counts as often as drawn."""
    if by_people.shape[1] == 1:
        alone: Floats = np.asarray(by_people.T @ times.T).ravel()
        return alone
    together: Floats = np.einsum("pd,dp->d", by_people.T @ times.T, times)
    return together


def everybody_with_everybody(vectors: NDArray[np.float32], people: Indices, target: float) -> NonMatedScores:
    """The highest similarities between different people, all compared with all.

    Args:
        vectors: unit vectors (n, d).
        people: the person of each, int64 (n,), numbered from 0 without a gap.
        target: the wanted rate; similarities far below its threshold are left out.

    Raises:
        UnsupportedTargetError: there are fewer than two people.
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
    return NonMatedScores(
        similarities[order], shares[order], people[rows][order], people[columns][order], population, pairs, True
    )


def strangers_against_gallery(similarities: Floats, people: Indices, *, by_person: bool = False) -> NonMatedScores:
    """Non-mated probes, each with its highest similarity to a person in the gallery, float64 (n,).

    ``people`` int64 (n,), numbered from 0 without a gap, says which probes are of one person. All probes count the
    same, as visits do: who comes twice may be named twice. With ``by_person`` every person counts the same.

    Raises:
        UnsupportedTargetError: there is no probe.
    """
    if not len(similarities):
        raise UnsupportedTargetError("no stranger was seen: give footage or photos with faces of people not enrolled")
    order = np.argsort(-similarities, kind="stable")
    population = int(people.max()) + 1
    nobody = np.full(len(order), _NOBODY, np.int64)
    shares = np.full(len(order), 1 / len(order))
    if by_person:
        shares = 1 / (np.bincount(people)[people[order]] * population)
    return NonMatedScores(similarities[order], shares, people[order], nobody, population, population)


def _floor(vectors: NDArray[np.float32], people: Indices, target: float) -> float:
    """A similarity that 30 times the rate ``target`` of the comparisons reach, estimated from some of them."""
    if _KEPT_SHARE * target >= 0.5:
        return -math.inf
    rows = np.random.default_rng(0).permutation(len(vectors))[:2000]
    cosines = (vectors[rows] @ vectors[rows].T)[people[rows][:, None] != people[rows][None, :]]
    return float(np.quantile(cosines, 1 - _KEPT_SHARE * target)) if len(cosines) else -math.inf


def _above(
    vectors: NDArray[np.float32], people: Indices, floor: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Rows, columns and similarities of all comparisons of different people with at least the similarity ``floor``."""
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
