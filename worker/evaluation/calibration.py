"""The threshold for a wanted false-match rate, and how far the data can be trusted with it.

What the intervals cover was measured; see ``docs/calibration.md``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.false_matches import FalseMatchScores, UnsupportedTargetError
from worker.evaluation.resampling import effective_count, rate_interval

RULE_OF_THREE: Final = 3.0
"""No event in n independent trials bounds the rate by 3/n with 95 % confidence (Hanley and Lippman-Hand, 1983)."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate 0..1 with two 95 % intervals.

    ``confidence`` is for the rate of the population that the people were drawn from; ``prediction`` for the rate
    that a further sample of as many people will show, which has a sampling error of its own.
    """

    value: float
    confidence: tuple[float, float]
    prediction: tuple[float, float]

    def mapped(self, formula: Callable[[float], float]) -> "Rate":
        """The rate and its bounds through a rising function."""
        return Rate(
            formula(self.value),
            (formula(self.confidence[0]), formula(self.confidence[1])),
            (formula(self.prediction[0]), formula(self.prediction[1])),
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The cosine from which a comparison counts as a match, for a false-match rate of ``target``.

    ``interval`` is the 95 % confidence interval of the threshold at which the population has just that rate
    (Woodruff, 1952); ``effective_comparisons`` how many independent comparisons the data are worth.
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
    """What is wanted of a gallery of ``samples`` enrolled faces: ``fmr`` is the false-match rate of one comparison,
    ``fpir`` the share of strangers who match somebody. Either follows from the other."""

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
        """Where ``rate`` comes from, in words, empty where it is what was asked for."""
        if rate == self.asked:
            return ""
        return f" (from a target {self.asked} of {getattr(self, self.asked):g} and {self.samples} enrolled faces)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One kind of labelled data: ``scores`` of false matches, and the ``threshold`` that they allow.

    ``same`` holds similarities of same-person comparisons and the person of each; ``strangers`` the similarities to
    the gallery of people in the data who are not enrolled.
    """

    source: Literal["pairs", "people", "strangers"]
    scores: FalseMatchScores
    threshold: Threshold
    same: tuple[Floats, Indices] = field(default_factory=lambda: (np.empty(0), np.empty(0, np.int64)))
    strangers: FalseMatchScores | None = None


def find_threshold(scores: FalseMatchScores, target: float, *, origin: str = "") -> Threshold:
    """The threshold at which ``scores`` have a false-match rate of ``target``; ``origin`` says in words where that
    target comes from, for a refusal.

    Raises:
        UnsupportedTargetError: the data are worth fewer than 3 / ``target`` independent comparisons; the message
            says how many people it would need. Or the same pictures bear two names.
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


def rate_of(scores: FalseMatchScores, threshold: float) -> Rate:
    """The rate of ``scores`` at a given ``threshold``."""
    rate = scores.rate_at(threshold)
    trials = min(effective_count(rate, sum(scores.spread_at(threshold))), float(scores.pairs_of_people))
    return Rate(rate, rate_interval(rate, trials), rate_interval(rate, trials / 2))


def false_non_match_rate(similarities: Floats, people: Indices, threshold: float) -> Rate | None:
    """The share of same-person comparisons (n,) below ``threshold``; every person counts alike, None without any."""
    if not len(similarities):
        return None
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    missed = np.bincount(person, similarities < threshold) / counts
    rate, variance = float(missed.mean()), float(missed.var()) / max(len(missed) - 1, 1)
    trials = min(effective_count(rate, variance), float(len(counts)))
    return Rate(rate, rate_interval(rate, trials), rate_interval(rate, trials / 2))


def same_person_similarities(vectors: NDArray[np.float32], people: Indices) -> tuple[Floats, Indices]:
    """The similarity of each pair of photos of one person, and that person, both (n,)."""
    order = np.argsort(people, kind="stable")
    starts = np.flatnonzero(np.diff(people[order], prepend=-1))
    similarities, owners = [np.empty(0)], [np.empty(0, np.int64)]
    for rows in np.split(order, starts[1:]):
        cosines = (vectors[rows] @ vectors[rows].T)[np.triu_indices(len(rows), 1)]
        similarities.append(cosines.astype(np.float64))
        owners.append(np.full(len(cosines), people[rows[0]], np.int64))
    return np.concatenate(similarities), np.concatenate(owners)


def one_to_many(rate: float, samples: int) -> float:
    """The rate at which a stranger matches some of ``samples`` enrolled faces, from that of one comparison.

    Exact for independent comparisons. Real ones are correlated, which lowers the rate: this is an upper bound.
    """
    return -math.expm1(samples * math.log1p(-rate)) if rate < 1 else float(samples > 0)


def one_to_one(rate: float, samples: int) -> float:
    """The inverse of :func:`one_to_many`."""
    return -math.expm1(math.log1p(-rate) / samples) if rate < 1 else 1.0


def weigh(
    source: Literal["pairs", "people", "strangers"],
    scores: FalseMatchScores,
    target: Target,
    same: tuple[Floats, Indices] | None = None,
    strangers: FalseMatchScores | None = None,
) -> Evidence:
    """The threshold that ``scores`` allow for ``target``.

    Raises:
        UnsupportedTargetError: the data cannot support the target.
    """
    kind: Literal["fmr", "fpir"] = "fpir" if scores.of_strangers else "fmr"
    wanted = target.fpir if scores.of_strangers else target.fmr
    threshold = find_threshold(scores, wanted, origin=target.origin(kind))
    return Evidence(source, scores, threshold, same or (np.empty(0), np.empty(0, np.int64)), strangers)


def calibration_document(evidence: Sequence[Evidence], target: Target, visits_per_day: float) -> dict[str, Any]:
    """The threshold that all ``evidence`` allows, the strictest, and what it means, as JSON values."""
    decisive = max(evidence, key=lambda found: found.threshold.value)
    threshold = decisive.threshold.value
    compared = next((found.scores for found in evidence if not found.scores.of_strangers), None)
    fmr = rate_of(compared, threshold) if compared else None
    fpir, fpir_from = _fpir(evidence, threshold, fmr, target.samples)
    missed = next((rate for found in evidence if (rate := false_non_match_rate(*found.same, threshold))), None)
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
        "evidence": [_evidence_fields(found) for found in evidence],
    }


def _fpir(evidence: Sequence[Evidence], threshold: float, fmr: Rate | None, samples: int) -> tuple[Rate, str]:
    """How many strangers match somebody: seen, the site's own footage first, else concluded from comparisons."""
    if not samples:
        return Rate(0.0, (0.0, 0.0), (0.0, 0.0)), "nobody is enrolled yet"
    for found in sorted(evidence, key=lambda found: found.source != "strangers"):
        seen = found.scores if found.scores.of_strangers else found.strangers
        if seen is not None:
            return rate_of(seen, threshold), f"{seen.people} people not enrolled, against this gallery ({found.source})"
    if fmr is None:
        raise ValueError("evidence holds comparisons of people or strangers")
    return fmr.mapped(lambda rate: one_to_many(rate, samples)), f"fmr and {samples} enrolled faces: an upper bound"


def _evidence_fields(found: Evidence) -> dict[str, Any]:
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
    """``name_interval_95`` is what as many other people will show; ``name_confidence_interval_95`` is narrower."""
    if rate is None:
        return {name: None, f"{name}_interval_95": None, f"{name}_confidence_interval_95": None}
    return {
        name: _short(rate.value),
        f"{name}_interval_95": [_short(bound) for bound in rate.prediction],
        f"{name}_confidence_interval_95": [_short(bound) for bound in rate.confidence],
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _shortage(scores: FalseMatchScores, target: float, origin: str, of_people: float, of_pairs: float) -> str:
    """What the data lack, from how their sampling error falls with more people."""
    wanted = target**2 * (1 - target) / RULE_OF_THREE
    of_pairs = max(of_pairs, target * (1 - target) / scores.pairs_of_people) if not scores.of_strangers else 0.0
    if scores.of_strangers:
        of_people = max(of_people, target * (1 - target) / scores.people)
    # With 1/x of the people the first part grows by x, the second by x squared; for a list of pairs both by x.
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
        have = f"{scores.people:,} people ({scores.pairs_of_people:,} pairs of people)"
        need = f"about {people:,} people ({people * (people - 1) // 2:,} pairs of people)"
    else:
        have = f"{len(scores.shares):,} pairs of different people"
        need = f"about {math.ceil(len(scores.shares) / fraction):,} pairs of different people"
    return (
        f"the data cannot support {rate}{origin}: {have} are given, {need} are needed "
        f"(three false matches in independent comparisons); give more, or a higher target"
    )
