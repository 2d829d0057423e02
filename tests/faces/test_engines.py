"""The engine for a GPU, run on the processor, finds the same faces; that of the processor is bound to no core."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from worker.bench.comparison import same_faces
from worker.bench.material import rows_of
from worker.config import DetectionConfig
from worker.faces.alignment import box_matrices, warp
from worker.faces.detection import load_detector
from worker.faces.networks.parity import write_random_h5
from worker.types import Image


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_tensorflow_computes_in_fp16_is_what_it_computes_in_fp32(tmp_path: Path) -> None:
    """The arithmetic of a GPU, on the processor: for its own sake no processor would take it."""
    from worker.faces.engines.keras import KerasNetwork

    def both(builder: str, arguments: Mapping[str, object], chips: Image) -> list[Any]:
        return [
            KerasNetwork(builder, arguments, precision=precision)(chips)[0].reshape(len(chips), -1)
            for precision in ("fp32", "fp16")
        ]

    image = data.astronaut()
    boxes = np.array([[170, 60, 270, 190], [0, 0, 120, 130], [300, 200, 420, 330]], np.float32)
    write_random_h5("resnet50", tmp_path / "random.h5", 0)
    arguments = {
        "network": "resnet50", "weights": str(tmp_path / "random.h5"), "channel_order": "bgr",
        "mean": (91.4953, 103.8827, 131.0912),
    }  # fmt: skip
    chips = warp(image, box_matrices(boxes, 224, 1.3, 256), 224)
    plain, half = both("worker.faces.networks.vggface2:build", arguments, chips)
    expected, found = plain - plain.mean(axis=0), half - plain.mean(axis=0)
    cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999
    for part, side in (("proposal", 256), ("refinement", 24), ("output", 48)):
        windows = warp(image, box_matrices(boxes, side, 1.0, side), side)
        plain, half = both("worker.faces.networks.mtcnn:build", {"part": part}, windows)
        assert not np.array_equal(plain, half), "it was computed otherwise"
        assert np.abs(plain - half).max() < 0.1, part


_DETECT_AND_WATCH_THREADS = """
import os, sys, threading
from contextlib import suppress
from pathlib import Path
import numpy as np
from worker.config import DetectionConfig
from worker.faces.detection import load_detector

detector = load_detector(DetectionConfig(), cache_dir=Path(sys.argv[1]))
picture = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), np.uint8)
detector.detect([picture])
done, cores = threading.Event(), set()

def watch():
    while not done.is_set():
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):
                cores.add(len(os.sched_getaffinity(int(thread))))

watching = threading.Thread(target=watch)
watching.start()
for _ in range(5):
    detector.detect([picture])
done.set()
watching.join()
print(*cores)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core there is none to be bound to")
def test_no_thread_waits_for_a_core_that_other_work_has(shared_cache: Path) -> None:
    """Bound to a core, one thread held up each inference where other work took that core, with the other core idle."""
    command = [sys.executable, "-c", _DETECT_AND_WATCH_THREADS, str(shared_cache)]
    allowed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert {int(number) for number in allowed} == {len(os.sched_getaffinity(0))}
