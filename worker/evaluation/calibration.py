"""The threshold for a wanted false-match rate, and how well the data support it.

How often the intervals hold the true value was measured; see ``docs/calibration.md``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.false_matches import NonMatedScores, UnsupportedTargetError, effective_count, rate_interval
from worker.evaluation.verification import Pairs

RULE_OF_THREE: Final = 3.0
"""If n independent trials show no event, the rate is below 3/n with 95 % confidence (Hanley and Lippman-Hand, 1983)."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate 0..1 with two 95 % intervals.

    ``confidence`` is the interval of the rate of the population from which the people were drawn. ``prediction`` is the
    interval of the rate that another sample of as many people will show. It is wider, because that sample has a
    sampling error of its own.
    """

    value: float
    confidence: tuple[float, float]
    prediction: tuple[float, float]

    def mapped(self, formula: Callable[[float], float]) -> "Rate":
        """The rate and its bounds after a rising function ``formula``."""
        return Rate(
            formula(self.value),
            (formula(self.confidence[0]), formula(self.confidence[1])),
            (formula(self.prediction[0]), formula(self.prediction[1])),
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The cosine from which a comparison counts as a match, for a false-match rate of ``target``.

    ``interval`` is the 95 % confidence interval of the threshold at which the population has exactly that rate
    (Woodruff, 1952). ``effective_comparisons`` is the number of independent comparisons that tell as much as the data.
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


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Labelled data of one source, and the ``threshold`` that they allow.

    ``scores`` are similarities of non-mated comparisons: of different people. ``mated`` holds similarities float64 (n,)
    of comparisons of a person with themselves, and the person of each, int64 (n,). ``strangers`` are the similarities
    to the gallery of those people in the data who are not enrolled.
    """

    source: Literal["pairs", "people", "strangers"]
    scores: NonMatedScores
    threshold: Threshold
    mated: tuple[Floats, Indices] = field(default_factory=lambda: (np.empty(0), np.empty(0, np.int64)))
    strangers: NonMatedScores | None = None


def find_threshold(scores: NonMatedScores, target: float, *, origin: str = "") -> Threshold:
    """The threshold at which ``scores`` have a false-match rate of ``target``.

    ``origin`` says in words where that target comes from, for the message of an error.

    Raises:
        UnsupportedTargetError: the data are equivalent to fewer than 3 / ``target`` independent comparisons; the
            message says how many people are needed. Or the same pictures have two names.
    """
    value = scores.threshold_at(target)
    rate = scores.rate_at(value)
    if rate > target + 1e-9:
        raise UnsupportedTargetError(
            f"{rate:.2%} of the comparisons have similarity 1: the same pictures under two names; remove them"
        )
    of_people, of_pairs = scores.spread_at(value)
    trials = min(effective_count(rate, of_people + of_pairs), float(scores.pairs_of_people))
    if not rate or trials * target < RULE_OF_THREE:
        raise UnsupportedTargetError(_shortage(scores, target, origin, of_people, of_pairs))
    confidence = rate_interval(rate, trials)
    return Threshold(
        value=value,
        target=target,
        rate=Rate(rate, confidence, rate_interval(rate, trials / 2)),
        interval=(scores.threshold_at(confidence[1]), scores.threshold_at(confidence[0])),
        effective_comparisons=trials,
        people=scores.people,
        pairs_of_people=scores.pairs_of_people,
    )


def rate_of(scores: NonMatedScores, threshold: float) -> Rate:
    """The rate of ``scores`` at a given ``threshold``."""
    rate = scores.rate_at(threshold)
    trials = min(effective_count(rate, sum(scores.spread_at(threshold))), float(scores.pairs_of_people))
    return Rate(rate, rate_interval(rate, trials), rate_interval(rate, trials / 2))


def false_non_match_rate(similarities: Floats, people: Indices, threshold: float) -> Rate | None:
    """The share of mated comparisons (n,) below ``threshold``, or None without any. Every person counts the same."""
    if not len(similarities):
        return None
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    missed = np.bincount(person, similarities < threshold) / counts
    rate, variance = float(missed.mean()), float(missed.var()) / max(len(missed) - 1, 1)
    trials = min(effective_count(rate, variance), float(len(counts)))
    return Rate(rate, rate_interval(rate, trials), rate_interval(rate, trials / 2))


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

    It is exact for independent comparisons. Real comparisons are correlated, which lowers the rate, so that this is an
    upper bound.
    """
    return -math.expm1(samples * math.log1p(-rate)) if rate < 1 else float(samples > 0)


def one_to_one(rate: float, samples: int) -> float:
    """The inverse of :func:`one_to_many`."""
    return -math.expm1(math.log1p(-rate) / samples) if rate < 1 else 1.0


def calibration_set(
    source: Literal["pairs", "people", "strangers"],
    scores: NonMatedScores,
    target: Target,
    mated: tuple[Floats, Indices] | None = None,
    strangers: NonMatedScores | None = None,
) -> CalibrationSet:
    """The data of one ``source`` with the threshold that their ``scores`` allow for ``target``.

    Raises:
        UnsupportedTargetError: the data cannot support the target.
    """
    kind: Literal["fmr", "fpir"] = "fpir" if scores.of_strangers else "fmr"
    wanted = target.fpir if scores.of_strangers else target.fmr
    threshold = find_threshold(scores, wanted, origin=target.origin(kind))
    return CalibrationSet(source, scores, threshold, mated or (np.empty(0), np.empty(0, np.int64)), strangers)


def calibration_document(sets: Sequence[CalibrationSet], target: Target, visits_per_day: float) -> dict[str, Any]:
    """The strictest threshold of all ``sets``, and the rates that follow from it, as JSON values."""
    decisive = max(sets, key=lambda found: found.threshold.value)
    threshold = decisive.threshold.value
    compared = next((found.scores for found in sets if not found.scores.of_strangers), None)
    fmr = rate_of(compared, threshold) if compared else None
    fpir, fpir_from = _fpir(sets, threshold, fmr, target.samples)
    missed = next((rate for found in sets if (rate := false_non_match_rate(*found.mated, threshold))), None)
    alarms = fpir.mapped(lambda rate: rate * visits_per_day)
    return {
        "threshold": round(threshold, 6),
        "threshold_interval_95": [round(bound, 6) for bound in decisive.threshold.interval],
        "decided_by": decisive.source,
        "target_fmr": _short(target.fmr),
        "target_fpir": _short(target.fpir),
        **_rate_fields("fmr", fmr),
        **_rate_fields("fpir", fpir),
        "fpir_from": fpir_from,
        "enrolled_samples": target.samples,
        **_rate_fields("fnmr", missed),
        "visits_per_day": visits_per_day,
        **_rate_fields("false_alarms_per_camera_and_day", alarms),
        "evidence": [_set_fields(found) for found in sets],
    }


def _fpir(sets: Sequence[CalibrationSet], threshold: float, fmr: Rate | None, samples: int) -> tuple[Rate, str]:
    """The share of strangers who match somebody, and in words where it comes from.

    It is measured if the data hold strangers, first of all in the footage of the site. Otherwise it is computed from
    the rate of one comparison.
    """
    if not samples:
        return Rate(0.0, (0.0, 0.0), (0.0, 0.0)), "nobody is enrolled yet"
    for found in sorted(sets, key=lambda found: found.source != "strangers"):
        seen = found.scores if found.scores.of_strangers else found.strangers
        if seen is not None:
            return rate_of(seen, threshold), f"{seen.people} people not enrolled, against this gallery ({found.source})"
    if fmr is None:
        raise ValueError("a calibration set holds comparisons of people, or strangers")
    return fmr.mapped(lambda rate: one_to_many(rate, samples)), f"fmr and {samples} enrolled faces: an upper bound"


def _set_fields(found: CalibrationSet) -> dict[str, Any]:
    threshold = found.threshold
    return {
        "source": found.source,
        "rate": "fpir" if found.scores.of_strangers else "fmr",
        "threshold": round(threshold.value, 6),
        "threshold_interval_95": [round(bound, 6) for bound in threshold.interval],
        **_rate_fields("rate_seen", threshold.rate),
        "people": threshold.people,
        "pairs_of_people": threshold.pairs_of_people,
        "effective_comparisons": round(threshold.effective_comparisons),
    }


def _rate_fields(name: str, rate: Rate | None) -> dict[str, Any]:
    """``name_interval_95`` is for a new group of the same size; ``name_confidence_interval_95`` is narrower."""
    if rate is None:
        return {name: None, f"{name}_interval_95": None, f"{name}_confidence_interval_95": None}
    return {
        name: _short(rate.value),
        f"{name}_interval_95": [_short(bound) for bound in rate.prediction],
        f"{name}_confidence_interval_95": [_short(bound) for bound in rate.confidence],
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


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
