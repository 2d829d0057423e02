"""The engine for a GPU, run on the processor, finds the same faces; that of the processor is bound to no core."""

import os
import subprocess
import sys
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
