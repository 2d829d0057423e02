"""How fast a GPU is: the rows of ``facestream bench --device``, and beside them what the card itself can do.

Every figure is the median of several runs, with the lowest and the highest beside it. Networks have random weights,
except the detector's: speed does not depend on them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.bench.device_faces import compare_faces
from worker.config import DetectionConfig, TrackingConfig
from worker.faces.alignment import box_matrices
from worker.faces.device.runtimes import DTYPES, Runtime, load_runtime
from worker.recognition.tracking import Look, Tracker, update
from worker.types import Detections, Image

Document = dict[str, Any]

NAMES: Final = ("limits", "same", "embed", "detect", "chain", "search")
_SIDE: Final = 224
_TEMPLATE_ARGUMENTS: Final = {
    "network": "resnet50", "side": _SIDE, "channel_order": "bgr", "mean": [91.4953, 103.8827, 131.0912],
}  # fmt: skip
_BUILDER: Final = "worker.faces.networks.vggface2:build"


@dataclass(frozen=True)
class Sizes:
    """How much is measured: ``runs`` of each row; ``embedded`` faces in each of ``batches``; pictures in each of
    ``detected``, so many of them (``rounds``) one after the other; as many rounds of ``cameras``, and a gallery.

    ``precisions``: of the embedder; the chain takes the first. ``every``: of the clip each frame that counts so many is
    compared, and, if ``photos`` is true, every photo.
    """

    runs: int = 7
    embedded: int = 2048
    batches: Sequence[int] = (32, 256, 1024)
    detected: Sequence[int] = (8, 16)
    min_face_px: Sequence[int] = (40, 20)
    rounds: int = 6
    cameras: int = 8
    gallery: int = 1_000_000
    precisions: Sequence[str] = ("fp16", "bf16")
    every: int = 10
    photos: bool = True


QUICK: Final = Sizes(
    runs=1, embedded=8, batches=(8,), detected=(1,), min_face_px=(40,), rounds=1, cameras=1, gallery=2000,
    precisions=("fp16",), every=60, photos=False,
)  # fmt: skip
"""Each kind of row once, to see that everything is there; its figures say nothing of a card."""


class Meter:
    """Measures works on one runtime and describes each as a document."""

    def __init__(self, runtime: Runtime, say: Callable[[str], None], sizes: Sizes) -> None:
        self.runtime, self.sizes = runtime, sizes
        self._say = say

    def row(self, name: str, unit: str, work: Callable[[], Any], count: float, **more: Any) -> Document:
        """``count`` things (in ``unit``) a run of ``work``, which ends when its last result is there. The first run,
        in which functions are compiled, does not count."""
        begun_s = time.perf_counter()
        work()
        first_s = time.perf_counter() - begun_s
        work()
        seconds = []
        for _ in range(self.sizes.runs):
            begun_s = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begun_s)
        rates = [count / each for each in seconds]
        document = {
            "row": name,
            "runtime": self.runtime.name,
            "card": self.runtime.card,
            "value": _figure(statistics.median(rates)),
            "low": _figure(min(rates)),
            "high": _figure(max(rates)),
            "unit": unit,
            "ms": round(1000 * statistics.median(seconds), 3),
            "first_s": round(first_s, 1),
        } | more
        self._say(f"{name}: {document['value']:g} {unit}")
        return document


def measure_device(
    frames: Sequence[Image],
    *,
    clip: Path | None = None,
    data: Path | None = None,
    runtime: str | None = None,
    names: Sequence[str] = NAMES,
    sizes: Sizes = Sizes(),
    processor: bool = False,
    cache_dir: Path | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Iterator[Document]:
    """Yields each row as soon as it is measured.

    Args:
        frames: of 1920x1080, at least one; they are taken by turns.
        clip, data: what the comparison of faces looks at, see :func:`worker.bench.device_faces.compare_faces`.
        names: of :data:`NAMES`.

    Raises:
        ModelError: the runtime is not there, or sees no GPU.
    """
    meter = Meter(load_runtime(runtime, cache_dir=cache_dir, processor=processor), say, sizes)
    groups: dict[str, Callable[[], Iterator[Document]]] = {
        "limits": lambda: _limits(meter),
        "same": lambda: (
            compare_faces(meter.runtime, clip, data, say, every=sizes.every, photos=sizes.photos)
            if clip is not None
            else iter(())
        ),
        "embed": lambda: _embedding(meter),
        "detect": lambda: _detection(meter, frames),
        "chain": lambda: _chain(meter, frames),
        "search": lambda: _search(meter),
    }
    for name in names:
        yield from groups[name]()


def _limits(meter: Meter) -> Iterator[Document]:
    from keras import ops

    runtime = meter.runtime
    on_gpu = runtime.device == "GPU"
    side = 8192 if on_gpu else 512
    random = np.random.default_rng(0)
    factors = [runtime.put(random.normal(0, 0.01, (side, side)).astype(np.float32)) for _ in range(2)]
    for precision in ("bf16", "fp16"):
        a, b = (ops.cast(each, DTYPES[precision]) for each in factors)

        def product(a: Any, b: Any) -> Any:
            for _ in range(10):
                a = ops.matmul(a, b)
            return a[:1, :1]

        run = runtime.compiled(product)
        tera = 10 * 2 * side**3 / 1e12
        yield meter.row(f"limit: arithmetic {precision}", "TFLOP/s", lambda: runtime.fetched(run(a, b)), tera)  # noqa: B023

    size = 1 << (28 if on_gpu else 20)
    values = runtime.put(np.ones(size, np.float32))

    step = runtime.compiled(lambda values: values + 1.0)

    def passes() -> None:
        moved = values
        for _ in range(10):
            moved = step(moved)
        runtime.fetched(moved[:1])

    yield meter.row("limit: memory", "GB/s", passes, 10 * 2 * 4 * size / 1e9)
    pictures = [np.full((1080, 1920, 3), index, np.uint8) for index in range(16)]
    first = runtime.compiled(lambda tensors: ops.stack([tensor[0, 0, 0] for tensor in tensors]))

    def up() -> None:
        runtime.fetched(first([runtime.put(picture) for picture in pictures]))

    yield meter.row("limit: transfer up, 16 pictures of 6 MB", "GB/s", up, 16 * pictures[0].nbytes / 1e9)


def _embedding(meter: Meter) -> Iterator[Document]:
    runtime, sizes = meter.runtime, meter.sizes
    random = np.random.default_rng(1)
    for precision in sizes.precisions:
        network = _network(runtime, precision)
        for batch in sizes.batches:
            chips = random.integers(0, 256, (batch, _SIDE, _SIDE, 3), dtype=np.uint8)
            there = runtime.put(chips)
            repeats = max(1, sizes.embedded // batch)

            def on_card() -> None:
                results = [network.features(there) for _ in range(repeats)]  # noqa: B023
                runtime.fetched(results[-1][:1])

            yield meter.row(f"embed, on the card, batch {batch}, {precision}", "faces/s", on_card, batch * repeats)

            def host_to_host() -> None:
                waiting = network.features(runtime.put(chips))  # noqa: B023
                for _ in range(repeats - 1):  # noqa: B023
                    following = network.features(runtime.put(chips))  # noqa: B023
                    runtime.fetched(waiting)
                    waiting = following
                runtime.fetched(waiting)

            yield meter.row(
                f"embed, host to host, batch {batch}, {precision}", "faces/s", host_to_host, batch * repeats
            )


def _detection(meter: Meter, frames: Sequence[Image]) -> Iterator[Document]:
    for min_face_px in meter.sizes.min_face_px:
        detector, _ = _detector(meter.runtime, min_face_px)
        for batch in meter.sizes.detected:
            batches = _batches(frames, batch, meter.sizes.rounds)
            found = 0

            def run() -> None:
                nonlocal found
                found = sum(len(each) for faces in _in_flight(detector, batches) for each in faces)  # noqa: B023

            name = f"detect 1080p, {min_face_px} px, batch {batch}"
            count = sum(map(len, batches))
            yield meter.row(name, "frames/s", run, count) | {"faces_a_frame": round(found / count, 2)}
            ticket = detector.submit(batches[0])
            detector.collect(ticket)

            def again() -> None:
                for _ in range(5):
                    waiting = detector.again(ticket)  # noqa: B023
                detector.collect(waiting)  # noqa: B023

            yield meter.row(f"{name}, on the card", "frames/s", again, 5 * batch)


def _chain(meter: Meter, frames: Sequence[Image]) -> Iterator[Document]:
    """Every frame of a few cameras: detect, follow the tracks, embed every face, search the gallery. While the
    processor follows the tracks of a batch, the device looks for faces in the next one."""
    from worker.faces.device.search import DeviceIndex

    runtime, sizes = meter.runtime, meter.sizes
    network = _network(runtime, sizes.precisions[0])
    searched = DeviceIndex([_unit(sizes.gallery, 2048)], np.arange(sizes.gallery), runtime)
    for min_face_px in sizes.min_face_px:
        detector, pictures = _detector(runtime, min_face_px)
        network.pictures = pictures
        batches = _batches(frames, sizes.cameras, 2 * sizes.rounds)
        trackers = [Tracker(TrackingConfig()) for _ in range(sizes.cameras)]
        clock, faces, spent = 0.0, 0, dict.fromkeys(("detect", "track", "embed", "search"), 0.0)

        def run() -> None:
            nonlocal clock, faces
            faces = 0
            spent.update(dict.fromkeys(spent, 0.0))  # noqa: B023
            mark = time.perf_counter()

            def note(stage: str) -> None:
                nonlocal mark
                now = time.perf_counter()
                spent[stage] += now - mark  # noqa: B023
                mark = now

            waiting: Any = None
            queries: Any = None
            for batch, found in zip(batches, _in_flight(detector, batches), strict=True):  # noqa: B023
                note("detect")
                clock += 0.04
                tracks = update([Look(tracker, each, clock) for tracker, each in zip(trackers, found, strict=True)])  # noqa: B023
                note("track")
                wanted = [each.detections for each in tracks]
                faces += sum(map(len, wanted))
                following = _submitted(network, batch, wanted)
                vectors = _vectors(network, waiting)
                waiting = following
                note("embed")
                if queries is not None:
                    searched.collect(queries)
                queries = searched.submit(vectors) if len(vectors) else None
                note("search")
            vectors = _vectors(network, waiting)
            for last in (queries, searched.submit(vectors) if len(vectors) else None):
                if last is not None:
                    searched.collect(last)

        name = f"chain, {sizes.cameras} cameras, {min_face_px} px, gallery of {sizes.gallery:,}"
        count = sum(map(len, batches))
        row = meter.row(name, "frames/s", run, count)
        yield row | {
            "faces_a_frame": round(faces / count, 2),
            "ms_a_frame": {stage: round(1000 * seconds / count, 3) for stage, seconds in spent.items()},
        }


def _search(meter: Meter) -> Iterator[Document]:
    from worker.faces.device.search import DeviceIndex

    gallery = meter.sizes.gallery
    for dimension in (512, 2048):
        vectors = _unit(gallery, dimension)
        searched = DeviceIndex([vectors], np.arange(gallery), meter.runtime)
        for count in (1, 256):
            queries = vectors[:: gallery // count][:count]
            people, cosines = searched.search(queries)
            right = bool(np.all(people[:, 0] == np.arange(0, gallery, gallery // count)[:count]))

            def run() -> None:
                searched.search(queries)  # noqa: B023

            name = f"search, {gallery:,} x {dimension}, {count} at once"
            yield meter.row(name, "queries/s", run, count, agrees=right and bool(np.all(cosines[:, 0] > 0.999)))


def _in_flight(detector: Any, batches: Sequence[Sequence[Image]]) -> Iterator[list[Detections]]:
    """The faces of each batch; the next batch is under way when one is handed out."""
    waiting = detector.submit(batches[0])
    for batch in batches[1:]:
        following = detector.submit(batch)
        yield detector.collect(waiting)
        waiting = following
    yield detector.collect(waiting)


def _submitted(network: Any, images: Sequence[Image], faces: Sequence[Detections]) -> Any:
    boxes = np.concatenate([each.boxes for each in faces])
    owners = [image for image, each in zip(images, faces, strict=True) for _ in range(len(each))]
    return network.submit_faces(owners, box_matrices(boxes, _SIDE, 1.3, 256))


def _vectors(network: Any, waiting: Any) -> NDArray[np.float32]:
    features: NDArray[np.float32] = network.collect_faces(waiting or [])
    unit: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    return unit


def _batches(frames: Sequence[Image], size: int, count: int) -> list[list[Image]]:
    """Arrays of their own, as from so many cameras: none goes up for another."""
    return [[frames[(number * size + place) % len(frames)].copy() for place in range(size)] for number in range(count)]


def _figure(value: float) -> float:
    """In so many digits as one reads: a slow device is no device of speed 0."""
    return round(value, 1) if value >= 100 else float(f"{value:.3g}")


def _unit(count: int, dimension: int) -> NDArray[np.float32]:
    random = np.random.default_rng(2)
    vectors = random.integers(-127, 128, (count, dimension), dtype=np.int8).astype(np.float32)
    vectors /= np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors


def _detector(runtime: Runtime, min_face_px: int) -> tuple[Any, Any]:
    from worker.faces.device.detector import load_device_detector
    from worker.faces.device.pictures import Pictures

    pictures = Pictures(runtime)
    return load_device_detector(DetectionConfig(min_face_px=min_face_px), runtime, pictures), pictures


def _network(runtime: Runtime, precision: str) -> Any:
    from worker.faces.device.embedder import DeviceNetwork
    from worker.faces.device.pictures import Pictures
    from worker.faces.networks.parity import write_random_h5

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.h5"
        write_random_h5("resnet50", path, 0)
        arguments = _TEMPLATE_ARGUMENTS | {"weights": str(path)}
        return DeviceNetwork(_BUILDER, arguments, runtime, Pictures(runtime), precision=precision)
