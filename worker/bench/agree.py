"""Whether two sides answer alike. Each check returns its verdict, and in words how far they agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou_matrix

SURE_SCORE: Final = 0.9
SAME_BOX: Final = 0.8
_SAME_FACE: Final = 0.5
MIN_COSINE: Final = 0.998


@dataclass(frozen=True, slots=True)
class Verdict:
    """``agree``, and how far in ``text``."""

    agree: bool
    text: str


def same_faces(
    reference: Sequence[Any], found: Sequence[Any], *, overlap: float = SAME_BOX, by: str = "the peer"
) -> Verdict:
    """Whether each sure face of ``reference`` is found, box and all, and each sure one that is found is a face there.

    Args:
        reference, found: for each image rows (n, 5): box x1, y1, x2, y2 px and score.
        overlap: intersection over union from which a face counts as found. One of ``found`` that overlaps a face
            of ``reference`` by half is that face, if with another box.
        by: whose faces ``reference`` holds.
    """
    missed, of_reference = _missed(reference, found, overlap)
    extra, of_ours = _missed(found, reference, _SAME_FACE)
    text = f"{of_reference - missed} of {of_reference} faces of {by} found, {extra} of {of_ours} faces beyond them"
    return Verdict(len(reference) == len(found) and of_reference > 0 and missed == extra == 0, text)


def same_vectors(reference: Any, found: Any, *, min_cosine: float = MIN_COSINE) -> Verdict:
    """Whether vectors (n, d) point the same way once the mean of the batch is subtracted.

    Random weights make all vectors nearly parallel: without the mean any two would agree.
    """
    first, second = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    if first.shape != second.shape or len(first) < 2:
        return Verdict(False, f"vectors {first.shape} and {second.shape} do not compare")
    cosines = (_centred(first) * _centred(second)).sum(axis=1)
    least = float(cosines.min())
    return Verdict(bool(least >= min_cosine), f"smallest cosine {least:.5f} of {len(cosines)} faces")


def same_people(reference: Sequence[Any], found: Sequence[Any], threshold: float) -> Verdict:
    """Whether searches end in the same decision: rows (n, 2) of a person's number and the similarity."""
    first, second = _decisions(reference, threshold), _decisions(found, threshold)
    if len(first) != len(second) or not len(first):
        return Verdict(False, f"{len(first)} and {len(second)} answers do not compare")
    alike = int((first == second).sum())
    return Verdict(alike == len(first), f"{alike} of {len(first)} decisions the same")


def _missed(wanted: Sequence[Any], there: Sequence[Any], overlap: float) -> tuple[int, int]:
    """How many sure faces of ``wanted`` have no partner in ``there``, and how many sure faces there are."""
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
