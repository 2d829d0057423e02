"""When not to believe a classifier: the least probability and the least cosine, fitted on people it never saw."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

STRANGER_RATE: Final = 0.01
"""The share of strangers' photos that may get a name, unless another is asked for."""
_STEPS: Final = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a classifier said of photos (n,): the ``probability`` of its first choice, the ``cosine`` to that person,
    whether the choice was ``right`` (never, for strangers), and the number of the person, ``people``."""

    probability: Floats
    cosine: Floats
    right: NDArray[np.bool_]
    people: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.probability)

    def take(self, rows: NDArray[np.bool_]) -> "Answers":
        """Those where ``rows`` (n,) is true."""
        return Answers(self.probability[rows], self.cosine[rows], self.right[rows], self.people[rows])

    @staticmethod
    def join(parts: "list[Answers]") -> "Answers":
        """All answers of ``parts``, in order."""
        fields = ("probability", "cosine", "right", "people")
        return Answers(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


@dataclass(frozen=True, slots=True)
class Limits:
    """A first choice is named from ``probability`` and ``cosine`` on."""

    probability: float
    cosine: float

    def named(self, answers: Answers) -> NDArray[np.bool_]:
        """Which first choices are named (n,)."""
        return (answers.probability >= self.probability) & (answers.cosine >= self.cosine)


_NOBODY: Final = Limits(1.01, 1.0)
"""What no answer reaches, however sure."""


def fit_limits(
    known: Answers, strangers: Answers, *, stranger_rate: float = STRANGER_RATE, least_cosine: float = -1.0
) -> Limits:
    """The limits that name most of the right choices of ``known`` and at most ``stranger_rate`` of ``strangers``.

    Of equally good ones the middle: neither close to what people score who are known nor to what strangers do.
    ``least_cosine`` is not gone below.
    """
    right = known.take(known.right)
    allowed = int(stranger_rate * len(strangers) + 1e-9)
    most, best = 0, [_NOBODY]
    for cosine in _steps(right.cosine, strangers.cosine, least_cosine).tolist():
        near = np.sort(strangers.probability[strangers.cosine >= cosine])[::-1]
        own = np.sort(right.probability[right.cosine >= cosine])
        above = float(near[allowed]) if len(near) > allowed else 0.0
        kept = own[own > above]
        if len(kept) > most:
            most, best = len(kept), []
        if len(kept) and len(kept) == most:
            best.append(Limits((above + float(kept[0])) / 2, cosine))
    return best[len(best) // 2]


def measure_strangers(
    known: Answers, strangers: Answers, *, stranger_rate: float = STRANGER_RATE, least_cosine: float = -1.0
) -> float:
    """The share of strangers' photos that get a name under limits fitted without the stranger in question."""
    named = 0
    for person in np.unique(strangers.people):
        own = strangers.people == person
        if own.all():
            return float("nan")
        limits = fit_limits(
            known.take(known.people != person), strangers.take(~own), stranger_rate=stranger_rate,
            least_cosine=least_cosine,
        )  # fmt: skip
        named += int(limits.named(strangers.take(own)).sum())
    return named / len(strangers) if len(strangers) else float("nan")


def _steps(right: Floats, strangers: Floats, least: float) -> Floats:
    """Cosines worth trying: between those that occur."""
    values = np.unique(np.concatenate([right, strangers]))
    between = (values[1:] + values[:-1]) / 2
    if len(between) > _STEPS:
        between = np.quantile(between, np.linspace(0, 1, _STEPS))
    return np.unique(np.maximum(np.append(values[:1], between), least)) if len(values) else np.array([least])
