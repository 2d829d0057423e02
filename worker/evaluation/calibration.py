"""The threshold for a wanted false-match rate, and how well the data support it.

How often the intervals hold the true value was measured; see ``docs/calibration.md``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.false_matches import (
    NonMatedScores,
    UnsupportedTargetError,
    certain_rate,
    effective_count,
    rate_interval,
    rate_limit,
)
from worker.evaluation.verification import Pairs

RULE_OF_THREE: Final = 3.0
"""If n independent trials show no event, the rate is below 3/n with 95 % confidence (Hanley and Lippman-Hand, 1983)."""
_STEPS: Final = 2

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate 0..1 with two 95 % intervals.

    ``confidence`` is the interval of the rate of the population from which the people were drawn. ``prediction`` is the
    interval of the rate that another sample of as many people will show. It is wider, because that sample has a
    sampling error of its own. Such a sample will show at most ``at_most`` with a probability of 95 %.
    """

    value: float
    confidence: tuple[float, float]
    prediction: tuple[float, float]
    at_most: float

    @classmethod
    def of(cls, value: float, trials: float) -> "Rate":
        """The rate ``value`` that was seen in data worth ``trials`` independent comparisons."""
        return cls(value, rate_interval(value, trials), rate_interval(value, trials / 2), rate_limit(value, trials))

    def mapped(self, formula: Callable[[float], float]) -> "Rate":
        """The rate and its bounds after a rising function ``formula``."""
        return Rate(
            formula(self.value),
            (formula(self.confidence[0]), formula(self.confidence[1])),
            (formula(self.prediction[0]), formula(self.prediction[1])),
            formula(self.at_most),
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The cosine from which a comparison counts as a match, for a false-match rate of no more than ``target``.

    ``rate`` is the one that the data show at ``value``. ``interval`` is the 95 % confidence interval of the threshold
    at which the population has exactly the rate ``target`` (Woodruff, 1952). ``effective_comparisons`` is the number of
    independent comparisons that tell as much as the data.
    """

    value: float
    target: float
    rate: Rate
    interval: tuple[float, float]
    effective_comparisons: float
    people: int
    pairs_of_people: int


@dataclass(frozen=True, slots=True)
class Target:
    """The wanted rates of a gallery of ``samples`` enrolled faces.

    ``fmr`` is the false-match rate of one comparison, ``fpir`` the share of strangers who match somebody. The user asks
    for one of them (``asked``), and the other follows from it.
    """

    fmr: float
    fpir: float
    samples: int
    asked: Literal["fmr", "fpir"]

    @classmethod
    def of_comparisons(cls, fmr: float, samples: int) -> "Target":
        return cls(fmr, one_to_many(fmr, samples), samples, "fmr")

    @classmethod
    def of_strangers(cls, fpir: float, samples: int) -> "Target":
        return cls(one_to_one(fpir, max(samples, 1)), fpir, samples, "fpir")

    def origin(self, rate: Literal["fmr", "fpir"]) -> str:
        """Where ``rate`` comes from, in words; empty if the user asked for it."""
        if rate == self.asked:
            return ""
        return f" (from a target {self.asked} of {getattr(self, self.asked):g} and {self.samples} enrolled faces)"


def find_threshold(scores: NonMatedScores, target: float, *, origin: str = "") -> Threshold:
    """The lowest threshold at which another group of the same size has a rate of at most ``target``: 95 % certain.

    If ``scores`` are too few to be that certain, it is the threshold above which three false matches are left. A rate
    that is seen in fewer says nothing, and a single mistake in the data would decide. ``origin`` says in words where
    the target comes from, for the message of an error.

    Raises:
        UnsupportedTargetError: the data are equivalent to fewer than 3 / ``target`` independent comparisons; the
            message says how many people are needed. Or the same pictures have two names.
    """
    plain = scores.threshold_at(target)
    rate = scores.rate_at(plain)
    if rate > target + 1e-9:
        raise UnsupportedTargetError(
            f"{rate:.2%} of the comparisons have similarity 1: the same pictures under two names; remove them"
        )
    of_people, of_pairs = scores.spread_at(plain)
    trials = min(effective_count(rate, of_people + of_pairs), float(scores.pairs_of_people))
    if not rate or trials * target < RULE_OF_THREE:
        raise UnsupportedTargetError(_shortage(scores, target, origin, of_people, of_pairs))
    confidence = rate_interval(rate, trials)
    value, found = plain, Rate.of(rate, trials)
    # What a threshold is worth is known only once it is there: people who resemble many others weigh more at the top.
    for _ in range(_STEPS):
        wanted = min(target, max(certain_rate(target, trials), RULE_OF_THREE / trials))
        value = max(value, scores.threshold_at(wanted))
        found, trials = _rate_and_trials(scores, value)
        if found.at_most <= target or found.value * trials <= RULE_OF_THREE:
            break
    return Threshold(
        value=value,
        target=target,
        rate=found,
        interval=(scores.threshold_at(confidence[1]), scores.threshold_at(confidence[0])),
        effective_comparisons=trials,
        people=scores.people,
        pairs_of_people=scores.pairs_of_people,
    )


def rate_of(scores: NonMatedScores, threshold: float) -> Rate:
    """The rate of ``scores`` at a given ``threshold``."""
    return _rate_and_trials(scores, threshold)[0]


def _rate_and_trials(scores: NonMatedScores, threshold: float) -> tuple[Rate, float]:
    rate = scores.rate_at(threshold)
    trials = min(effective_count(rate, sum(scores.spread_at(threshold))), float(scores.pairs_of_people))
    return Rate.of(rate, trials), trials


def false_non_match_rate(similarities: Floats, people: Indices, threshold: float) -> Rate | None:
    """The share of mated comparisons (n,) below ``threshold``, or None without any. Every person counts the same."""
    if not len(similarities):
        return None
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    missed = np.bincount(person, similarities < threshold) / counts
    rate, variance = float(missed.mean()), float(missed.var()) / max(len(missed) - 1, 1)
    return Rate.of(rate, min(effective_count(rate, variance), float(len(counts))))


def same_person_similarities(vectors: NDArray[np.float32], people: Indices) -> tuple[Floats, Indices]:
    """The similarity of each pair of photos of one person float64 (n,), and that person int64 (n,).

    ``vectors`` are unit vectors float32 (m, d), and ``people`` int64 (m,) says whom each shows.
    """
    order = np.argsort(people, kind="stable")
    starts = np.flatnonzero(np.diff(people[order], prepend=-1))
    similarities, owners = [np.empty(0)], [np.empty(0, np.int64)]
    for rows in np.split(order, starts[1:]):
        cosines = (vectors[rows] @ vectors[rows].T)[np.triu_indices(len(rows), 1)]
        similarities.append(cosines.astype(np.float64))
        owners.append(np.full(len(cosines), people[rows[0]], np.int64))
    return np.concatenate(similarities), np.concatenate(owners)


def one_to_many(rate: float, samples: int) -> float:
    """The rate at which a stranger matches at least one of ``samples`` enrolled faces, from the rate of one comparison.

    It is exact for independent comparisons, and for real ones an expectation over galleries of that size: a gallery of
    people who resemble many others has a higher rate, another one a lower rate.
    """
    return -math.expm1(samples * math.log1p(-rate)) if rate < 1 else float(samples > 0)


def one_to_one(rate: float, samples: int) -> float:
    """The inverse of :func:`one_to_many`."""
    return -math.expm1(math.log1p(-rate) / samples) if rate < 1 else 1.0


def _shortage(scores: NonMatedScores, target: float, origin: str, of_people: float, of_pairs: float) -> str:
    """What the data lack, computed from how their sampling error falls with more people."""
    wanted = target**2 * (1 - target) / RULE_OF_THREE
    of_pairs = max(of_pairs, target * (1 - target) / scores.pairs_of_people) if not scores.of_strangers else 0.0
    if scores.of_strangers:
        of_people = max(of_people, target * (1 - target) / scores.people)
    # With 1/x of the people, the part of the variance that is due to people grows by x, that of pairs by x squared. For
    # a list of pairs both grow by x.
    if scores.everybody:
        root = math.sqrt(of_people**2 + 4 * of_pairs * wanted)
        fraction = 2 * wanted / (of_people + root)
    else:
        fraction = wanted / (of_people + of_pairs)
    people = math.ceil(scores.people / fraction)
    rate = f"a false-match rate of {target:.3g}"
    if scores.of_strangers:
        rate = f"that no more than {target:.3g} of the strangers match somebody"
        have, need = f"{scores.people} strangers", f"about {people:,} strangers"
    elif scores.everybody:
        pairs = "pair" if scores.pairs_of_people == 1 else "pairs"
        have = f"{scores.people:,} people ({scores.pairs_of_people:,} {pairs} of people)"
        need = f"about {people:,} people ({people * (people - 1) // 2:,} pairs of people)"
    else:
        have = f"{len(scores.shares):,} pairs of different people"
        need = f"about {math.ceil(len(scores.shares) / fraction):,} pairs of different people"
    return (
        f"the data cannot support {rate}{origin}: {have} are given, {need} are needed "
        f"(three false matches in independent comparisons); give more, or a higher target"
    )


def listed_pairs(pairs: Pairs, similarities: Floats) -> NonMatedScores:
    """The similarities of the pairs of different people in a pairs file.

    Raises:
        UnsupportedTargetError: the file holds no such pairs.
    """
    first, second = pairs.people
    apart = ~pairs.same
    order = np.flatnonzero(apart)[np.argsort(-similarities[apart], kind="stable")]
    if not len(order):
        raise UnsupportedTargetError("the pairs file holds no pairs of different people")
    numbers, packed = np.unique(np.concatenate([first[order], second[order]]), return_inverse=True)
    first, second = packed[: len(order)].astype(np.int64), packed[len(order) :].astype(np.int64)
    distinct = len(np.unique(np.minimum(first, second) * len(numbers) + np.maximum(first, second)))
    shares = np.full(len(order), 1 / len(order))
    return NonMatedScores(similarities[order], shares, first, second, len(numbers), distinct)
