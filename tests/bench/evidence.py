"""Processor time that pictures of sightings cost the pipeline's thread: for each face, and for each better one.

Usage: python -m tests.bench.evidence

The frame is made here, 1920 x 1080 px, as a decoder's planes. Nothing is stored: the writer has a thread of its own.
"""

import sys
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from worker.config import EvidenceConfig
from worker.history.evidence import Evidence
from worker.types import LazyImage, Planes
from worker.video.planes import rgb_of

ROUNDS = 60
SIZE = (1920, 1080)


class Nowhere:
    def put(self, path: str, content: bytes) -> None: ...

    def get(self, path: str) -> bytes | None:
        return None

    def remove(self, paths: Sequence[str]) -> int:
        return 0

    def prune(self, before: float) -> int:
        return 0


def frames() -> list[LazyImage]:
    """As many as there are rounds, each of which nobody has made RGB yet."""
    width, height = SIZE
    blurred = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (height, width), np.uint8), (0, 0), 3)
    halves = tuple(np.full((height // 2, width // 2), 120, np.uint8) for _ in "uv")
    return [LazyImage(Planes("yuv420p", width, height, (blurred, *halves)), rgb_of) for _ in range(ROUNDS)]


def row(name: str, quality: Callable[[int], float], *, with_frames: bool) -> None:
    evidence = Evidence(EvidenceConfig(store="nowhere", frames=with_frames), Nowhere())
    box = np.array([900, 400, 1060, 600], np.float32)
    evidence.face("s1", frames()[0], box, 0.01)
    taken = []
    for number, picture in enumerate(frames()):
        begun = time.thread_time()
        evidence.face("s1", picture, box, quality(number))
        taken.append(time.thread_time() - begun)
    evidence.close()
    sys.stdout.write(f"{name:44} {1000 * float(np.median(taken)):7.3f} ms\n")


def main() -> None:
    for with_frames in (True, False):
        kept = "face and frame" if with_frames else "face alone"
        row(f"{kept}: a face that is no better", lambda _: 0.01, with_frames=with_frames)
        row(f"{kept}: a better face", lambda number: 1.0 + number, with_frames=with_frames)


if __name__ == "__main__":
    main()
