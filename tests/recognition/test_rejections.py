"""Every face that comes to nothing is counted, with the reason."""

from typing import Any

import numpy as np
import pytest

from tests.support.past import NOON, Notes
from worker.config import CameraConfig, Config
from worker.gallery.folder import FolderGallery
from worker.recognition.pipeline import Pipeline
from worker.service.metrics import PrometheusObserver
from worker.types import Detections, Frame

FACE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]


class Faces:
    """Stands in for a detector: always finds faces of these sides and scores, side by side."""

    def __init__(self, *faces: tuple[float, float]) -> None:
        left = np.array([200.0 * number for number in range(len(faces))])
        side, score = np.array(faces, np.float32).T
        boxes = np.stack([left, 0 * left, left + side, side], axis=1).astype(np.float32)
        landmarks = boxes[:, None, :2] + side[:, None, None] * np.array(FACE, np.float32)
        self.found = Detections(boxes, score, landmarks.astype(np.float32))

    def detect(self, images: list[Any]) -> list[Detections]:
        return [self.found for _ in images]

    def follow(self, images: list[Any], expected: list[Any]) -> list[Detections]:
        return [self.found if len(boxes) else Detections.empty() for boxes in expected]


class NoEmbedder:
    model_id, preprocessing_digest, dimension, threshold = "m", "digest", 8, 0.5


@pytest.fixture
def observer() -> PrometheusObserver:
    return PrometheusObserver()


def run(observer: PrometheusObserver, recorder: Notes, *faces: tuple[float, float]) -> None:
    config = Config(cameras=(CameraConfig(id="door", source="x.mp4"),))
    gallery = FolderGallery.in_memory("m", "digest", 8)
    pipeline = Pipeline(
        config, Faces(*faces), NoEmbedder(), gallery, observer=observer, recorder=recorder,  # type: ignore[arg-type]
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (400, 1000, 3), np.uint8)
    for number in range(3):
        pipeline.process([Frame("door", number, number / 10, NOON, 0.0, image)])
    pipeline.close()


def test_faces_and_tracks_that_come_to_nothing_are_counted_by_reason(observer: PrometheusObserver) -> None:
    notes = Notes()
    run(observer, notes, (120, 0.6), (20, 0.99))

    def value(name: str, **labels: str) -> float | None:
        return observer.registry.get_sample_value(f"facestream_{name}", {"camera": "door"} | labels)

    assert value("faces_detected_total") == 6
    assert value("faces_rejected_total", reason="low_start_score") == 3
    assert value("faces_rejected_total", reason="too_small") == 3
    assert value("tracks_ended_total", reason="too_small") == 1
    assert value("face_quality_count") == 3
    assert value("face_quality_bucket", le="0.2") == 3
    assert notes.rejects == [("low_start_score", 0, 1)] * 3
    (past,) = notes.sightings
    assert (past.account.faces, dict(past.account.rejected), past.account.reason) == (3, {"too_small": 3}, "too_small")
    assert past.account.largest_px == 20 < past.account.least_px
