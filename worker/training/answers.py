"""What a classifier says of photos: when to believe it, and how good it is.

The limits of belief are a least probability and a least cosine. They are fitted on people whom the classifier never
saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.training.dataset import Photo
from worker.types import Candidate

STRANGER_RATE: Final = 0.01
"""The share of the photos of strangers that may get a name, unless the user asks for another."""
_STEPS: Final = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a classifier says of n photos.

    ``probability`` float64 (n,) is that of its first choice, and ``cosine`` float64 (n,) the similarity to that person.
    ``right`` bool (n,) says whether the choice is right, which it never is for strangers. ``people`` int64 (n,) is the
    number of the person in the photo.
    """

    probability: Floats
    cosine: Floats
    right: NDArray[np.bool_]
    people: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.probability)

    def take(self, rows: NDArray[np.bool_]) -> "Answers":
        """The answers for which ``rows`` bool (n,) is true."""
        return Answers(self.probability[rows], self.cosine[rows], self.right[rows], self.people[rows])

    @staticmethod
    def join(parts: "list[Answers]") -> "Answers":
        """All answers of ``parts``, in order."""
        fields = ("probability", "cosine", "right", "people")
        return Answers(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


@dataclass(frozen=True, slots=True)
class Limits:
    """A first choice is named if its probability and its cosine are at least these."""

    probability: float
    cosine: float

    def named(self, answers: Answers) -> NDArray[np.bool_]:
        """Which first choices are named, bool (n,)."""
        return (answers.probability >= self.probability) & (answers.cosine >= self.cosine)


_NOBODY: Final = Limits(1.01, 1.0)
"""No answer reaches these limits."""


def fit_limits(
    known: Answers, strangers: Answers, *, stranger_rate: float = STRANGER_RATE, least_cosine: float = -1.0
) -> Limits:
    """The limits that name most of the right choices of ``known`` and at most ``stranger_rate`` of ``strangers``.

    Of equally good limits it takes the middle, so that they are close neither to the scores of known people nor to
    those of strangers. The limit of the cosine is at least ``least_cosine``.
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
    """The share of photos of strangers that get a name, if the limits are fitted without the stranger in the photo.

    It is NaN if there are fewer than two strangers.
    """
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
    """The cosines to try: those between the cosines that occur."""
    values = np.unique(np.concatenate([right, strangers]))
    between = (values[1:] + values[:-1]) / 2
    if len(between) > _STEPS:
        between = np.quantile(between, np.linspace(0, 1, _STEPS))
    return np.unique(np.maximum(np.append(values[:1], between), least)) if len(values) else np.array([least])


CONFIDENT: Final = 0.9
"""An answer with at least this probability counts as confident, whatever the limits are."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one photo. If there is no ``candidate``, ``problem`` says why."""

    photo: Photo
    candidate: Candidate | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answers to photos of known people and of strangers.

    ``confusion`` int64 (k, k + 2) counts photos. The row is the person in the photo. The column is what was said: a
    person's name, no name, or nothing because no face was found.
    """

    people: tuple[str, ...]
    confusion: NDArray[np.int64]
    report: dict[str, Any]


def judge(answers: Sequence[Answer], people: tuple[str, ...], limits: Limits) -> Judgement:
    """Counts right and wrong answers. A photo without a face is an error, and so is a known person without a name."""
    number = {name: row for row, name in enumerate(people)}
    known = [answer for answer in answers if answer.photo.name in number]
    confusion = np.zeros((len(people), len(people) + 2), np.int64)
    first = 0
    for answer in known:
        row = number[answer.photo.name]
        first += answer.candidate is not None and answer.candidate.identity_name == answer.photo.name
        confusion[row, _column(answer, number, limits)] += 1
    strangers = [answer for answer in answers if answer.photo.name not in number]
    wrong = [answer for answer in known if _column(answer, number, limits) != number[answer.photo.name]]
    report = {
        "photos": len(known),
        "accuracy": _share(first, len(known)),
        "accuracy_with_rejection": _share(int(np.trace(confusion)), len(known)),
        "named_wrongly": int(confusion[:, : len(people)].sum() - np.trace(confusion)),
        "not_named": int(confusion[:, -2].sum()),
        "without_face": int(confusion[:, -1].sum()),
        "strangers": _strangers(strangers, limits),
        "per_person": [_person(name, confusion[row], row) for name, row in number.items()],
        "errors": [_error(answer, limits) for answer in wrong],
    }
    return Judgement(people, confusion, report)


def _column(answer: Answer, number: dict[str, int], limits: Limits) -> int:
    if answer.candidate is None:
        return len(number) + 1
    return number[answer.candidate.identity_name] if _named(answer.candidate, limits) else len(number)


def _named(candidate: Candidate, limits: Limits) -> bool:
    return (candidate.probability or 0.0) >= limits.probability and candidate.similarity >= limits.cosine


def _strangers(answers: Sequence[Answer], limits: Limits) -> dict[str, Any] | None:
    said = [answer.candidate for answer in answers if answer.candidate]
    if not answers:
        return None
    named = sum(_named(candidate, limits) for candidate in said)
    confident = sum((candidate.probability or 0.0) >= CONFIDENT for candidate in said)
    return {
        "people": len({answer.photo.name for answer in answers}),
        "photos": len(answers),
        "faces": len(said),
        "named": named,
        "rate": _share(named, len(said)),
        "probability_alone": _share(confident, len(said)),
    }


def _person(name: str, said: NDArray[np.int64], row: int) -> dict[str, Any]:
    photos, right = int(said.sum()), int(said[row])
    return {
        "name": name,
        "photos": photos,
        "right": right,
        "named_wrongly": int(said[:-2].sum()) - right,
        "not_named": int(said[-2]),
        "without_face": int(said[-1]),
        "accuracy": _share(right, photos),
    }


def _error(answer: Answer, limits: Limits) -> dict[str, Any]:
    candidate = answer.candidate
    if candidate is None:
        return {"path": str(answer.photo.path), "name": answer.photo.name, "said": answer.problem}
    return {
        "path": str(answer.photo.path),
        "name": answer.photo.name,
        "said": candidate.identity_name if _named(candidate, limits) else "unknown",
        "nearest": candidate.identity_name,
        "probability": round(candidate.probability or 0.0, 4),
        "similarity": round(candidate.similarity, 4),
    }


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None
