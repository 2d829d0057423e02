"""Find faces and their landmarks in batches of pictures: the MTCNN cascade (Zhang et al. 2016).

The networks and the arithmetic between them follow the ``mtcnn`` 1.0.0 package, as it runs with ``min_face_size=20`` on
one image at a time; the weights are its own. Its batching, its pyramid and its handling of input are not followed.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker import boxes as box
from worker.config import DetectionConfig
from worker.faces.detectors.one_by_one import require_images
from worker.faces.detectors.pyramid import CELL_PX, Canvas
from worker.faces.engines import choose_engine
from worker.faces.networks import conversion, mtcnn
from worker.observer import Observer
from worker.types import Detections, Image

Network = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], ...]]
"""A batch of uint8 pixels in, float32 arrays out; see :mod:`worker.faces.networks.mtcnn`."""

MTCNN_BUILDER: Final = "worker.faces.networks.mtcnn:build"
PROPOSAL_THRESHOLD: Final = 0.6
REFINEMENT_THRESHOLD: Final = 0.7
OUTPUT_THRESHOLD: Final = 0.8
LEVEL_NMS: Final = 0.5
IMAGE_NMS: Final = 0.7
REFINEMENT_PX: Final = 24
OUTPUT_PX: Final = 48
_CANVASES_KEPT: Final = 8
_MOVES: Final = 0.15 * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], np.float32)
TRIES: Final = len(_MOVES)
_BACKGROUND: Final = (128, 128, 128)
"""What lies outside an image: zero once pixels are normalised."""


def logit(score: float) -> float:
    """The logit difference at which a softmax of two classes gives ``score``."""
    return math.log(score / (1 - score))


class MtcnnDetector:
    """Finds the faces of at least ``config.min_face_px`` in batches of images of any sizes.

    Each image's faces are the same whatever else is in the batch. Not safe for concurrent calls.

    Args:
        proposal, refinement, output: the three networks, on any engine.
        config: smallest face, largest picture. ``score_threshold`` is the tracker's business: every face that the
            cascade accepts (score above 0.8) is returned.
    """

    def __init__(
        self,
        proposal: Network,
        refinement: Network,
        output: Network,
        config: DetectionConfig,
        *,
        observer: Observer | None = None,
    ) -> None:
        self.proposal = proposal
        self.refinement = refinement
        self.output = output
        self._min_face_px = config.min_face_px
        self._max_side_px = config.max_side_px
        self._observer = observer or Observer()
        self._canvas = functools.lru_cache(_CANVASES_KEPT)(Canvas)

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """The faces of each image, best score first, in px of that image.

        Boxes may reach beyond the image's edges. An image smaller than the smallest face has none.

        Args:
            images: each uint8 (H, W, 3), RGB; sizes may differ.

        Raises:
            ValueError: an image is not uint8 (H, W, 3); the message says which.
        """
        require_images(images)
        if not images:
            return []
        self._observer.batch("detect", len(images))
        with self._observer.stage("detect"):
            return self._cascade(images)

    def _cascade(self, images: Sequence[Image]) -> list[Detections]:
        scales = [min(1.0, self._max_side_px / max(1, *image.shape[:2])) for image in images]
        scaled = [scaled_down(image, scale) for image, scale in zip(images, scales, strict=True)]
        proposed = [
            self._propose(image, self._min_face_px * scale) for image, scale in zip(scaled, scales, strict=True)
        ]
        owners = np.repeat(np.arange(len(images)), [len(found) for found in proposed])
        squares = np.concatenate(proposed)
        owners, boxes, scores, landmarks = self._finish(scaled, *self._refine(scaled, owners, squares))
        up = np.array([1 / scale for scale in scales], np.float32)[owners]
        boxes, landmarks = boxes * up[:, None], landmarks * up[:, None, None]
        return _each(len(images), owners, boxes, scores, landmarks)

    def follow(self, images: Sequence[Image], expected: Sequence[NDArray[np.float32]]) -> list[Detections]:
        """The faces of each image at or near the boxes where they are expected, at a fraction of a search's cost.

        The cascade without its proposal network: a face that is not expected is not found.

        Args:
            images: each uint8 (H, W, 3), RGB.
            expected: boxes float32 (n, 4) px, one array for each image.
        """
        if not any(map(len, expected)):
            return [Detections.empty() for _ in images]
        with self._observer.stage("follow"):
            squares = box.square(np.concatenate([around(boxes) for boxes in expected]))
            owners = np.repeat(np.arange(len(images)), [len(boxes) * TRIES for boxes in expected])
            return _each(len(images), *self._finish(images, *self._refine(images, owners, squares)))

    def _propose(self, image: Image, min_face_px: float) -> NDArray[np.float32]:
        """Squares (n, 4) that may hold a face."""
        canvas = self._canvas(image.shape[1], image.shape[0], max(min_face_px, CELL_PX))
        if not canvas.levels:
            return np.empty((0, 4), np.float32)
        canvas.draw(image)
        (maps,) = self.proposal(canvas.bands)
        maps = maps.reshape(-1, 5)
        cells = np.flatnonzero(maps[:, 0] > logit(PROPOSAL_THRESHOLD))
        inside, levels, corners = canvas.windows(cells)
        found = maps[cells[inside]]
        # A cell covers pixels 2i + 1 to 2i + 12 in the reference implementation, a side of 11.
        windows = np.concatenate([corners + 1, corners + CELL_PX], axis=1)
        boxes = (windows + found[:, 1:] * (CELL_PX - 1)) / canvas.scales(levels)[:, None]
        scores = found[:, 0]
        kept = box.nms(boxes, scores, LEVEL_NMS, groups=levels)
        boxes, scores = boxes[kept], scores[kept]
        return box.square(boxes[box.nms(boxes, scores, IMAGE_NMS)])

    def _refine(
        self, images: Sequence[Image], owners: NDArray[np.intp], squares: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Owners and squares of the proposals that the refinement network takes for faces."""
        if not len(squares):
            return owners, squares
        (found,) = self.refinement(cut_out(images, owners, squares, REFINEMENT_PX))
        passed = found[:, 0] > logit(REFINEMENT_THRESHOLD)
        owners, squares, found = owners[passed], squares[passed], found[passed]
        boxes = _adjusted(squares, found[:, 1:])
        kept = box.nms(boxes, found[:, 0], IMAGE_NMS, groups=owners)
        return owners[kept], box.square(boxes[kept])

    def _finish(
        self, images: Sequence[Image], owners: NDArray[np.intp], squares: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Owners, boxes, scores and landmarks of the faces, best first."""
        if not len(squares):
            none = Detections.empty()
            return owners, none.boxes, none.scores, none.landmarks
        (found,) = self.output(cut_out(images, owners, squares, OUTPUT_PX))
        passed = found[:, 0] > logit(OUTPUT_THRESHOLD)
        owners, squares, found = owners[passed], squares[passed], found[passed]
        boxes = _adjusted(squares, found[:, 1:5])
        # The network gives the five x, then the five y.
        places = found[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1)
        sides = squares[:, None, 2:] - squares[:, None, :2] + 1
        landmarks = places * sides + squares[:, None, :2] - 1
        kept = box.nms(boxes, found[:, 0], IMAGE_NMS, groups=owners, overlap="min")
        scores = 1 / (1 + np.exp(-found[kept, 0]))
        return owners[kept], boxes[kept], scores, landmarks[kept]


def _each(
    count: int,
    owners: NDArray[np.intp],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    landmarks: NDArray[np.float32],
) -> list[Detections]:
    own = [np.flatnonzero(owners == index) for index in range(count)]
    return [Detections(boxes[index], scores[index], landmarks[index]) for index in own]


def around(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each box where it is expected and moved by a share of its size in every direction (TRIES n, 4)."""
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved: NDArray[np.float32] = (boxes[:, None] + np.tile(_MOVES, 2)[None] * sizes[:, None]).reshape(-1, 4)
    return moved


def scaled_down(image: Image, scale: float) -> Image:
    if scale == 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _adjusted(squares: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes moved by offsets in units of their sides plus one, as the reference implementation has it."""
    sides = squares[:, 2:] - squares[:, :2] + 1
    return squares + offsets * np.tile(sides, 2)


def cut_out(
    images: Sequence[Image], owners: NDArray[np.intp], squares: NDArray[np.float32], side: int
) -> NDArray[np.uint8]:
    """uint8 (n, side, side, 3): each square of its image, corner-aligned bilinear, grey outside the image.

    The same samples as ``tf.image.crop_and_resize``, which scales coordinates by (side - 1) / side of the image and
    gives nothing of the border to a sample that lies outside.
    """
    crops = np.empty((len(squares), side, side, 3), np.uint8)
    steps = np.linspace(0, 1, side, dtype=np.float32)
    for index in np.unique(owners):
        image, own = images[index], np.flatnonzero(owners == index)
        corners, sides = squares[own, :2], squares[own, 2:] - squares[own, :2]
        places = corners[:, :, None] + sides[:, :, None] * steps
        last = np.array([image.shape[1] - 1, image.shape[0] - 1], np.float32)[:, None]
        places = (places * (last / (last + 1))).astype(np.float32)
        places[(places < 0) | (places > last)] = -2
        shape = (len(own), side, side)
        across = np.broadcast_to(places[:, 0, None, :], shape).reshape(len(own), -1)
        down = np.broadcast_to(places[:, 1, :, None], shape).reshape(len(own), -1)
        cut = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_BACKGROUND)
        crops[own] = cut.reshape(*shape, 3)
    return crops


def load_mtcnn(
    config: DetectionConfig,
    *,
    cache_dir: Path,
    engine: str = "auto",
    threads: int = 0,
    observer: Observer | None = None,
) -> MtcnnDetector:
    """The cascade with its networks ready to run.

    Args:
        cache_dir: where converted networks are kept; a start that finds them there loads no TensorFlow.
        engine: ``openvino``, which ``auto`` stands for, or ``keras`` (TensorFlow).
        threads: of the engine; 0 leaves it to it.

    Raises:
        ModelError: the engine cannot run the networks, their weights are missing or damaged, or cannot be converted.
    """
    make = _keras_networks if choose_engine("face detection", "h5", engine) == "keras" else _openvino_networks
    proposal, refinement, output = make(config, cache_dir, threads, observer or Observer())
    return MtcnnDetector(proposal, refinement, output, config, observer=observer)


def _openvino_networks(config: DetectionConfig, cache_dir: Path, threads: int, observer: Observer) -> list[Network]:
    from worker.faces.engines import openvino

    paths = conversion.converted_networks(
        MTCNN_BUILDER, [{"part": part} for part in _CHUNKS], mtcnn.DEFINITION, cache_dir
    )
    precision = openvino.best_precision() if config.precision == "auto" else config.precision
    observer.engine_loaded("detect", "openvino", openvino.OpenVinoNetwork.device, precision)
    return [
        openvino.OpenVinoNetwork(path, precision=precision, threads=threads, cache_dir=cache_dir, chunk=chunk)
        for path, chunk in zip(paths, _CHUNKS.values(), strict=True)
    ]


def _keras_networks(config: DetectionConfig, _cache_dir: Path, _threads: int, observer: Observer) -> list[Network]:
    from worker.faces.engines import keras

    precision = keras.best_precision() if config.precision == "auto" else config.precision
    observer.engine_loaded("detect", "keras", "GPU" if keras.gpu_count() else "CPU", precision)
    return [
        _in_few_sizes(keras.KerasNetwork(MTCNN_BUILDER, {"part": part}, precision=precision), chunk)
        for part, chunk in _CHUNKS.items()
    ]


def _in_few_sizes(network: Network, smallest: int) -> Network:
    """Fills batches up to a power of two times ``smallest``, since every size is compiled on its own."""

    def filled_up(batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        size = smallest << max(0, math.ceil(math.log2(len(batch) / smallest)))
        padding = np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)
        return tuple(found[: len(batch)] for found in network(np.concatenate([batch, padding])))

    return filled_up


_CHUNKS: Final[dict[mtcnn.Part, int]] = {"proposal": 1, "refinement": 128, "output": 16}
"""Items that a network takes at once: fixed, so that a face's result does not depend on the batch around it."""
