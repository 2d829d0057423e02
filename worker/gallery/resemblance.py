"""How much the people of a gallery resemble each other, beside those for whom a threshold was chosen.

A false-match rate speaks for people like those in the evidence. If the people of a gallery resemble each other more,
strangers of their kind resemble them more, too, and the rate does not hold. The pairs of enrolled people show it, and
cost nothing: they need no further photo.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.alignment import split_variant
from worker.faces.manifests import Impostors, load_manifest
from worker.gallery.gallery import Gallery
from worker.types import Rows, Vectors

MOST_PEOPLE: Final = 1000
"""Of a larger gallery, so many people are drawn: half a million pairs tell enough, and take some 20 ms."""
REFERENCE_RATE: Final = 0.01
"""The share of pairs in the evidence by which galleries are compared: high enough that a gallery of 40 shows it."""
_CERTAIN: Final = 1.645
"""In standard deviations: a one-sided limit that holds with 95 % certainty."""
_CLEARLY: Final = 1.6
"""A warning is due if the people of a gallery certainly reach the reference so many times as often as the evidence."""
_TIMES: Final = 2.0
"""And if at least so many times as many false matches follow from it."""
_FEWEST_PEOPLE: Final = 10


@dataclass(frozen=True, slots=True)
class Resemblance:
    """How often two people of a gallery are taken for each other, and how often those in the evidence are.

    ``share`` is the share of pairs of different people of the gallery that reach ``threshold``, ``expected`` that of
    the evidence (0..1). At the reference, which 1 % of the pairs in the evidence reach, ``at_reference`` of the pairs
    of the gallery do, and of such people in general at least ``at_least`` with 95 % certainty. ``pairs`` is the number
    of pairs of people that were compared. ``offered`` is a threshold that keeps the promise for such people.
    """

    threshold: float
    share: float
    expected: float
    at_reference: float
    at_least: float
    pairs: int
    offered: float

    @property
    def times(self) -> float:
        """How many times as often as in the evidence two people are taken for each other."""
        return self.share / self.expected if self.share else self.at_reference / REFERENCE_RATE

    @property
    def is_high(self) -> bool:
        """Whether the people resemble each other clearly more than those in the evidence: its rates do not hold."""
        return self.at_least >= _CLEARLY * REFERENCE_RATE and self.times >= _TIMES

    @property
    def warning(self) -> str:
        """What to say about it; empty if there is nothing to say."""
        if not self.is_high:
            return ""
        return (
            f"your people resemble each other {_two_digits(self.times)} times as much as those in the evidence "
            f"({_two_digits(100 * self.share)}% of their pairs reach the threshold {self.threshold:.3f}, "
            f"{_two_digits(100 * self.expected)}% of the pairs in the evidence do): "
            "expect that many times as many false alarms from strangers of their kind. "
            f"A threshold of about {self.offered:.3f} keeps the promise for them, and misses more"
        )

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        values = {name: float(f"{value:.6g}") for name, value in asdict(self).items()}
        return values | {"times": float(f"{self.times:.3g}"), "is_high": self.is_high, "warning": self.warning}


def resemblance_in(gallery: Gallery, threshold: float, impostors: Impostors | None = None) -> Resemblance | None:
    """How much the people of ``gallery`` resemble each other at ``threshold``, beside the evidence's ``impostors``.

    Without ``impostors``, those with which the gallery was calibrated count, or else those of its model's manifest.
    None if there are none, or too few people to say.
    """
    impostors = impostors or known_impostors(gallery)
    if impostors is None or len(gallery) < _FEWEST_PEOPLE:
        return None
    vectors, samples = gallery.vectors()
    _, owners = np.unique([sample.identity_id for sample in samples], return_inverse=True)
    own = OwnPairs(vectors, owners.astype(np.int64))
    at_reference = own.reaching(impostors.one_percent)
    mean, sd = own.moments()
    # The tail of the evidence, moved and stretched to the middle and the width of this gallery.
    offered = mean + (threshold - impostors.mean) * max(sd / impostors.sd, 1.0)
    return Resemblance(
        threshold=threshold,
        share=own.reaching(threshold).share,
        expected=impostors.rate_at(threshold),
        at_reference=at_reference.share,
        at_least=at_reference.at_least,
        pairs=at_reference.count,
        offered=min(offered, 1.0),
    )


def impostors_among(vectors: Vectors, owners: Rows) -> Impostors:
    """How similar different people are, in the evidence: unit ``vectors`` float32 (n, d) of ``owners`` int64 (n,)."""
    own = OwnPairs(vectors, owners)
    return _impostors(*own.moments(), own.reached_by(REFERENCE_RATE))


def impostors_in(similarities: NDArray[np.float64]) -> Impostors:
    """The same from cosines of pairs of different people, float64 (n,)."""
    mean, sd = float(similarities.mean()), float(similarities.std())
    return _impostors(mean, sd, float(np.quantile(similarities, 1 - REFERENCE_RATE)))


def _impostors(mean: float, sd: float, one_percent: float) -> Impostors:
    return Impostors(
        mean=mean, sd=max(sd, 1e-3), one_percent=min(one_percent, 1.0), threshold=min(one_percent, 1.0),
        at_threshold=REFERENCE_RATE,
    )  # fmt: skip


def known_impostors(gallery: Gallery) -> Impostors | None:
    """Those of the calibration that ``gallery`` keeps, or else of its model's manifest; None without either."""
    made = gallery.calibration.get("default") or {}
    if kept := made.get("impostors"):
        return Impostors(**kept)
    try:
        return load_manifest(split_variant(gallery.model_id)[0]).impostors
    except ModelError:
        return None


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of different people: ``shares`` float64 (people, people) of their comparisons reach a threshold."""

    shares: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.shares) * (len(self.shares) - 1) // 2

    @property
    def share(self) -> float:
        """The share of pairs that reach the threshold. Every pair of people counts the same."""
        return float(self.shares.sum()) / (2 * self.count)

    @property
    def at_least(self) -> float:
        """The lower limit of the share with 95 % certainty. It knows that pairs which share a person are dependent."""
        residuals = self.shares - self.share
        np.fill_diagonal(residuals, 0.0)
        by_person = residuals.sum(axis=1)
        single = float(np.square(residuals).sum()) / 2
        variance = max(float(by_person @ by_person) - single, single) / self.count**2
        return _at_least(self.share, variance)


class OwnPairs:
    """The comparisons of different people of a gallery, or of a sample of :data:`MOST_PEOPLE` of them.

    ``vectors`` are unit vectors float32 (n, d), ``owners`` int64 (n,) says whose each is.
    """

    def __init__(self, vectors: Vectors, owners: Rows) -> None:
        vectors, self._starts = _drawn(vectors, owners)
        self._cosines = vectors @ vectors.T
        self._counts = np.diff(np.r_[self._starts, len(vectors)])

    @property
    def people(self) -> int:
        return len(self._starts)

    def reaching(self, threshold: float) -> Pairs:
        """The pairs by the share of their comparisons that reach ``threshold``."""
        return Pairs(self._by_pair((self._cosines >= threshold).astype(np.float32)))

    def moments(self) -> tuple[float, float]:
        """The mean and the standard deviation of the cosines. Every pair of people counts the same."""
        pairs = np.triu_indices(self.people, 1)
        mean = float(self._by_pair(self._cosines)[pairs].mean())
        square = float(self._by_pair(np.square(self._cosines))[pairs].mean())
        return mean, math.sqrt(max(square - mean**2, 0.0))

    def reached_by(self, share: float) -> float:
        """The cosine that this share of the comparisons reach. Every pair of people counts the same."""
        owners = np.repeat(np.arange(self.people), self._counts)
        rows, columns = np.nonzero(owners[:, None] < owners[None, :])
        cosines = self._cosines[rows, columns]
        weights = 1.0 / (self._counts[owners[rows]] * self._counts[owners[columns]])
        order = np.argsort(-cosines)
        place = int(np.searchsorted(np.cumsum(weights[order]), share * weights.sum()))
        return float(cosines[order[min(place, len(order) - 1)]])

    def _by_pair(self, values: Vectors) -> NDArray[np.float64]:
        if self.people < len(values):
            values = np.add.reduceat(np.add.reduceat(values, self._starts, axis=0), self._starts, axis=1)
        shares = values / np.outer(self._counts, self._counts)
        np.fill_diagonal(shares, 0.0)
        return shares


def _drawn(vectors: Vectors, owners: Rows) -> tuple[Vectors, Rows]:
    """The vectors person after person, of at most :data:`MOST_PEOPLE` people; and the first row of each person."""
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    if len(order) > 2 * MOST_PEOPLE:  # one sample of each, so that the cost has a limit
        chosen = np.sort(np.random.default_rng(0).permutation(len(starts))[:MOST_PEOPLE])
        return vectors[order[starts[chosen]]], np.arange(len(chosen))
    return vectors[order], starts


def _two_digits(value: float) -> str:
    """Two significant digits, never with an exponent: 110 and 0.0056."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def _at_least(share: float, variance: float) -> float:
    """The lower limit of a share, by Byar's approximation to that of a Poisson count."""
    if not share or not variance:
        return 0.0
    events = share**2 / variance
    root = 1 - 1 / (9 * events) - _CERTAIN / (3 * math.sqrt(events))
    return share * max(root, 0.0) ** 3
