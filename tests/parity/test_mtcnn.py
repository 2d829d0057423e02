"""Our cascade against the ``mtcnn`` package, run as its authors meant it: smallest face 20 px, one image at a time.

The package is slow, so its answers are taken once, in a process of its own, for both precisions.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from worker.boxes import iou_matrix
from worker.config import DetectionConfig
from worker.faces.detection import load_detector
from worker.faces.engines.openvino import best_precision
from worker.types import Detections, Image

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(900)]

_REFERENCE = """
import sys, numpy as np
from mtcnn import MTCNN
reference, images, found = MTCNN(), np.load(sys.argv[1]), {}
for name in images:
    rows = reference.detect_faces(images[name], fit_to_image=False, box_format="xyxy", output_type="numpy")
    found[name] = np.asarray(rows, np.float32).reshape(-1, 16)
np.savez(sys.argv[2], **found)
"""


def frames(path: Path, step: int) -> list[Image]:
    video = cv2.VideoCapture(str(path))
    taken: list[Image | None] = []
    while video.grab():
        if len(taken) % step == 0:
            taken.append(video.retrieve()[1][..., ::-1])
        else:
            taken.append(None)
    return [np.ascontiguousarray(frame) for frame in taken if frame is not None]


@pytest.fixture(scope="module")
def images(test_data: Path) -> dict[str, Image]:
    paths = [*(test_data / "dlib_faces").glob("*.jpg"), *(test_data / "photos").rglob("*.jp*g")]
    found: dict[str, Image] = {}
    for path in sorted(paths):
        picture = cv2.imread(str(path))
        assert picture is not None
        found[path.stem] = np.ascontiguousarray(picture[..., ::-1])
    video = frames(test_data / "video" / "crowd_1080p.mp4", 10)
    return found | {f"frame{index}": frame for index, frame in enumerate(video)}


@pytest.fixture(scope="module")
def reference(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    folder = tmp_path_factory.mktemp("reference")
    np.savez(folder / "images.npz", **cast("dict[str, Any]", images))
    subprocess.run(
        [sys.executable, "-c", _REFERENCE, str(folder / "images.npz"), str(folder / "found.npz")],
        check=True, capture_output=True,
    )  # fmt: skip
    with np.load(folder / "found.npz") as found:
        return dict(found)


@pytest.fixture(scope="module", params=["fp32", "bf16"] if best_precision() == "bf16" else ["fp32"])
def ours(request: pytest.FixtureRequest, images: dict[str, Image], shared_cache: Path) -> dict[str, Detections]:
    config = DetectionConfig(min_face_px=20, precision=request.param)
    detector = load_detector(config, cache_dir=shared_cache, engine="openvino")
    return dict(zip(images, detector.detect(list(images.values())), strict=True))


def best_overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    best: NDArray[np.float32] = iou_matrix(boxes, others).max(axis=1, initial=0)
    return best


def test_the_same_faces(reference: dict[str, NDArray[np.float32]], ours: dict[str, Detections]) -> None:
    theirs_found, ours_known, all_known = [], [], []
    for name, rows in reference.items():
        sure = rows[:, 5] >= 0.9
        theirs_found.append(best_overlaps(rows[sure, 1:5], ours[name].boxes) >= 0.8)
        known = best_overlaps(ours[name].boxes, rows[:, 1:5]) >= 0.8
        ours_known.append(known[ours[name].scores >= 0.9])
        all_known.append(known)
    assert sum(map(len, theirs_found)) > 130
    assert np.concatenate(theirs_found).mean() >= 0.99
    assert np.concatenate(ours_known).mean() >= 0.99
    assert np.concatenate(all_known).mean() >= 0.95


def test_the_same_landmarks_and_scores(reference: dict[str, NDArray[np.float32]], ours: dict[str, Detections]) -> None:
    distances, differences = [], []
    for name, rows in reference.items():
        overlaps = iou_matrix(rows[:, 1:5], ours[name].boxes)
        for row, partner in zip(*np.nonzero(overlaps >= 0.8), strict=True):
            places = rows[row, 6:].reshape(2, 5).T
            distances.append(np.linalg.norm(places - ours[name].landmarks[partner], axis=1))
            differences.append(abs(rows[row, 5] - ours[name].scores[partner]))
    assert np.median(distances) < 0.5
    assert np.median(differences) < 0.01
