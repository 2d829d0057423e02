"""What averaging over views of a face brings: a model plain, with ``+flip``, and with jitter, on labelled pairs.

    python -m tests.bench.averaging LFW_DIR --model ID [--models-dir DIR] [--endings +flip +jitter4] [--train-pairs N]
        [--work FILE.npz]

Thresholds are fitted on ``pairsDevTrain.txt`` (``--train-pairs``: on so many of each kind, taken evenly) and tested on
``pairsDevTest.txt``, as ``facestream evaluate --model ID+flip`` does. Each photo is searched once, and each view is
embedded once for all rows. Prints a Markdown table. With ``--work`` a run that was interrupted continues.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.cli.networks import Networks
from worker.cli.screen import progress_bar
from worker.evaluation.false_matches import variance_of_mean
from worker.evaluation.verification import (
    Pairs,
    PhotoKey,
    find_photos,
    fit_threshold,
    pair_similarities,
    read_pairs,
    verify_at,
)
from worker.faces.alignment import PLAIN, Averaging, split_variant
from worker.faces.detection import only_central
from worker.types import Chips
from worker.video.photos import read_photo

ENDINGS = ("+flip", "+jitter4", "+jitter9", "+flip+jitter4")
_BATCH = 32


def evenly(pairs: Pairs, of_each_kind: int) -> Pairs:
    """``of_each_kind`` pairs of one person and as many of two."""
    kinds = [np.flatnonzero(pairs.same == kind) for kind in (True, False)]
    rows = np.concatenate(
        [kind[np.linspace(0, len(kind) - 1, min(of_each_kind, len(kind))).astype(int)] for kind in kinds]
    )
    used, numbers = np.unique(np.r_[pairs.first[rows], pairs.second[rows]], return_inverse=True)
    first, second = np.split(numbers.astype(np.int64), 2)
    return Pairs(tuple(pairs.photos[row] for row in used.tolist()), first, second, pairs.same[rows], pairs.folds[rows])


class Faces:
    """The vectors of each view of the face nearest the centre of each photo: float32 (photos, views, d)."""

    def __init__(
        self, photos: Sequence[PhotoKey], images: Path, model: str, widest: Averaging, models: Path, work: Path | None
    ) -> None:
        networks = Networks(None, model, models, 20, "auto", "auto")
        wide = Networks(None, model + widest.suffix, models, 20, "auto", "auto").embedder
        detector, embedder = networks.photo_detector, networks.embedder
        count = (1 + widest.jitter) * (2 if widest.flip else 1)
        self._row = {photo: row for row, photo in enumerate(photos)}
        self._vectors = np.zeros((len(photos), count, embedder.dimension), np.float32)
        self._found = np.zeros(len(photos), bool)
        self._widest = widest
        files = [(row, path) for row, path in enumerate(find_photos(photos, images)) if path]
        done = self._load(work)
        with progress_bar("embedding views", len(files)) as advance:
            advance(done)
            for start in range(done, len(files), _BATCH):
                rows, paths = zip(*files[start : start + _BATCH], strict=True)
                pictures = [read_photo(path) for path in paths]
                seen = [only_central(f, p) for f, p in zip(detector.detect(pictures), pictures, strict=True)]
                chips = np.concatenate([wide.align(p, f).images for p, f in zip(pictures, seen, strict=True)])
                shown = [row for row, face in zip(rows, seen, strict=True) if len(face)]
                for number, view in enumerate(widest.views(chips, wide.border_px)):
                    self._vectors[shown, number] = embedder.embed(Chips(view)).vectors
                self._found[shown] = True
                advance(len(rows))
                if work:
                    np.savez(work, vectors=self._vectors, found=self._found, done=start + len(rows))

    def _load(self, work: Path | None) -> int:
        """The number of files that are done already."""
        if not work or not work.exists():
            return 0
        kept = np.load(work)
        self._vectors, self._found = kept["vectors"], kept["found"]
        return int(kept["done"])

    def similarities(self, pairs: Pairs, averaging: Averaging) -> NDArray[np.float64]:
        """The cosine of each pair with the views that ``averaging`` uses."""
        half = 1 + self._widest.jitter
        views = [*range(1 + averaging.jitter), *(half + np.arange(1 + averaging.jitter) if averaging.flip else ())]
        rows = [self._row[photo] for photo in pairs.photos]
        summed = self._vectors[np.ix_(rows, views)].sum(axis=1)
        unit = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-9)
        return pair_similarities(pairs, unit, self._found[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--endings", nargs="+", default=ENDINGS)
    parser.add_argument("--train-pairs", type=int)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    variants = [split_variant(f"m{ending}")[1] for ending in options.endings]
    train, test = (read_pairs(options.lfw / name) for name in ("pairsDevTrain.txt", "pairsDevTest.txt"))
    if options.train_pairs:
        train = evenly(train, options.train_pairs)
    photos = list(dict.fromkeys([*test.photos, *train.photos]))
    widest = Averaging(any(v.flip for v in variants), max(v.jitter for v in variants))
    faces = Faces(photos, options.lfw / "images", options.model, widest, options.models_dir, options.work)
    print(f"| `{options.model}` | train | threshold | test | better than plain | worse | gain |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    plain: NDArray[np.bool_] | None = None
    for averaging in (PLAIN, *variants):
        fitting = faces.similarities(train, averaging)
        threshold = fit_threshold(fitting, train.same)
        scores = faces.similarities(test, averaging)
        result = verify_at(test, scores, threshold, "")
        right = (scores >= threshold) == test.same
        plain = right if plain is None else plain
        gained = right.astype(float) - plain.astype(float)
        error = variance_of_mean(*test.people, gained) ** 0.5 if gained.any() else 0.0
        fitted = np.mean((fitting >= threshold) == train.same)
        print(  # noqa: T201
            f"| {averaging.suffix or 'plain'} | {fitted:.2%} | {threshold:.3f} | "
            f"{result.accuracy:.2%} ± {result.accuracy_sem:.2%} | {(gained > 0).sum()} | {(gained < 0).sum()} | "
            f"{gained.mean():+.2%} ± {error:.2%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
