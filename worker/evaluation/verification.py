"""Verification accuracy from labelled pairs: the protocol of Labeled Faces in the Wild, ROC, TAR at FAR.

Pairs files and the ten-fold protocol are those of Huang et al., "Labeled Faces in the Wild" (UMass Amherst TR 07-49,
2007): the threshold is fitted on nine folds and tested on the tenth.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, roc_curve

from worker.errors import SourceError
from worker.evaluation.false_matches import draw_people, variance_of_mean
from worker.logs import get_logger
from worker.video.picture_kinds import SUFFIXES

NO_FACE: Final = -2.0
"""The similarity of a pair if an image shows no face. It is below every cosine, so the pair is never "the same"."""
_TOLERATED_MISSING: Final = 0.05
REPORTED_FARS: Final = (0.1, 0.01, 0.001, 0.0001)

_log = get_logger(__name__)


class PhotoKey(NamedTuple):
    """An image as a pairs file names it: by the person and the number of the image."""

    person: str
    number: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """Labelled pairs of images.

    ``photos`` names each image once, and ``first`` and ``second`` int64 (n,) are indices into it. ``same`` bool (n,)
    says whether a pair is mated, of one person. ``folds`` int64 (n,) is the fold of each pair, counted from 0.
    """

    photos: tuple[PhotoKey, ...]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.same)

    @property
    def fold_count(self) -> int:
        return int(self.folds.max()) + 1

    @property
    def people(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The two people of each pair, as numbers from 0, int64 (n,) each."""
        _, numbers = np.unique([photo.person for photo in self.photos], return_inverse=True)
        return numbers[self.first], numbers[self.second]


@dataclass(frozen=True, slots=True)
class Roc:
    """The shares of pairs that are accepted at each threshold, all float64 (k,). The thresholds are in falling order.

    A pair is accepted if its similarity is at least the threshold. ``far`` is the accepted share of impostor pairs, of
    different people, and ``tar`` that of mated pairs. The first point accepts nothing (its threshold is infinity), the
    last point everything.
    """

    thresholds: NDArray[np.float64]
    far: NDArray[np.float64]
    tar: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Area under the curve, 0..1."""
        return float(auc(self.far, self.tar))

    def tar_at(self, far: float) -> float:
        """The highest accepted share of mated pairs at which at most ``far`` of the impostor pairs are accepted."""
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    @property
    def eer(self) -> float:
        """The equal error rate: that at which the false accept rate and the false reject rate are the same."""
        gap = self.far + self.tar - 1
        after = int(np.argmax(gap >= 0))
        if after == 0 or gap[after] == 0:
            return float(self.far[after])
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + share * (self.far[after] - self.far[after - 1]))


@dataclass(frozen=True, slots=True)
class Verification:
    """How well pairs are told apart.

    ``threshold`` is the operating point. If it was fitted in folds, it is the mean over the folds. ``accuracy_sem`` is
    the standard error of ``accuracy``, over the folds or, without folds, over people. ``intervals`` are 95 % confidence
    intervals that come from resampling people.
    """

    accuracy: float
    accuracy_sem: float
    threshold: float
    threshold_source: str
    fold_accuracies: tuple[float, ...]
    roc: Roc
    tar_at_far: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def read_pairs(path: Path) -> Pairs:
    """The pairs in ``path``. A line is ``Name i j`` (same person) or ``NameA i NameB j``, separated by tabs or blanks.

    The first line may be a header: one number (pairs of each kind), or two (folds; pairs of each kind in a fold).
    Without a header, a file has folds if it alternates between equally many pairs of the same person and of different
    people.

    Raises:
        SourceError: the file is missing, empty or malformed; the message says in which line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SourceError(f"pairs file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SourceError(f"pairs file {path} is not a text file: give one line per pair") from None
    rows = [(number, _split(line)) for number, line in enumerate(lines, 1) if line.strip()]
    header: list[int] | None = None
    if rows and len(rows[0][1]) <= 2 and all(field.isdecimal() for field in rows[0][1]):
        header = [int(field) for field in rows.pop(0)[1]]
    if not rows:
        raise SourceError(f"pairs file {path} holds no pairs: expected lines 'Name i j' or 'NameA i NameB j'")
    parsed = [_parse(path, number, fields) for number, fields in rows]
    index: dict[PhotoKey, int] = {}
    first = np.array([index.setdefault(a, len(index)) for a, _ in parsed], np.int64)
    second = np.array([index.setdefault(b, len(index)) for _, b in parsed], np.int64)
    photos = tuple(index)
    same = np.array([a.person == b.person for a, b in parsed], bool)
    return Pairs(photos, first, second, same, _folds(path, header, same))


def find_photos(photos: Sequence[PhotoKey], folder: Path) -> list[Path | None]:
    """The file of each image: ``folder/Name/Name_000k`` with any suffix of a photo; None if there is no such file.

    Raises:
        SourceError: the folder is missing, or so many images are missing that it must be the wrong folder.
    """
    if not folder.is_dir():
        raise SourceError(f"no folder of images at {folder}")
    stems = {person: _photos_by_stem(folder / person) for person in {photo.person for photo in photos}}
    found = [stems[photo.person].get(f"{photo.person}_{photo.number:04d}") for photo in photos]
    missing = [photo for photo, path in zip(photos, found, strict=True) if path is None]
    if len(missing) > _TOLERATED_MISSING * len(photos):
        first = folder / missing[0].person / f"{missing[0].person}_{missing[0].number:04d}.jpg"
        raise SourceError(
            f"no image {first}, and {len(missing)} of the {len(photos)} that the pairs file names are missing: "
            "check --images"
        )
    for photo in missing:
        _log.warning("image_missing", person=photo.person, number=photo.number, folder=str(folder))
    return found


def pair_similarities(pairs: Pairs, vectors: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cosine of each pair, float64 (n,).

    ``vectors`` float32 (photos, d) have unit length. The similarity is :data:`NO_FACE` unless ``found`` bool (photos,)
    is true for both images.
    """
    cosines = np.einsum("nd,nd->n", vectors[pairs.first], vectors[pairs.second], dtype=np.float64)
    return np.where(found[pairs.first] & found[pairs.second], cosines, NO_FACE)


def receiver_operating_characteristic(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> Roc:
    """The exact curve, with one point for each similarity that occurs.

    Raises:
        SourceError: all pairs are of one kind.
    """
    if same.all() or not same.any():
        raise SourceError(
            "a ROC needs pairs of the same person and pairs of different people; these are all of one kind"
        )
    far, tar, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    return Roc(thresholds, far, tar)


def fit_threshold(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold at which "the same person" is right most often, midway between the two scores that it separates.

    It depends on chance which threshold makes the fewest mistakes. We consider all thresholds that make at most one
    standard deviation (of a Poisson count) more mistakes than the best, and take the one nearest to their middle.
    """
    order = np.argsort(-similarities, kind="stable")
    scores = np.concatenate([[1.0], similarities[order], [-1.0]]).clip(-1.0, 1.0)
    cuts = (scores[:-1] + scores[1:]) / 2
    judged = np.where(same[order], 1, -1)
    mistakes = np.count_nonzero(same) - np.concatenate([[0], np.cumsum(judged)])
    # Equal scores cannot be separated.
    possible = np.flatnonzero(np.concatenate([[True], np.diff(similarities[order]) != 0, [True]]))
    cuts, mistakes = cuts[possible], mistakes[possible]
    good = cuts[mistakes <= mistakes.min() + np.sqrt(mistakes.min())]
    return float(good[np.abs(good - (good[0] + good[-1]) / 2).argmin()])


def accuracy(similarities: NDArray[np.float64], same: NDArray[np.bool_], threshold: float) -> float:
    """The share of pairs that are judged rightly."""
    return float(np.mean((similarities >= threshold) == same))


def substitution_accuracies(
    pairs: Pairs, vectors: NDArray[np.float32], others: NDArray[np.float32], found: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """What it costs to compute ``others`` in place of ``vectors``, both float32 (photos, d) of unit length.

    Returns three shares of the pairs that are judged rightly, all at the threshold that fits ``vectors``: with
    ``vectors``, with ``others``, and with one of each pair from either, the worse of both ways round.
    """
    threshold = fit_threshold(pair_similarities(pairs, vectors, found), pairs.same)

    def rate(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        cosines = np.einsum("nd,nd->n", first[pairs.first], second[pairs.second], dtype=np.float64)
        both = found[pairs.first] & found[pairs.second]
        return accuracy(np.where(both, cosines, NO_FACE), pairs.same, threshold)

    return rate(vectors, vectors), rate(others, others), min(rate(vectors, others), rate(others, vectors))


def verify_in_folds(pairs: Pairs, similarities: NDArray[np.float64], *, draws: int = 1000) -> Verification:
    """The protocol for a file with folds: the mean over the folds, and its standard error.

    ``draws`` is the number of resamples for the confidence intervals.
    """
    folds = range(pairs.fold_count)
    thresholds, rates = [], []
    for fold in folds:
        held_out = pairs.folds == fold
        thresholds.append(fit_threshold(similarities[~held_out], pairs.same[~held_out]))
        rates.append(accuracy(similarities[held_out], pairs.same[held_out], thresholds[-1]))
    right = (similarities >= np.array(thresholds)[pairs.folds]) == pairs.same
    spread = float(np.std(rates, ddof=1) / np.sqrt(len(rates)))
    return _verification(
        pairs, similarities, right, float(np.mean(rates)), spread, float(np.mean(thresholds)),
        "fitted on the other folds", tuple(rates), draws,
    )  # fmt: skip


def verify_at(
    pairs: Pairs, similarities: NDArray[np.float64], threshold: float, source: str, *, draws: int = 1000
) -> Verification:
    """The protocol for a file without folds, at a ``threshold`` that comes from ``source``.

    The standard error treats people as independent, not pairs. ``draws`` is the number of resamples for the confidence
    intervals.
    """
    right = (similarities >= threshold) == pairs.same
    return _verification(
        pairs, similarities, right, float(right.mean()), None, threshold, source, (float(right.mean()),), draws
    )


def _verification(
    pairs: Pairs,
    similarities: NDArray[np.float64],
    right: NDArray[np.bool_],
    rate: float,
    spread: float | None,
    threshold: float,
    source: str,
    fold_rates: tuple[float, ...],
    draws: int,
) -> Verification:
    roc = receiver_operating_characteristic(similarities, pairs.same)
    impostors = int(np.count_nonzero(~pairs.same))
    fars = [far for far in REPORTED_FARS if far >= 0.001 or impostors * far >= 1]
    samples = _resampled(pairs, similarities, right, fars, draws)
    return Verification(
        accuracy=rate,
        accuracy_sem=variance_of_mean(*pairs.people, right.astype(np.float64)) ** 0.5 if spread is None else spread,
        threshold=threshold,
        threshold_source=source,
        fold_accuracies=fold_rates,
        roc=roc,
        tar_at_far={f"{far:g}": roc.tar_at(far) for far in fars},
        intervals={name: _middle_95(values) for name, values in samples.items()},
    )


def _resampled(
    pairs: Pairs, similarities: NDArray[np.float64], right: NDArray[np.bool_], fars: Sequence[float], draws: int
) -> dict[str, NDArray[np.float64]]:
    """Accuracy, AUC and TAR at each FAR of ``draws`` samples of people.

    We resample people. If A is drawn twice and B three times, their pair counts six times, and a pair of two photos of
    A counts twice. This exaggerates the noise of single pairs, so these intervals are rather too wide than too narrow.
    """
    first, second = pairs.people
    order = np.argsort(-similarities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(similarities[order]) != 0, True))
    same = pairs.same[order]
    names = ["accuracy", "auc", *(f"tar_at_far_{far:g}" for far in fars)]
    samples: dict[str, list[float]] = {name: [] for name in names}
    people = int(max(first.max(), second.max())) + 1
    for times in (row for block in draw_people(people, draws) for row in block):
        weights = np.where(pairs.same, times[first], times[first] * times[second])
        ordered = weights[order]
        accepted_same = np.cumsum(ordered * same)[ends]
        accepted_other = np.cumsum(ordered * ~same)[ends]
        if not accepted_same[-1] or not accepted_other[-1]:
            continue
        tar = np.concatenate([[0.0], accepted_same / accepted_same[-1]])
        far = np.concatenate([[0.0], accepted_other / accepted_other[-1]])
        samples["accuracy"].append(float(weights @ right / weights.sum()))
        samples["auc"].append(float(np.trapezoid(tar, far)))
        for limit in fars:
            samples[f"tar_at_far_{limit:g}"].append(float(tar[np.searchsorted(far, limit, side="right") - 1]))
    return {name: np.array(values) for name, values in samples.items()}


def _photos_by_stem(folder: Path) -> dict[str, Path]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
    return {Path(entry.name).stem: Path(entry.path) for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES}


def _middle_95(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (0.0, 1.0)
    return float(low), float(high)


def _split(line: str) -> list[str]:
    """The fields of a line. Names may contain blanks if tabs separate the fields."""
    return [field.strip() for field in line.split("\t") if field.strip()] if "\t" in line else line.split()


def _parse(path: Path, number: int, fields: list[str]) -> tuple[PhotoKey, PhotoKey]:
    if len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    problem = ""
    if len(fields) != 4:
        problem = "expected 'Name i j' or 'NameA i NameB j'"
    elif not (fields[1].isdecimal() and fields[3].isdecimal()):
        problem = "the image numbers must be whole numbers"
    elif any(os.sep in name or name in {".", ".."} for name in (fields[0], fields[2])):
        problem = "a name cannot be a path"
    if problem:
        raise SourceError(f"pairs file {path}, line {number}: {problem}")
    return PhotoKey(fields[0], int(fields[1])), PhotoKey(fields[2], int(fields[3]))


def _folds(path: Path, header: list[int] | None, same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The fold of each pair, from the header, or else from runs of equal length."""
    n = len(same)
    if header is not None:
        count, size = (1, header[0]) if len(header) == 1 else (header[0], header[1])
        if not count or not size or count * size * 2 != n:
            raise SourceError(
                f"pairs file {path}, line 1: the header says {count} x {2 * size} pairs, the file holds {n}: "
                "correct or remove the header"
            )
        return np.arange(n, dtype=np.int64) // (2 * size)
    run = int(np.argmin(same)) if not same.all() else n
    folds = np.arange(n, dtype=np.int64) // max(2 * run, 1)
    alternates = run and n % (2 * run) == 0 and np.array_equal(same, np.arange(n) // run % 2 == 0)
    return folds if alternates else np.zeros(n, np.int64)


def accuracy_document(result: Verification, pairs: Pairs) -> dict[str, Any]:
    """``result`` as JSON values, rounded to six digits."""
    return {
        "pairs": len(pairs),
        "pairs_same": int(np.count_nonzero(pairs.same)),
        "people": len({photo.person for photo in pairs.photos}),
        "folds": pairs.fold_count,
        "accuracy": round(result.accuracy, 6),
        "accuracy_sem": round(result.accuracy_sem, 6),
        "auc": round(result.roc.auc, 6),
        "eer": round(result.roc.eer, 6),
        "tar_at_far": {far: round(tar, 6) for far, tar in result.tar_at_far.items()},
        "threshold": round(result.threshold, 6),
        "threshold_source": result.threshold_source,
        "fold_accuracies": [round(rate, 6) for rate in result.fold_accuracies],
        "confidence_intervals_95": {
            name: [round(low, 6), round(high, 6)] for name, (low, high) in result.intervals.items()
        },
    }
