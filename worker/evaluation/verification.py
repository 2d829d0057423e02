"""Verification accuracy from labelled pairs: the protocol of Labeled Faces in the Wild, ROC, TAR at FAR.

Pairs files and the ten-fold protocol are those of Huang et al., "Labeled Faces in the Wild" (UMass Amherst
TR 07-49, 2007): the threshold is fitted on nine folds and judged on the tenth.
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
from worker.evaluation.resampling import draw_people, variance_of_mean
from worker.logs import get_logger
from worker.video.photos import SUFFIXES

NO_FACE: Final = -2.0
"""Similarity of a pair in which an image shows no face: below every cosine, so never "the same"."""
_TOLERATED_MISSING: Final = 0.05
REPORTED_FARS: Final = (0.1, 0.01, 0.001, 0.0001)

_log = get_logger(__name__)


class PhotoKey(NamedTuple):
    """An image as a pairs file names it: the person, and the number of the image."""

    person: str
    number: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """Labelled pairs of images.

    ``photos`` names each image once; ``first`` and ``second`` int64 (n,) are indices into it; ``same`` bool (n,);
    ``folds`` int64 (n,) is the fold of each pair, counted from 0.
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
        """Of each pair the two people, as int64 (n,) numbers from 0."""
        _, numbers = np.unique([photo.person for photo in self.photos], return_inverse=True)
        return numbers[self.first], numbers[self.second]


@dataclass(frozen=True, slots=True)
class Roc:
    """Shares accepted at each threshold ("the same from ``thresholds[i]`` on"), thresholds falling.

    ``far`` is the share of the pairs of different people, ``tar`` that of the same person. The first point accepts
    nothing (threshold infinity), the last everything.
    """

    thresholds: NDArray[np.float64]
    far: NDArray[np.float64]
    tar: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Area under the curve, 0..1."""
        return float(auc(self.far, self.tar))

    def tar_at(self, far: float) -> float:
        """The highest share of same-person pairs accepted while no more than ``far`` of the others are."""
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    @property
    def eer(self) -> float:
        """The equal error rate: where as many are falsely accepted as falsely rejected."""
        gap = self.far + self.tar - 1
        after = int(np.argmax(gap >= 0))
        if after == 0 or gap[after] == 0:
            return float(self.far[after])
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + share * (self.far[after] - self.far[after - 1]))


@dataclass(frozen=True, slots=True)
class Verification:
    """How well pairs are told apart. ``threshold`` is the one applied, the mean over the folds where it was fitted
    in folds; ``accuracy_sem`` the standard error of ``accuracy``, over the folds or, without folds, over people;
    ``intervals`` 95 % confidence intervals by resampling people."""

    accuracy: float
    accuracy_sem: float
    threshold: float
    threshold_source: str
    fold_accuracies: tuple[float, ...]
    roc: Roc
    tar_at_far: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def read_pairs(path: Path) -> Pairs:
    """The pairs in ``path``: ``Name i j`` (same person) or ``NameA i NameB j`` a line, separated by tabs or blanks.

    A first line of one number (pairs of each kind) or two (folds; pairs of each kind in a fold) is a header. Without
    one, a file whose pairs alternate in equal runs of the same person and of different ones has folds as well.

    Raises:
        SourceError: missing, empty or malformed file, with the number of the line.
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
    """The file of each image: ``folder/Name/Name_000k`` with any suffix of a photo; None where there is none.

    Raises:
        SourceError: the folder is missing, or so many of the images that it must be the wrong one.
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
    """The cosine of each pair (n,), of unit ``vectors`` (photos, d); :data:`NO_FACE` unless ``found`` (photos,) is
    true of both images."""
    cosines = np.einsum("nd,nd->n", vectors[pairs.first], vectors[pairs.second], dtype=np.float64)
    return np.where(found[pairs.first] & found[pairs.second], cosines, NO_FACE)


def receiver_operating_characteristic(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> Roc:
    """The exact curve: one point for each value that occurs.

    Raises:
        SourceError: the pairs are all of one kind.
    """
    if same.all() or not same.any():
        raise SourceError("a ROC needs pairs of the same person and pairs of different people; these are all of a kind")
    far, tar, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    return Roc(thresholds, far, tar)


def fit_threshold(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The cosine from which "the same person" is right most often, midway between the two scores that it separates.

    Which threshold makes the very fewest mistakes is chance: of those that make no more than one standard deviation
    (of a Poisson count) more than the best, the one nearest their middle is taken.
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
    """The share of pairs judged rightly."""
    return float(np.mean((similarities >= threshold) == same))


def verify_in_folds(pairs: Pairs, similarities: NDArray[np.float64], *, draws: int = 1000) -> Verification:
    """The protocol for a file with folds: mean and standard error of the mean over the folds."""
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
    """The protocol for a file without folds, at a ``threshold`` that came from elsewhere (``source`` says where).

    The standard error takes people, not pairs, as independent.
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
    """Accuracy, AUC and TAR at each FAR of ``draws`` samples of people, drawn with replacement.

    A pair counts as often as its people were drawn: of one person once for each time, of two the product. The
    latter exaggerates the noise of single pairs, so these intervals are rather too wide than too narrow.
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
    """Fields of a line; names may hold blanks where tabs separate."""
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
    """The fold of each pair, from the header, else from runs of equal length."""
    n = len(same)
    if header is not None:
        count, size = (1, header[0]) if len(header) == 1 else (header[0], header[1])
        if not count or not size or count * size * 2 != n:
            raise SourceError(
                f"pairs file {path}, line 1: the header announces {count} x {2 * size} pairs, the file holds {n}: "
                "correct or remove the header"
            )
        return np.arange(n, dtype=np.int64) // (2 * size)
    run = int(np.argmin(same)) if not same.all() else n
    folds = np.arange(n, dtype=np.int64) // max(2 * run, 1)
    alternates = run and n % (2 * run) == 0 and np.array_equal(same, np.arange(n) // run % 2 == 0)
    return folds if alternates else np.zeros(n, np.int64)


def accuracy_document(result: Verification, pairs: Pairs) -> dict[str, Any]:
    """``result`` as JSON values, rounded to what they are good for."""
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
