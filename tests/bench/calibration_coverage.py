"""Do the intervals of ``facestream calibrate`` hold on other people? Measured on halves of a folder of people.

    python tests/bench/calibration_coverage.py PEOPLE_DIR --model ID [--models-dir DIR] [--splits 20]

The threshold is calibrated on a random half of the people; the false-match rate of the other half at that threshold
is compared with the stated interval. Prints a line for each split, and a summary.
"""

import argparse
from pathlib import Path

import numpy as np

from worker.cli.networks import Networks
from worker.evaluation.calibration import find_threshold
from worker.evaluation.false_matches import everybody_with_everybody
from worker.evaluation.probes import PeopleFaces


def measure(faces: PeopleFaces, target: float, splits: int) -> None:
    in_prediction = in_confidence = 0
    rates = []
    for split in range(splits):
        shuffled = np.random.default_rng(split).permutation(len(faces.names))
        chosen = np.isin(faces.people, shuffled[: len(shuffled) // 2])
        found = find_threshold(everybody_with_everybody(*_half(faces, chosen), target), target)
        rate = everybody_with_everybody(*_half(faces, ~chosen), target).rate_at(found.value)
        low, high = found.rate.prediction
        narrow_low, narrow_high = found.rate.confidence
        in_prediction += low <= rate <= high
        in_confidence += narrow_low <= rate <= narrow_high
        rates.append(rate)
        print(  # noqa: T201
            f"target {target:g} split {split:2} threshold {found.value:.4f} "
            f"[{found.interval[0]:.4f}, {found.interval[1]:.4f}] other half {rate:.6f} "
            f"stated [{low:.6f}, {high:.6f}] {'inside' if low <= rate <= high else 'OUTSIDE'}"
        )
    print(  # noqa: T201
        f"target {target:g}: {in_prediction} of {splits} inside the interval for a new group of the same size, "
        f"{in_confidence} inside the narrower confidence interval; "
        f"mean rate of the other half {np.mean(rates):.6f}, spread {np.std(rates, ddof=1):.6f}"
    )


def _half(faces: PeopleFaces, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, people = np.unique(faces.people[chosen], return_inverse=True)
    return faces.vectors[chosen], people.astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.01, 0.001])
    options = parser.parse_args()
    networks = Networks(None, options.model, options.models_dir, 20, "auto", "auto")
    faces = networks.embed_people(options.people, "embedding faces")
    for target in options.targets:
        measure(faces, target, options.splits)


if __name__ == "__main__":
    main()
