"""Where the time goes: the parts of the detector, the stages of the chain, and what each saving brings.

    python -m tests.bench.stages CLIP [--rounds 5] [--only cascade | embedding | chain]

Prints Markdown tables. The chain runs with random vggface2-resnet50 weights and people enrolled from the clip.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from worker import boxes
from worker.bench.material import Material, make_material
from worker.bench.ours import chain_config
from worker.config import Config, DetectionConfig, cache_dir
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.detectors import mtcnn
from worker.faces.detectors.pyramid import Canvas
from worker.faces.embedding import load_embedder
from worker.redis.embedded import embedded_redis
from worker.service import service
from worker.service.metrics import PrometheusObserver
from worker.types import Chips

STAGES: Final = ("decode", "detect", "follow", "track", "align", "embed", "search", "decide", "publish")
SAVINGS: Final[dict[str, dict[str, Any]]] = {
    "every frame searched, FP32": {"precision": "fp32", "policy": "every"},
    "every frame searched, BF16": {"policy": "every"},
    "frames that can tell something new": {"search_interval_s": 0.0, "motion_gate": False},
    "a look where faces are expected between searches": {"motion_gate": False},
    "as shipped": {},
}
BATCH: Final = 8


class Clock:
    """Sums of time by the name of a part."""

    def __init__(self) -> None:
        self.sums: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            begun_s = time.perf_counter()
            result = function(*arguments, **options)
            self.sums[name] += time.perf_counter() - begun_s
            return result

        return run


@contextmanager
def parts_timed(detector: FaceDetector, clock: Clock) -> Iterator[None]:
    """The parts of the cascade report to ``clock`` in the block."""
    networks = {"proposal": "proposal network", "refinement": "refinement network", "output": "output network"}
    patches = [
        patch.object(detector, name, clock.timed(part, getattr(detector, name))) for name, part in networks.items()
    ]
    patches += [
        patch.object(Canvas, "draw", clock.timed("pyramid", Canvas.draw)),
        patch.object(mtcnn, "cut_out", clock.timed("crops", mtcnn.cut_out)),
        patch.object(boxes, "nms", clock.timed("non-maximum suppression", boxes.nms)),
    ]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def cascade(frames: list[Any], rounds: int) -> None:
    """Prints ms a frame of each part of the detector, medians over rounds."""
    columns = [(20, "fp32"), (20, "auto"), (40, "fp32"), (40, "auto")]
    detectors = []
    for min_face_px, precision in columns:
        config = DetectionConfig.model_validate({"min_face_px": min_face_px, "precision": precision})
        detectors.append(load_detector(config, cache_dir=cache_dir(), engine="openvino"))
        detectors[-1].detect(frames[:BATCH])
    seen: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in columns])
    for _ in range(rounds):
        for column, detector in enumerate(detectors):
            for part, ms in cascade_parts(detector, frames).items():
                seen[part][column].append(ms)
    table = {part: [statistics.median(values) for values in columns] for part, columns in seen.items()}
    print_table(["part"] + [f"{px} px, {precision}" for px, precision in columns], table)


def cascade_parts(detector: FaceDetector, frames: list[Any]) -> dict[str, float]:
    """Milliseconds a frame: each part, the time between the parts, and all together."""
    clock = Clock()
    with parts_timed(detector, clock):
        begun_s = time.perf_counter()
        for first in range(0, len(frames), BATCH):
            detector.detect(frames[first : first + BATCH])
        total_s = time.perf_counter() - begun_s
    seconds = clock.sums | {"rest": total_s - sum(clock.sums.values()), "in all": total_s}
    return {part: 1000 * each / len(frames) for part, each in seconds.items()}


def embedding(material: Material, rounds: int) -> None:
    """Prints faces a second by batch size and precision, medians over rounds."""
    chips, sizes = np.load(material.chips), (1, 8, 32)
    embedders = {
        precision: load_embedder(
            str(material.manifest), models_dir=material.manifest.parent, cache_dir=cache_dir(), precision=precision
        )
        for precision in ("fp32", "bf16")
    }
    seen: dict[str, list[list[float]]] = {precision: [[] for _ in sizes] for precision in embedders}
    for number in range(rounds + 1):
        for precision, embedder in embedders.items():
            for column, size in enumerate(sizes):
                begun_s = time.perf_counter()
                embedder.embed(Chips(chips[:size], "rgb"))
                if number:  # the first one compiles
                    seen[precision][column].append(size / (time.perf_counter() - begun_s))
    table = {precision: [statistics.median(values) for values in columns] for precision, columns in seen.items()}
    print_table(["faces/s", "batch 1", "8", "32"], table)


def chain(material: Material, rounds: int) -> None:
    """Prints frames a second and the stages' ms a frame for each of the savings."""
    with embedded_redis() as redis_url:
        for min_face_px in (40, 20):
            base = chain_config(
                [str(material.clip)], str(material.gallery), str(material.manifest), str(material.manifest.parent),
                redis_url, min_face_px,
            )  # fmt: skip
            seen: dict[str, list[list[float]]] = {name: [] for name in SAVINGS}
            for _ in range(rounds):
                for name, changes in SAVINGS.items():
                    seen[name].append(chain_stages(changed(base, **changes)))
            medians = {name: np.median(runs, axis=0).tolist() for name, runs in seen.items()}
            print_table([f"from {min_face_px} px, ms a frame", "frames/s", *STAGES], medians)


def chain_stages(config: Config) -> list[float]:
    """Frames a second, then ms a frame of each stage."""
    kept: list[PrometheusObserver] = []

    class Kept(PrometheusObserver):
        def __init__(self) -> None:
            super().__init__()
            kept.append(self)

    with patch.object(service, "PrometheusObserver", Kept):
        summary = service.Service(config).run().summary
    values = [summary.frames / summary.duration_s]
    for stage in STAGES:
        seconds = kept[0].registry.get_sample_value("facestream_stage_duration_seconds_sum", {"stage": stage})
        values.append(1000 * (seconds or 0.0) / summary.frames)
    return values


def changed(config: Config, policy: str | None = None, **detection_settings: Any) -> Config:
    """``config`` with another policy of its camera and other settings of detection."""
    cameras = config.cameras
    if policy:
        cameras = tuple(camera.model_copy(update={"policy": policy}) for camera in cameras)
        detection_settings |= {"interval_s": 0.0, "settled_interval_s": 0.0, "search_interval_s": 0.0}
        detection_settings["motion_gate"] = False
    return config.model_copy(
        update={"cameras": cameras, "detection": config.detection.model_copy(update=detection_settings)}
    )


def print_table(head: list[str], rows: dict[str, list[float]]) -> None:
    """A Markdown table of numbers."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))  # noqa: T201
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")  # noqa: T201
    print(flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("cascade", "embedding", "chain"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        material = make_material(Path(folder), options.clip, 16, None)
        if options.only in (None, "cascade"):
            cascade(list(np.load(material.frames)), options.rounds)
        if options.only in (None, "embedding"):
            embedding(material, options.rounds)
        if options.only in (None, "chain"):
            chain(material, options.rounds)


if __name__ == "__main__":
    main()
