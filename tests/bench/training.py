"""How good trained classifiers are: the tables of docs/training.md.

    python tests/bench/training.py --data FOLDER [--only svm|cnn] [--seeds 3]

FOLDER holds ``five_celebrities`` (``train`` and ``test``) and ``orl``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

MODELS = ("dlib-resnet", "face-reidentification-retail-0095")
LEFT_OUT = 10


def train(*arguments: object) -> dict[str, Any]:
    """The report of one training."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "worker", "train", *map(str, arguments), "--output", f"{folder}/out", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def together(*folders: Path) -> Iterator[Path]:
    """A folder with the photos of all ``folders``, as links."""
    with tempfile.TemporaryDirectory() as made:
        for folder in folders:
            for photo in folder.glob("*/*"):
                person = Path(made, photo.parent.name)
                person.mkdir(exist_ok=True)
                (person / f"{folder.name}-{photo.name}").symlink_to(photo.resolve())
        yield Path(made)


def show(text: str, report: dict[str, Any]) -> None:
    test, validation = report["test"], report.get("cross_validation")
    parts = [text, f"{report['photos']['train']} trained with", f"{report['duration_s']} s"]
    if validation and validation["accuracy"] is not None:
        parts.append(
            f"cross-validation {validation['accuracy']:.2%} of {validation['photos']} photos, "
            f"{validation['accuracy_of_faces']:.2%} of faces"
        )
    if test and test["photos"]:
        parts.append(
            f"test {test['accuracy']:.2%} of {test['photos']} by first choice, "
            f"{test['accuracy_with_rejection']:.2%} named rightly, {test['named_wrongly']} named wrongly, "
            f"{test['not_named']} not named, {test['without_face']} without a face"
        )
    if test and test["strangers"]:
        far = test["strangers"]
        parts.append(
            f"strangers {far['named']} of {far['faces']} named ({far['rate']:.2%}), "
            f"{far['probability_alone']:.2%} by probability alone"
        )
    print("; ".join(parts), flush=True)  # noqa: T201


def measure_svm(celebrities: Path, orl: Path, seeds: int, detector: str) -> None:
    train_folder, test_folder = celebrities / "train", celebrities / "test"
    for model in MODELS:
        options = ("--model", model, "--detector", detector)
        report = train("svm", "--data", train_folder, "--test", test_folder, *options)
        show(f"svm {model}, train and test", report)
        for merged in together(train_folder, test_folder):
            report = train("svm", "--data", merged, *options)
            show(f"svm {model}, all photos", report)
            named = [train("svm", "--data", merged, "--leave-out", 1, "--seed", s, *options) for s in range(seeds)]
            for seed, report in enumerate(named):
                show(f"svm {model}, one person left out, seed {seed}", report)
        for seed in range(seeds):
            report = train(
                "svm", "--data", orl, "--train-per-person", 5, "--leave-out", LEFT_OUT, "--seed", seed, *options
            )
            show(f"svm {model}, orl, {LEFT_OUT} people left out, seed {seed}", report)


def measure_cnn(orl: Path, seeds: int, detector: str) -> None:
    options = ("--data", orl, "--train-per-person", 5, "--detector", detector)
    reports = [train("cnn", *options, "--seed", seed) for seed in range(seeds)]
    for seed, report in enumerate(reports):
        show(f"cnn orl, seed {seed}", report)
    accuracies = [report["test"]["accuracy"] for report in reports]
    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(f"cnn orl: accuracy {mean(accuracies):.2%} ± {spread:.2%} over {len(accuracies)} seeds", flush=True)  # noqa: T201
    for seed in range(seeds):
        show(f"cnn orl, {LEFT_OUT} people left out, seed {seed}",
             train("cnn", *options, "--leave-out", LEFT_OUT, "--seed", seed))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=("svm", "cnn"))
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.only != "cnn":
        measure_svm(given.data / "five_celebrities", given.data / "orl", given.seeds, given.detector)
    if given.only != "svm":
        measure_cnn(given.data / "orl", given.seeds, given.detector)


if __name__ == "__main__":
    main()
