"""Two pieces of work that do the same thing are compared: their speed, and whether their answers agree."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.bench.contest import ContestantProcess, Results, Starter, compete
from worker.bench.material import Material
from worker.boxes import iou_matrix

_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the result.

    ``ours`` and ``peer`` are medians in ``unit``. ``ratio`` is above 1 where ours is better. ``spread`` holds the
    smallest and the largest measurement of each side. ``agree`` says whether the answers of this run agree. A value
    that could not be measured is None, and ``note`` says why.
    """

    name: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    spread: dict[str, tuple[float, float]] | None
    agree: bool | None
    note: str

    def document(self) -> dict[str, Any]:
        """The row in JSON types."""
        return asdict(self)


def compared(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    *,
    more_is_better: bool = False,
    agree: bool | None = None,
    note: str = "",
) -> Row:
    """The row of the measurements ``ours`` and ``peer``. Either of them may be empty."""
    mine, theirs = _median(ours), _median(peer)
    ratio = None
    if mine and theirs:
        ratio = mine / theirs if more_is_better else theirs / mine
    spread = {side: _range(values) for side, values in (("ours", ours), ("peer", peer)) if values}
    return Row(name, _rounded(mine), _rounded(theirs), unit, _rounded(ratio), spread or None, agree, note)


def unable(name: str, unit: str, why: str) -> Row:
    """The row of a comparison that could not be measured at all."""
    return Row(name, None, None, unit, None, None, None, why)


def joined(*notes: str) -> str:
    """One note of all ``notes`` that are not empty."""
    return "; ".join(note for note in notes if note)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _range(values: Sequence[float]) -> tuple[float, float]:
    return _to_digits(min(values)), _to_digits(max(values))


def _rounded(value: float | None) -> float | None:
    return None if value is None else _to_digits(value)


def _to_digits(value: float) -> float:
    if not value or not math.isfinite(value):
        return value
    return round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))


SURE_SCORE: Final = 0.9
"""A face with at least this score must be found by both sides."""
SAME_BOX: Final = 0.8
_SAME_FACE: Final = 0.5
MIN_COSINE: Final = 0.998


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """Whether the answers of two sides ``agree``, and in words how far they agree (``text``)."""

    agree: bool
    text: str


def same_faces(
    reference: Sequence[Any], found: Sequence[Any], *, overlap: float = SAME_BOX, by: str = "the peer"
) -> AnswerCheck:
    """Whether both sides have the same faces, as far as they are sure of them.

    Each sure face of ``reference`` must be in ``found``, with about the same box. Each sure face of ``found`` must be
    in ``reference``; there half an overlap is enough, because the boxes were compared already.

    Args:
        reference, found: for each image rows (n, 5): box x1, y1, x2, y2 px and score.
        overlap: intersection over union from which a face of ``reference`` counts as found.
        by: the name of the side that found ``reference``.
    """
    missed, of_reference = _missed(reference, found, overlap)
    extra, of_ours = _missed(found, reference, _SAME_FACE)
    text = f"{of_reference - missed} of {of_reference} faces of {by} found, {extra} of {of_ours} faces beyond them"
    return AnswerCheck(len(reference) == len(found) and of_reference > 0 and missed == extra == 0, text)


def same_vectors(reference: Any, found: Any, *, min_cosine: float = MIN_COSINE) -> AnswerCheck:
    """Whether vectors (n, d) point the same way after the mean of the batch is subtracted.

    Random weights make all vectors nearly parallel. Any two would agree if the mean were not subtracted.
    """
    first, second = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    if first.shape != second.shape or len(first) < 2:
        return AnswerCheck(False, f"vectors {first.shape} and {second.shape} cannot be compared")
    cosines = (_centred(first) * _centred(second)).sum(axis=1)
    least = float(cosines.min())
    return AnswerCheck(bool(least >= min_cosine), f"smallest cosine {least:.5f} of {len(cosines)} faces")


def same_people(reference: Sequence[Any], found: Sequence[Any], threshold: float) -> AnswerCheck:
    """Whether searches end in the same decisions. Each answer has rows (n, 2): a person's number and the similarity."""
    first, second = _decisions(reference, threshold), _decisions(found, threshold)
    if len(first) != len(second) or not len(first):
        return AnswerCheck(False, f"{len(first)} and {len(second)} answers cannot be compared")
    alike = int((first == second).sum())
    return AnswerCheck(alike == len(first), f"{alike} of {len(first)} decisions the same")


def _missed(wanted: Sequence[Any], there: Sequence[Any], overlap: float) -> tuple[int, int]:
    """The number of sure faces of ``wanted`` without a partner in ``there``, and the number of all its sure faces."""
    missed = total = 0
    for rows, others in zip(wanted, there, strict=False):
        faces, partners = _rows(rows), _rows(others)
        sure = faces[faces[:, 4] >= SURE_SCORE]
        best = iou_matrix(sure[:, :4], partners[:, :4]).max(axis=1, initial=0)
        missed += int((best < overlap).sum())
        total += len(sure)
    return missed, total


def _rows(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 5)


def _centred(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred: NDArray[np.float64] = unit - unit.mean(axis=0)
    lengths: NDArray[np.float64] = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.maximum(lengths, np.finfo(np.float64).tiny)


def _decisions(rows: Sequence[Any], threshold: float) -> NDArray[np.int64]:
    values = np.asarray(rows, np.float64).reshape(-1, 2)
    return np.where(values[:, 1] >= threshold, values[:, 0], -1).astype(np.int64)


class Setup:
    """What every family of rows needs to be measured.

    Args:
        make_material: is called once, when a row needs the material for the first time.
        rounds: how many turns each side takes.
        quick: measure less of everything, for a first look.
        wanted: says whether the row of a name is asked for.
        start: starts a contestant.
    """

    def __init__(
        self,
        make_material: Callable[[], Material],
        *,
        rounds: int,
        quick: bool = False,
        wanted: Callable[[str], bool] = lambda _name: True,
        start: Starter = ContestantProcess,
    ) -> None:
        self._make_material = make_material
        self.rounds = rounds
        self.quick = quick
        self.wanted = wanted
        self.start = start

    @cached_property
    def material(self) -> Material:
        return self._make_material()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The row ``name``: the work ``ours`` against the quickest of ``peers``.

    ``judge`` gets the answer of the quickest peer and ours; with ``judged_by_first`` the answer of the first peer and
    ours. Works are named ``contestant/work``.
    """

    name: str
    ours: str
    peers: tuple[str, ...]
    judge: Callable[[Any, Any], AnswerCheck]
    note: str = ""
    judged_by_first: bool = False

    @property
    def works(self) -> tuple[str, ...]:
        return (self.ours, *self.peers)


@dataclass(frozen=True, slots=True)
class Family:
    """Comparisons that share contestants.

    ``items`` says how many frames or faces each work takes and answers for. Works that take fewer take the first ones
    of the others. ``unit`` is ``ms/...`` for the time of one item, otherwise items a second.
    """

    contestants: Mapping[str, tuple[str, Mapping[str, Any]]]
    comparisons: Sequence[Comparison]
    items: Mapping[str, int]
    unit: str

    def measure(self, setup: Setup) -> Iterator[Row]:
        """Lets the contestants of the wanted comparisons compete, and yields a row for each comparison."""
        wanted = [comparison for comparison in self.comparisons if setup.wanted(comparison.name)]
        if not wanted:
            return
        works = list(dict.fromkeys(work for comparison in wanted for work in comparison.works))
        needed = {work.partition("/")[0] for work in works}
        contestants = {name: entry for name, entry in self.contestants.items() if name in needed}
        results = compete(contestants, works, setup.rounds, start=setup.start)
        for comparison in wanted:
            yield self.row(comparison, results)

    def row(self, comparison: Comparison, results: Results) -> Row:
        """The row of ``comparison`` from the measured ``results``."""
        ours = comparison.ours
        if problem := results.problem(ours.partition("/")[0]):
            return unable(comparison.name, self.unit, f"ours: {problem}")
        peer = results.quickest({work: self.items[work] for work in comparison.peers})
        if peer is None:
            missing = {name: results.problem(name) for name in (work.partition("/")[0] for work in comparison.peers)}
            why = joined(*(f"{name}: {problem}" for name, problem in missing.items()))
            return compared(comparison.name, self._values(ours, results), [], self.unit, note=joined(why))
        reference = comparison.peers[0] if comparison.judged_by_first else peer
        both = min(self.items[ours], self.items[reference])
        verdict = comparison.judge(results.answer(reference)[:both], results.answer(ours)[:both])
        best = f"the peer's best: {peer.partition('/')[2]}" if len(comparison.peers) > 1 else ""
        return compared(
            comparison.name,
            self._values(ours, results),
            self._values(peer, results),
            self.unit,
            more_is_better=not self.unit.startswith("ms/"),
            agree=verdict.agree,
            note=joined(comparison.note, best, verdict.text),
        )

    def _values(self, work: str, results: Results) -> list[float]:
        per_item = results.seconds(work, per=self.items[work])
        return [1000 * s for s in per_item] if self.unit.startswith("ms/") else [1 / s for s in per_item]
