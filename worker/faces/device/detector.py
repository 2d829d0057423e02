"""DeviceDetector: the MTCNN cascade on a GPU, a batch of pictures at a time, with the next one under way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from keras import ops
from numpy.typing import NDArray

from worker.config import DetectionConfig
from worker.faces.detectors.mtcnn import OUTPUT_PX, REFINEMENT_PX, scaled_down
from worker.faces.detectors.one_by_one import require_images
from worker.faces.detectors.pyramid import CELL_PX
from worker.faces.device import cascade
from worker.faces.device.cascade import Capacity
from worker.faces.device.geometry import Bucket, bucket_for, geometry
from worker.faces.device.pictures import BATCH_SIZES, OnDevice, Pictures
from worker.faces.device.runtimes import DTYPES, Runtime
from worker.faces.networks import mtcnn
from worker.observer import Observer
from worker.types import Detections, Image, LazyImage, Picture, image_of

Floats = NDArray[np.float32]
_FIRST: Final = Capacity(1024, 512, 64)
_GROWTH: Final = 2
_MANY: Final = 4
"""So many pictures of one size at once are worth a bucket that fits them."""
_GEOMETRIES_KEPT: Final = 32


@dataclass
class _Part:
    """Pictures of one size under way: ``members`` are their places among those that were handed in."""

    members: list[int]
    on_device: OnDevice
    bucket: Bucket
    capacity: Capacity
    found: Any
    totals: Any


@dataclass
class Ticket:
    """A batch whose faces are being looked for: what :meth:`DeviceDetector.collect` takes."""

    images: Sequence[Picture]
    scales: list[float]
    parts: list[_Part]


class DeviceDetector:
    """Finds the faces of at least ``config.min_face_px`` in batches of images of any sizes.

    Not safe for concurrent calls. A picture with more candidates than there is room for is looked at again with more
    room; ``observer.second_pass`` is told of each such batch.
    """

    def __init__(
        self,
        config: DetectionConfig,
        runtime: Runtime,
        pictures: Pictures,
        *,
        precision: str = "fp16",
        first_capacity: Capacity = _FIRST,
        observer: Observer | None = None,
    ) -> None:
        self._min_face_px, self._max_side_px = config.min_face_px, config.max_side_px
        self._runtime, self._pictures = runtime, pictures
        self._observer = observer or Observer()
        self._smallest = first_capacity
        parts: tuple[mtcnn.Part, ...] = ("proposal", "refinement", "output")
        self._weights: dict[str, Any] = {
            part: [ops.cast(runtime.put(each), DTYPES[precision]) for each in mtcnn.centred_weights(part)]
            for part in parts
        }
        for part, side in (("refinement", REFINEMENT_PX), ("output", OUTPUT_PX)):
            self._weights[f"steps_{part}"] = runtime.put(np.linspace(0, 1, side, dtype=np.float32))
        self._geometries: dict[tuple[int, int, Bucket], dict[str, Any]] = {}
        self._capacities: dict[Bucket, Capacity] = {}
        self._searches: dict[tuple[Bucket, Capacity], Any] = {}

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """See :class:`worker.faces.detection.FaceDetector`."""
        require_images(images)
        return self.collect(self.submit(images)) if images else []

    def submit(self, images: Sequence[Picture]) -> Ticket:
        """Begins to look for the faces of ``images``, each uint8 (H, W, 3) or planes, and returns at once."""
        if images:
            self._observer.batch("detect", len(images))
        scales = [min(1.0, self._max_side_px / max(1, *image.shape[:2])) for image in images]
        scaled = [
            image if scale == 1 else scaled_down(image_of(image), scale)
            for image, scale in zip(images, scales, strict=True)
        ]
        sizes: dict[tuple[bool, int, int, float], list[int]] = {}
        for index, (image, scale) in enumerate(zip(scaled, scales, strict=True)):
            least = max(self._min_face_px * scale, CELL_PX)
            if min(image.shape[:2]) >= CELL_PX and min(image.shape[:2]) * CELL_PX / least >= CELL_PX:
                planar = isinstance(image, LazyImage)
                sizes.setdefault((planar, image.shape[1], image.shape[0], least), []).append(index)
        parts = []
        for (_, width, height, least), members in sizes.items():
            bucket = bucket_for(width, height, least, many=len(members) >= _MANY)
            for first in range(0, len(members), BATCH_SIZES[-1]):
                some = members[first : first + BATCH_SIZES[-1]]
                on_device = self._pictures.upload([scaled[index] for index in some], bucket.width, bucket.height)
                parts.append(self._search(some, on_device, bucket, self._capacities.get(bucket, self._smallest)))
        return Ticket(images, scales, parts)

    def collect(self, ticket: Ticket) -> list[Detections]:
        """The faces of the images that were handed in, once they are found."""
        faces = [Detections.empty() for _ in ticket.images]
        with self._observer.stage("detect"):
            for part in ticket.parts:
                for index, found in zip(part.members, self._found(part), strict=False):
                    faces[index] = _detections(found, 1 / ticket.scales[index])
        return faces

    def again(self, ticket: Ticket) -> Ticket:
        """Looks at the pictures of ``ticket`` once more, as they lie on the device: to measure."""
        room = self._capacities
        parts = [
            self._search(part.members, part.on_device, part.bucket, room.get(part.bucket, part.capacity))
            for part in ticket.parts
        ]
        return Ticket(ticket.images, ticket.scales, parts)

    def follow(self, images: Sequence[Image], expected: Sequence[Floats]) -> list[Detections]:
        """The faces of each image where one is expected: the whole is searched, which costs a device no more."""
        wanted = [index for index, boxes in enumerate(expected) if len(boxes)]
        faces = [Detections.empty() for _ in images]
        for index, found in zip(wanted, self.detect([images[index] for index in wanted]), strict=True):
            faces[index] = found
        return faces

    def _search(self, members: list[int], on_device: OnDevice, bucket: Bucket, capacity: Capacity) -> _Part:
        tensors = self._weights | {"geometry": self._geometry(on_device.width, on_device.height, bucket)}
        search = self._searches.get((bucket, capacity))
        if search is None:
            search = self._searches[bucket, capacity] = self._compiled_search(bucket, capacity)
        found, totals = search(tensors, on_device.pixels)
        return _Part(members, on_device, bucket, capacity, found, totals)

    def _found(self, part: _Part) -> Floats:
        """float32 (b, faces, 16); looks again while a capacity was too small."""
        while True:
            totals = self._runtime.fetched(part.totals)[: len(part.members)]
            most = totals.max(axis=0)
            if _enough(part.capacity, most) == part.capacity:
                return self._runtime.fetched(part.found)
            self._observer.second_pass("detect")
            # A batch that was begun before may have found another stage too small: that one stays as it is.
            more = self._capacities[part.bucket] = _enough(self._capacities.get(part.bucket, part.capacity), most)
            part = self._search(part.members, part.on_device, part.bucket, more)

    def _compiled_search(self, bucket: Bucket, capacity: Capacity) -> Any:
        def search(tensors: dict[str, Any], pixels: Any) -> tuple[Any, Any]:
            squares, counts, before = cascade.proposals(tensors, pixels, bucket, capacity)
            found, total = cascade.faces(tensors, pixels, squares, counts, capacity)
            return found, ops.concatenate([before, total[:, None]], axis=1)

        return self._runtime.compiled(search)

    def _geometry(self, width: int, height: int, bucket: Bucket) -> dict[str, Any]:
        key = (width, height, bucket)
        if key not in self._geometries:
            while len(self._geometries) >= _GEOMETRIES_KEPT:
                del self._geometries[next(iter(self._geometries))]
            put, arrays = self._runtime.put, geometry(width, height, bucket)
            taps = {
                name: [tuple(tuple(map(put, side)) for side in sides) for sides in arrays[name]]
                for name in ("halve", "levels")
            }
            others = {name: put(arrays[name]) for name in ("level_of_cell", "scales", "corners", "last")}
            self._geometries[key] = taps | others
        return self._geometries[key]


def load_device_detector(
    config: DetectionConfig, runtime: Runtime, pictures: Pictures, *, observer: Observer | None = None
) -> DeviceDetector:
    """The cascade on ``runtime``, with the precision that finds the same faces as the processor: fp16 on a GPU.

    Raises:
        ModelError: the weights are missing or damaged.
    """
    precision = config.precision if config.precision != "auto" else "fp16" if runtime.device == "GPU" else "fp32"
    if observer is not None:
        observer.engine_loaded("detect", runtime.name, runtime.device, precision)
    return DeviceDetector(config, runtime, pictures, precision=precision, observer=observer)


def _enough(capacity: Capacity, totals: NDArray[np.int32]) -> Capacity:
    """``capacity``, or one with more room where ``totals`` (cells, proposals, faces) need it."""
    room = [capacity.cells, capacity.proposals, capacity.faces]
    for place, total in enumerate(totals.tolist()):
        while room[place] < total:
            room[place] *= _GROWTH
    return Capacity(*room)


def _detections(found: Floats, up: float) -> Detections:
    """Those of ``found`` (faces, 16) that are there, best first, ``up`` times as large."""
    found = found[found[:, 0] > 0]
    found = found[np.argsort(-found[:, 1], kind="stable")]
    scores = (1 / (1 + np.exp(-found[:, 1]))).astype(np.float32)
    factor = np.float32(up)
    return Detections(found[:, 2:6] * factor, scores, found[:, 6:].reshape(-1, 5, 2) * factor)
