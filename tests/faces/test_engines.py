"""The engine for a GPU, run on the processor: the same networks through TensorFlow find the same faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from worker.bench.comparison import same_faces
from worker.bench.material import rows_of
from worker.config import DetectionConfig
from worker.faces.detection import load_detector


@pytest.mark.slow
def test_the_detector_on_tensorflow_finds_what_openvino_finds(shared_cache: Path) -> None:
    portrait = cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    images = [portrait, np.ascontiguousarray(portrait[:, ::-1]), np.zeros_like(portrait)]
    config = DetectionConfig(min_face_px=20, precision="fp32")
    openvino, tensorflow = (
        [rows_of(found) for found in load_detector(config, cache_dir=shared_cache, engine=engine).detect(images)]
        for engine in ("openvino", "keras")
    )
    assert [len(rows) > 0 for rows in tensorflow] == [True, True, False]
    verdict = same_faces(openvino, tensorflow, overlap=0.95)
    assert verdict.agree, verdict.text
