"""The detectors side by side on photos with known faces: precision, recall, landmarks, time.

    python -m tests.bench.detectors FOLDER [--models-dir DIR] [--min-face-px 20] [--rounds 5]

FOLDER holds photos and dlib's XML files that say where their faces and 68 landmarks are. Prints a Markdown table. A
detection with a score of at least 0.9, where faces count as sure, is right if it overlaps a face that no better
detection has taken by 0.3 (intersection over union: the detectors draw boxes of different height). Landmarks are
compared where a face was found: mean distance, in shares of the distance between the eyes.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou_matrix
from worker.config import DetectionConfig, cache_dir
from worker.faces.detection import FaceDetector, load_detector
from worker.types import Detections, Image
from worker.video.photos import read_photo

NAMES: Final = ("mtcnn", "yunet", "dlib-hog")
_OVERLAP: Final = 0.3


@dataclass(frozen=True, slots=True)
class Truth:
    """The faces of a photo: boxes (n, 4) and five landmarks (n, 5, 2), px."""

    image: Image
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]


@dataclass(slots=True)
class Score:
    """What a detector made of all photos."""

    right: int = 0
    detections: int = 0
    faces: int = 0
    landmark_errors: list[float] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right / max(1, self.detections)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.faces)


def read_truth(folder: Path) -> list[Truth]:
    """The photos that dlib's XML files in ``folder`` describe."""
    truths = []
    for file in sorted(folder.glob("*.xml")):
        for image in ET.parse(file).getroot().iter("image"):
            boxes, points = [], []
            for box in image.iter("box"):
                left, top = int(box.attrib["left"]), int(box.attrib["top"])
                boxes.append((left, top, left + int(box.attrib["width"]), top + int(box.attrib["height"])))
                parts = {part.attrib["name"]: part.attrib for part in box.iter("part")}
                points.append([(int(parts[f"{i:02}"]["x"]), int(parts[f"{i:02}"]["y"])) for i in range(68)])
            all_points = np.array(points, np.float32).reshape(-1, 68, 2)
            five = np.stack(
                [
                    all_points[:, 36:42].mean(axis=1), all_points[:, 42:48].mean(axis=1), all_points[:, 30],
                    all_points[:, 48], all_points[:, 54],
                ],
                axis=1,
            )  # fmt: skip
            truths.append(
                Truth(read_photo(folder / image.attrib["file"]), np.array(boxes, np.float32).reshape(-1, 4), five)
            )
    return truths


def judge(truth: Truth, found: Detections, score: Score) -> None:
    """Adds one photo to ``score``."""
    found = found.take(found.scores >= 0.9)
    overlap = iou_matrix(found.boxes, truth.boxes)
    score.detections, score.faces = score.detections + len(found), score.faces + len(truth.boxes)
    for row in range(len(found)):
        if not overlap.shape[1] or overlap[row].max() < _OVERLAP:
            continue
        face = int(overlap[row].argmax())
        overlap[:, face] = 0
        score.right += 1
        eyes = float(np.linalg.norm(truth.landmarks[face, 1] - truth.landmarks[face, 0]))
        distance = np.linalg.norm(found.landmarks[row] - truth.landmarks[face], axis=1).mean()
        score.landmark_errors.append(float(distance) / eyes)


def judged(detector: FaceDetector, truths: list[Truth]) -> Score:
    score = Score()
    for truth in truths:
        judge(truth, detector.detect([truth.image])[0], score)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--min-face-px", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    truths = read_truth(options.folder)
    print(f"{len(truths)} photos, {sum(len(truth.boxes) for truth in truths)} faces\n")  # noqa: T201
    print("| detector | precision | recall | landmarks off by | ms an image |\n|---|---|---|---|---|")  # noqa: T201
    for name in NAMES:
        settings: dict[str, Any] = {"detector": name, "min_face_px": options.min_face_px}
        config = DetectionConfig.model_validate(settings)
        detector = load_detector(config, cache_dir=cache_dir(), models_dir=options.models_dir)
        score = judged(detector, truths)
        rounds = []
        for _ in range(options.rounds):
            begun_s = time.perf_counter()
            for truth in truths:
                detector.detect([truth.image])
            rounds.append(1000 * (time.perf_counter() - begun_s) / len(truths))
        print(  # noqa: T201
            f"| `{name}` | {score.precision:.3f} ({score.detections - score.right} wrong) "
            f"| {score.recall:.3f} ({score.faces - score.right} missed) "
            f"| {100 * statistics.mean(score.landmark_errors or [0]):.1f} % "
            f"| {statistics.median(rounds):.0f} ({min(rounds):.0f} to {max(rounds):.0f}) |"
        )


if __name__ == "__main__":
    main()
