"""What a batch costs the pipeline's thread where a device finds and embeds the faces: all but the device's own part.

    python -m tests.bench.host CLIP [--cameras 100] [--batch 50] [--faces 2] [--profile]

Frames of many cameras, as planes, go through the worker's own pipeline, with JAX on the processor as the device. Faces
are found in the clip once, by the processor's detector, and then handed out as a device would; pictures do go up, and
faces are cut out and embedded there, by a small network with random weights. Counted is the processor time of the
thread that owns the pipeline: what JAX computes in other threads, and the wait for it, are not in it.
"""

import argparse
import cProfile
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from tests.support.models import document
from worker.bench.device_faces import frames_of
from worker.config import Config, DetectionConfig, cache_dir
from worker.faces.alignment import similarity_matrices, warp
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.device.runtimes import load_runtime
from worker.faces.manifests import Manifest
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.observer import Observer, Stage
from worker.types import Detections, Frame, Image, LazyImage, Picture, image_of
from worker.video.planes import rgb_of

LOOK_S: Final = 0.2
WARM_S: Final = 1.0
"""Until then JAX compiles one size after the other: this does not count."""
STEP: Final = 5
PEOPLE: Final = 1000
SIDE: Final = 112


class Clock(Observer):
    """The processor time of each stage, without those inside it."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        begun_s = time.thread_time()
        yield
        self.spent_s[stage] += time.thread_time() - begun_s


class Recorded:
    """A device's detector whose faces are known: it only takes the pictures up."""

    def __init__(self, faces: dict[int, Detections], pictures: Any) -> None:
        self._faces, self._pictures = faces, pictures

    def submit(self, images: Sequence[Picture]) -> Sequence[Picture]:
        for first in range(0, len(images), 16):
            self._pictures.upload(images[first : first + 16], 1920, 1080)
        return images

    def collect(self, ticket: Sequence[Picture]) -> list[Detections]:
        return [self._faces[id(cast("LazyImage", image).planes)] for image in ticket]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--faces", type=int, default=2, help="at most, of a frame")
    parser.add_argument("--seconds", type=float, default=4.0, help="of video, the first of which does not count")
    parser.add_argument("--profile", action="store_true", help="show the dearest functions")
    options = parser.parse_args()
    clock = Clock()
    pipeline, clip = _pipeline(options, clock)
    spent, count, events = [0.0, 0.0], 0, 0
    profile = cProfile.Profile(time.thread_time)
    warm = int(WARM_S / LOOK_S) * options.cameras // options.batch
    for number, batch in enumerate(_batches(options, clip)):
        if number == warm:
            clock.spent_s.clear()
            spent, count, events = [0.0, 0.0], 0, 0
        if options.profile and number >= warm:
            profile.enable()
        begun_s = time.thread_time()
        ticket = pipeline.begin(batch)
        sent_s = time.thread_time()
        events += len(pipeline.process(batch, begun=ticket))
        spent[0] += sent_s - begun_s
        spent[1] += time.thread_time() - sent_s
        profile.disable()
        count += len(batch)
    known = sum(clock.spent_s.values())
    rows = {
        "frames go up": spent[0],
        **clock.spent_s,
        "quality, events and others": spent[1] - known,
        "all": sum(spent),
    }
    _say(f"{count} frames of {options.cameras} cameras in batches of {options.batch}, {events} events\n")
    _say("| part | ms a frame |\n|---|---|")
    for name, seconds in rows.items():
        _say(f"| {name} | {1000 * seconds / count:.3f} |")
    if options.profile:
        pstats.Stats(profile).sort_stats("cumtime").print_stats(60)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _pipeline(options: argparse.Namespace, clock: Clock) -> tuple[Any, list[Picture]]:
    runtime = load_runtime("jax", processor=True)
    import keras

    from worker.faces.device.embedder import DeviceNetwork
    from worker.faces.device.pictures import pictures_on
    from worker.faces.embedding import FaceEmbedder
    from worker.recognition.pipeline import Pipeline

    clip = frames_of(options.clip, STEP)
    detector = load_detector(DetectionConfig(), cache_dir=cache_dir(), engine="openvino")
    faces = {}
    for picture in clip:
        (found,) = detector.detect([image_of(picture)])
        faces[id(cast("LazyImage", picture).planes)] = found.take(np.arange(min(len(found), options.faces)))
    config = Config.model_validate(
        {
            "worker_id": "w",
            "cameras": [
                {"id": f"c{n}", "source": "rtsp://127.0.0.1/x", "policy": "every"} for n in range(options.cameras)
            ],
        }
    )
    settings = {"side": SIDE, "channel_order": "rgb", "layout": "nhwc"}
    manifest = Manifest.model_validate(
        document(
            format="h5", network="face_cnn", input=settings, dimension=128,
            files=[{"name": "means.h5", "sha256": "0" * 64}],
        )
    )  # fmt: skip
    arguments = {"network": "face_cnn", "weights": None, "side": SIDE}
    # The random weights decide how many verdicts are taken: runs can be compared only if they are the same.
    keras.utils.set_random_seed(0)
    pictures = pictures_on(runtime)
    network = DeviceNetwork("worker.faces.networks.face_cnn:build", arguments, runtime, pictures, precision="fp32")

    def matrices(found: Detections) -> Any:
        return similarity_matrices(found.landmarks, cast("Any", manifest.alignment).template, SIDE)

    def align(image: Image, found: Detections) -> Any:
        return warp(image, matrices(found), SIDE)

    embedder = FaceEmbedder(manifest, network, align, engine="jax", cuts=(network, matrices), observer=clock)
    gallery = FolderGallery.in_memory(embedder.model_id, embedder.preprocessing_digest, 128)
    vectors = np.random.default_rng(0).normal(size=(PEOPLE, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery.add([NewSample(f"p{n}", vector, f"s{n}", f"d{n}") for n, vector in enumerate(vectors)])
    recorded = cast("FaceDetector", Recorded(faces, pictures))
    return Pipeline(config, recorded, embedder, gallery, observer=clock), clip


def _batches(options: argparse.Namespace, clip: Sequence[Picture]) -> Iterator[list[Frame]]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for look in range(int(options.seconds / LOOK_S)):
        frames = []
        for camera in range(options.cameras):
            shown = cast("LazyImage", clip[(look + 3 * camera) % len(clip)])
            picture = LazyImage(shown.planes, rgb_of)
            at = start + timedelta(seconds=LOOK_S * look)
            frames.append(Frame(f"c{camera}", look, LOOK_S * look, at, 0.0, picture))
        for first in range(0, len(frames), options.batch):
            yield frames[first : first + options.batch]


if __name__ == "__main__":
    main()
