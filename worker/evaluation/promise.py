"""What a calibration promises: the threshold that all evidence allows, and whether the wanted rate is kept with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from worker.evaluation.calibration import (
    Floats,
    Indices,
    Rate,
    Target,
    Threshold,
    false_non_match_rate,
    find_threshold,
    one_to_many,
    rate_of,
    same_person_similarities,
)
from worker.evaluation.false_matches import (
    NonMatedScores,
    UnsupportedTargetError,
    effective_count,
    everybody_with_everybody,
)
from worker.evaluation.probes import PeopleFaces, probes_of_people
from worker.faces.manifests import Impostors
from worker.gallery.gallery import Gallery
from worker.gallery.resemblance import impostors_among, resemblance_in

Source = Literal["pairs", "people", "strangers", "history"]
Status = Literal["kept", "not_certain", "missed", "not_measured"]

_CERTAIN_FROM: Final = 9.6
"""So many false matches a target must allow in the data, so that three seen ones make it certain."""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Labelled data of one source, and the ``threshold`` that they allow.

    ``scores`` are similarities of non-mated comparisons: of different people, or of strangers with the gallery.
    ``mated`` holds similarities float64 (n,) of comparisons of a person with themselves, and the person of each, int64
    (n,). ``threshold`` is None if the data do not decide: they only show which rate is reached. ``shortage`` then says
    what they lack. ``who`` says in words whose comparisons they are. ``impostors`` say how similar different people are
    to each other, if everybody was compared with everybody.
    """

    source: Source
    scores: NonMatedScores
    threshold: Threshold | None
    mated: tuple[Floats, Indices] = field(default_factory=lambda: (np.empty(0), np.empty(0, np.int64)))
    who: str = ""
    shortage: str = ""
    impostors: Impostors | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """Whether the rate that was asked for is kept.

    ``reached`` is what the data show at the threshold, ``judged_by`` says in words which data. ``to_reach`` says what
    would keep the target, or make it certain; ``threshold_to_reach`` is the threshold at which the data show it.
    """

    asked: Literal["fmr", "fpir"]
    target: float
    status: Status
    reached: Rate
    judged_by: str
    to_reach: str = ""
    threshold_to_reach: float | None = None

    @property
    def met(self) -> bool | None:
        """None if the data cannot tell."""
        return {"kept": True, "missed": False}.get(self.status)

    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "target_asked": self.asked,
            "target_status": self.status,
            "target_met": self.met,
            "reached": _short(self.reached.value),
            "reached_at_most_95": _short(self.reached.at_most),
            "reached_from": self.judged_by,
            "to_reach": self.to_reach,
            "threshold_to_reach": None if self.threshold_to_reach is None else round(self.threshold_to_reach, 6),
            "holds_for": "people like those in the evidence",
        }


def calibration_set(
    source: Source,
    scores: NonMatedScores,
    target: Target,
    mated: tuple[Floats, Indices] | None = None,
    *,
    who: str = "",
    impostors: Impostors | None = None,
    must_decide: bool = True,
) -> CalibrationSet:
    """The data of one ``source`` with the threshold that their ``scores`` allow for ``target``.

    ``who`` says in words whose comparisons they are. Data that need not decide (``must_decide``) and cannot support the
    target are kept without a threshold.

    Raises:
        UnsupportedTargetError: the data must decide, and cannot support the target.
    """
    kind: Literal["fmr", "fpir"] = "fpir" if scores.of_strangers else "fmr"
    wanted = target.fpir if scores.of_strangers else target.fmr
    own = mated or (np.empty(0), np.empty(0, np.int64))
    try:
        threshold, shortage = find_threshold(scores, wanted, origin=target.origin(kind)), ""
    except UnsupportedTargetError as error:
        if must_decide:
            raise
        threshold, shortage = None, str(error)
    return CalibrationSet(source, scores, threshold, own, who, shortage, impostors)


def sets_of_people(faces: PeopleFaces, gallery: Gallery, target: Target) -> list[CalibrationSet]:
    """``faces`` of people as evidence: everybody with everybody, and everybody against ``gallery``.

    If the target is one of strangers, both decide. One of them may be too small for it, and then does not decide.

    Raises:
        UnsupportedTargetError: neither can support the target.
    """
    scores = everybody_with_everybody(faces.vectors, faces.people, target.fmr)
    mated = same_person_similarities(faces.vectors, faces.people)
    against: list[CalibrationSet] = []
    if found := probes_of_people(faces, gallery):
        probes, who = found
        measured = calibration_set("people", probes, target, who=who, must_decide=False)
        if target.asked == "fmr":  # nobody asked for the rate of strangers
            measured = replace(measured, threshold=None, shortage="")
        against.append(measured)
    decides = any(measured.threshold for measured in against)
    impostors = impostors_among(faces.vectors, faces.people)
    everybody = calibration_set("people", scores, target, mated, impostors=impostors, must_decide=not decides)
    return [everybody, *against]


def calibration_document(
    sets: Sequence[CalibrationSet],
    target: Target,
    visits_per_day: float | None,
    gallery: Gallery | None = None,
) -> dict[str, Any]:
    """The strictest threshold of all ``sets``, and the rates that follow from it, as JSON values.

    ``visits_per_day``: how many strangers pass a camera; None if that is not known. ``gallery``: the one that is
    calibrated, to say whether its people resemble each other more than those in the evidence.

    Raises:
        UnsupportedTargetError: none of the data can support the target.
    """
    deciding = [(found.threshold, found) for found in sets if found.threshold is not None]
    if not deciding:
        raise UnsupportedTargetError(next((found.shortage for found in sets if found.shortage), "no evidence"))
    limit, decisive = max(deciding, key=lambda pair: pair[0].value)
    threshold = limit.value
    compared = next((found for found in sets if not found.scores.of_strangers), None)
    fmr = rate_of(compared.scores, threshold) if compared else None
    fpir, fpir_from = _fpir(sets, threshold, fmr, target.samples)
    missed = next((rate for found in sets if (rate := false_non_match_rate(*found.mated, threshold))), None)
    alarms = None if visits_per_day is None else fpir.mapped(lambda rate: rate * visits_per_day)
    return {
        "threshold": round(threshold, 6),
        "threshold_interval_95": [round(bound, 6) for bound in limit.interval],
        "decided_by": decisive.source,
        "target_fmr": _short(target.fmr),
        "target_fpir": _short(target.fpir),
        **promise_of(sets, target, threshold).fields(),
        **_rate_fields("fmr", fmr),
        **_rate_fields("fpir", fpir),
        "fpir_from": fpir_from,
        "enrolled_samples": target.samples,
        **_rate_fields("fnmr", missed),
        "visits_per_day": visits_per_day,
        **_rate_fields("false_alarms_per_camera_and_day", alarms),
        "evidence": [_set_fields(found) for found in sets],
        **_resemblance_fields(sets, threshold, fmr, gallery),
    }


def promise_of(sets: Sequence[CalibrationSet], target: Target, threshold: float) -> Promise:
    """Whether ``target`` is kept at ``threshold``, by the data that bear on it most directly."""
    compared = next((found for found in sets if not found.scores.of_strangers), None)
    seen = against_gallery(sets) if target.asked == "fpir" else compared
    if seen is None and target.asked == "fmr":  # a rate of strangers is all there is
        seen, wanted = against_gallery(sets), target.fpir
    else:
        wanted = getattr(target, target.asked)
    if seen is None:
        if compared is None:
            raise ValueError("a calibration set holds comparisons of people, or strangers")
        expected = rate_of(compared.scores, threshold).mapped(lambda rate: one_to_many(rate, target.samples))
        return Promise(
            "fpir", wanted, "not_measured", expected, "an expectation over galleries",
            "give faces of people who are not enrolled (--strangers, --history, or more of --people): "
            "only they show how this gallery does",
        )  # fmt: skip
    reached = rate_of(seen.scores, threshold)
    needed = _people_for_certainty(seen.scores, threshold, wanted)
    nouns = "strangers" if seen.scores.of_strangers else "people"
    by = f"{seen.scores.people:,} {seen.who or nouns}"
    if reached.value > wanted * (1 + 1e-6):
        limit = seen.scores.threshold_at(wanted)
        return Promise(
            target.asked, wanted, "missed", reached, by,
            f"a threshold of {limit:.4f} reaches it in this evidence, which is too little to decide; "
            f"about {needed:,} {nouns} would do",
            limit,
        )  # fmt: skip
    if reached.at_most > wanted * (1 + 1e-6):
        return Promise(
            target.asked, wanted, "not_certain", reached, by, f"about {needed:,} {nouns} would make it certain"
        )
    return Promise(target.asked, wanted, "kept", reached, by)


def against_gallery(sets: Sequence[CalibrationSet]) -> CalibrationSet | None:
    """The data that say most about strangers in front of this gallery: footage, the history, then people."""
    order = ("strangers", "history", "people", "pairs")
    measured = [found for found in sets if found.scores.of_strangers]
    return min(measured, key=lambda found: order.index(found.source), default=None)


def _people_for_certainty(scores: NonMatedScores, threshold: float, target: float) -> int:
    """About how many people of the kind in ``scores`` make it certain that ``target`` is kept."""
    rate = scores.rate_at(threshold)
    trials = min(effective_count(rate, sum(scores.spread_at(threshold))), float(scores.pairs_of_people))
    more = max(_CERTAIN_FROM / target / max(trials, 1.0), 1.0)
    # With everybody compared to everybody, the number of pairs grows with the square.
    return math.ceil(scores.people * (math.sqrt(more) if scores.everybody else more))


def _fpir(sets: Sequence[CalibrationSet], threshold: float, fmr: Rate | None, samples: int) -> tuple[Rate, str]:
    """The share of strangers who match somebody, and in words where it comes from.

    It is measured if the data hold strangers, first of all in the footage of the site. Otherwise it is computed from
    the rate of one comparison.
    """
    if not samples:
        return Rate(0.0, (0.0, 0.0), (0.0, 0.0), 0.0), "nobody is enrolled yet"
    if seen := against_gallery(sets):
        return rate_of(seen.scores, threshold), f"{seen.scores.people:,} {seen.who} ({seen.source})"
    if fmr is None:
        raise ValueError("without strangers, the share of strangers needs comparisons of people")
    return (
        fmr.mapped(lambda rate: one_to_many(rate, samples)),
        f"fmr and {samples} enrolled faces: an expectation over galleries, not measured against this one",
    )


def _resemblance_fields(
    sets: Sequence[CalibrationSet], threshold: float, fmr: Rate | None, gallery: Gallery | None
) -> dict[str, Any]:
    """What the gallery keeps of the ``impostors`` in the evidence, and how its own people compare with them."""
    impostors = next((found.impostors for found in sets if found.impostors), None)
    if impostors and fmr and fmr.value:
        impostors = impostors.model_copy(update={"threshold": threshold, "at_threshold": fmr.value})
    found = None if gallery is None else resemblance_in(gallery, threshold, impostors)
    return {
        "impostors": impostors.model_dump() if impostors else None,
        "resemblance": found.document() if found else None,
    }


def _set_fields(found: CalibrationSet) -> dict[str, Any]:
    made = {"source": found.source, "rate": "fpir" if found.scores.of_strangers else "fmr", "decides": False}
    threshold = found.threshold
    if threshold is None:
        return {**made, "people": found.scores.people, "shortage": found.shortage}
    return {
        **made,
        "decides": True,
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
