"""What the quality gate, the pooling of a track's faces and the margin contribute: each is switched off in turn.

    python -m tests.bench.ablation LFW_DIR --model ID [--models-dir DIR] [--work DIR] [--enrolled 40] [--strangers 40]

It makes a clip with ground truth, enrols another photo of each person who is to be known, and calibrates the threshold
on people who are in neither (``--target-fpir``). Then the clip runs through the worker's pipeline once for each
setting, with the same detections. Prints a Markdown table. Clip and gallery are kept in ``--work`` and used again.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.support.ground_truth import make_ground_truth_clip
from worker.cli import run_command_line
from worker.cli.networks import Networks
from worker.config import load_config
from worker.evaluation.recordings import judge, read_ground_truth, replay
from worker.faces.detection import FaceDetector
from worker.types import Detections, Event, Image

SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "no quality gate": {"min_quality": 0.0},
    "no pooling": {"min_embeddings": 1, "max_embeddings": 1},
    "no margin": {"margin": 0.0},
    "none of the three": {"min_quality": 0.0, "min_embeddings": 1, "max_embeddings": 1, "margin": 0.0},
}
_CALIBRATION_PEOPLE = 1200


class OnceDetector:
    """Detects in the first pass over a clip. In later passes it returns the same detections again."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._seen: list[Detections] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        if self._next == len(self._seen):
            self._seen += self._detector.detect(images)
        self._next += len(images)
        return self._seen[self._next - len(images) : self._next]

    def follow(self, images: Sequence[Image], _expected: Sequence[object]) -> list[Detections]:
        return [Detections.empty() for _ in images]  # every frame is searched whole


def prepare(options: argparse.Namespace, work: Path) -> None:
    """Makes clip, gallery and calibration, unless they exist already."""
    if not (work / "truth.json").exists():
        make_ground_truth_clip(
            options.lfw, work, enrolled=options.enrolled, strangers=options.strangers, seed=options.seed,
            face_px=tuple(options.face_px),
        )  # fmt: skip
    if (work / "gallery").exists():
        return
    common = ["--gallery", str(work / "gallery"), "--model", options.model]
    common += ["--models-dir", str(options.models_dir)] if options.models_dir else []
    if run_command_line(["enroll", *common, str(work / "enroll")]):
        raise SystemExit("enrolment failed")
    shown = {visit["name"] for visit in json.loads((work / "truth.json").read_text())["visits"]}
    with tempfile.TemporaryDirectory() as folder:
        others = [path for path in sorted((options.lfw / "images").iterdir()) if path.name not in shown]
        for person in others[:: max(1, len(others) // _CALIBRATION_PEOPLE)]:
            for photo in sorted(person.glob("*.jpg"))[:3]:
                link = Path(folder, person.name, photo.name)
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(photo.resolve())
        if run_command_line(["calibrate", *common, "--target-fpir", str(options.target_fpir), "--people", folder]):
            raise SystemExit("calibration failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--enrolled", type=int, default=40)
    parser.add_argument("--strangers", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--face-px", type=float, nargs=2, default=(60.0, 160.0))
    parser.add_argument("--target-fpir", type=float, default=0.01)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    prepare(options, work)
    networks = Networks(str(work / "gallery"), None, options.models_dir, 20, "auto", "auto")
    calibrated, manifest = networks.own_threshold()[0], networks.embedder.threshold
    truth = read_ground_truth(work / "truth.json")
    detector = None
    print("| threshold | setting | precision | recall | sightings a visit | s to identify: median, p95 | mistakes |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    for label, threshold in (("calibrated", calibrated), ("the model's", manifest)):
        for name, changes in SETTINGS.items() if threshold == calibrated else [("as shipped", {})]:
            camera = {"id": "ablation", "source": str(work / "clip.mp4"), "policy": "every"}
            recognition = {**changes, "threshold": threshold}
            config = load_config(None, {"cameras": [camera], "recognition": recognition})
            detector = detector or OnceDetector(networks.detector(config.detection))
            detector.rewind()
            events: list[Event] = []
            replay(config, cast(FaceDetector, detector), networks.embedder, networks.gallery, on_event=events.append)
            result = judge(truth, events)
            mistakes = [*result["wrong"], *(f"{missed} missed" for missed in result["missed"])]
            seconds = result["time_to_identify_s"]
            print(  # noqa: T201
                f"| {label} {threshold:.3f} | {name} | {_share(result['precision'])} | {_share(result['recall'])} | "
                f"{result['sightings_per_visit']:.2f} | {_seconds(seconds)} | "
                f"{'; '.join(mistakes).replace('_', ' ') or 'none'} |",
                flush=True,
            )


def _seconds(found: dict[str, float] | None) -> str:
    return f"{found['median']:.2f}, {found['p95']:.2f}" if found else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
