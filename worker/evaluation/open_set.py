"""Open-set identification: is this an enrolled person, and if so, who?

The rates are those of ISO/IEC 19795-1 and of NIST's FRTE 1:N. FNIR is the share of mated probes, of enrolled people,
that do not get the right name: another person is nearer, or the similarity is below the threshold. FPIR is the share of
non-mated probes, of strangers, that get a name.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.evaluation.false_matches import draw_people
from worker.evaluation.probes import PeopleFaces

REPORTED_FPIRS: Final = (0.1, 0.01, 0.001)
_BLOCK_ROWS: Final = 512

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Searches:
    """The outcome of searching a gallery for each probe.

    Mated probes: ``own`` float64 (n,) is the similarity to the person in the probe, ``other`` float64 (n,) that to the
    nearest other person, and ``people`` int64 (n,) says who is in the probe. Non-mated probes: ``strangers`` float64
    (m,) is the similarity to the nearest person, and ``stranger_people`` int64 (m,) says who is in the probe.
    ``enrolled_people`` is the number of people in the gallery. ``strangers_are`` says in words who the strangers are.
    """

    own: Floats
    other: Floats
    people: Indices
    strangers: Floats
    stranger_people: Indices
    enrolled_people: int
    strangers_are: str


@dataclass(frozen=True, slots=True)
class DetCurve:
    """FNIR and FPIR at each threshold, all float64 (k,). The thresholds are in falling order."""

    thresholds: Floats
    fpir: Floats
    fnir: Floats

    def fnir_at(self, fpir: float) -> tuple[float, float]:
        """The lowest FNIR at which no more than ``fpir`` of the non-mated probes get a name, and its threshold."""
        point = int(np.searchsorted(self.fpir, fpir, side="right")) - 1
        return float(self.fnir[point]), float(self.thresholds[point])


def search_left_out(faces: PeopleFaces) -> Searches:
    """Searches each photo in turn in a gallery of all the others.

    People with two photos or more are enrolled, and people with a single photo are the strangers. If everybody has
    several photos, each person in turn is a stranger to a gallery without them.

    Raises:
        SourceError: nobody has two photos, or there is only one person.
    """
    counts = np.bincount(faces.people)
    enrolled = counts[faces.people] >= 2
    if not enrolled.any() or len(counts) < 2:
        raise SourceError("identification needs people with two photos or more, and a second person")
    own, other = _nearest(faces.vectors, faces.people, faces.vectors[enrolled], faces.people[enrolled], enrolled)
    single = ~enrolled
    if single.any():
        strangers, owners, are = other[single], faces.people[single], "people with a single photo"
    else:
        strangers, owners, are = other, faces.people, "everybody, left out of the gallery in turn"
    return Searches(
        own[enrolled], other[enrolled], faces.people[enrolled], strangers, owners, int((counts >= 2).sum()), are
    )


def search_probes(gallery: PeopleFaces, probes: PeopleFaces) -> Searches:
    """Searches each of ``probes`` in ``gallery``. The same name means the same person.

    People whose name is not in the gallery are strangers. If there are none, each person in turn is a stranger to a
    gallery without them.

    Raises:
        SourceError: no probe is of an enrolled person.
    """
    numbers = {name: number for number, name in enumerate(gallery.names)}
    own_numbers = [numbers.setdefault(name, len(numbers)) for name in probes.names]
    people = np.array(own_numbers, np.int64)[probes.people]
    enrolled = people < len(gallery.names)
    if not enrolled.any():
        raise SourceError(
            "no probe is of an enrolled person: give each folder of probes the name of the person's folder in --people"
        )
    own, other = _nearest(probes.vectors, people, gallery.vectors, gallery.people, None)
    if enrolled.all():
        strangers, owners, are = other, people, "everybody, left out of the gallery in turn"
    else:
        strangers, owners, are = other[~enrolled], people[~enrolled], "people who are not enrolled"
    return Searches(own[enrolled], other[enrolled], people[enrolled], strangers, owners, len(gallery.names), are)


def det_curve(searches: Searches) -> DetCurve:
    """The exact curve, from a threshold that no probe reaches down to the lowest similarity."""
    return _curve(searches, np.ones(len(searches.own)), np.ones(len(searches.strangers)))


def rank_one(searches: Searches) -> float:
    """The share of mated probes whose own person is nearest, without a threshold."""
    return float(np.mean(searches.own > searches.other))


def identification_document(searches: Searches, *, draws: int = 500) -> dict[str, Any]:
    """The rates with 95 % confidence intervals from ``draws`` resamples of people, as JSON values."""
    curve = det_curve(searches)
    points = {fpir: curve.fnir_at(fpir) for fpir in REPORTED_FPIRS}
    samples: dict[float, list[float]] = {fpir: [] for fpir in REPORTED_FPIRS}
    people = int(max(searches.people.max(), searches.stranger_people.max())) + 1
    for times in (row for block in draw_people(people, draws) for row in block):
        known, unknown = times[searches.people], times[searches.stranger_people]
        if known.any() and unknown.any():
            drawn = _curve(searches, known, unknown)
            for fpir in REPORTED_FPIRS:
                samples[fpir].append(drawn.fnir_at(fpir)[0])
    return {
        "enrolled_people": searches.enrolled_people,
        "probes_enrolled": len(searches.own),
        "probes_strangers": len(searches.strangers),
        "stranger_people": len(np.unique(searches.stranger_people)),
        "strangers_are": searches.strangers_are,
        "rank_1": round(rank_one(searches), 6),
        "fnir_at_fpir": {f"{fpir:g}": round(fnir, 6) for fpir, (fnir, _) in points.items()},
        "threshold_at_fpir": {f"{fpir:g}": round(min(limit, 1.0), 6) for fpir, (_, limit) in points.items()},
        "confidence_intervals_95": {
            f"fnir_at_fpir_{fpir:g}": [round(float(bound), 6) for bound in np.quantile(values, [0.025, 0.975])]
            for fpir, values in samples.items()
            if values
        },
    }


def _curve(searches: Searches, known: Floats, unknown: Floats) -> DetCurve:
    """The curve if the mated probes count ``known`` times and the non-mated ones ``unknown`` times."""
    scores = np.concatenate([searches.own, searches.strangers])
    found = np.concatenate([known * (searches.own > searches.other), np.zeros(len(unknown))])
    alarms = np.concatenate([np.zeros(len(known)), unknown])
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    fpir = np.concatenate([[0.0], np.cumsum(alarms[order])[ends] / unknown.sum()])
    fnir = np.concatenate([[1.0], 1 - np.cumsum(found[order])[ends] / known.sum()])
    return DetCurve(np.concatenate([[np.inf], scores[order][ends]]), fpir, fnir)


def _nearest(
    probes: NDArray[np.float32],
    probe_people: Indices,
    gallery: NDArray[np.float32],
    gallery_people: Indices,
    enrolled: NDArray[np.bool_] | None,
) -> tuple[Floats, Floats]:
    """The highest similarity of each probe to its own person, and to any other; -1 if there is none.

    ``enrolled`` bool (n,) says which probes are photos of the gallery, which has them in the same order. A photo is not
    compared with itself. With None, no probe is in the gallery.
    """
    own, other = np.full(len(probes), -1.0), np.full(len(probes), -1.0)
    place = np.full(len(probes), -1) if enrolled is None else np.where(enrolled, np.cumsum(enrolled) - 1, -1)
    for start in range(0, len(probes), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        cosines = probes[rows] @ gallery.T
        itself = np.flatnonzero(place[rows] >= 0)
        cosines[itself, place[rows][itself]] = -1.0
        same = probe_people[rows, None] == gallery_people[None, :]
        own[rows] = np.where(same, cosines, -1.0).max(axis=1)
        other[rows] = np.where(same, -1.0, cosines).max(axis=1)
    return own, other
