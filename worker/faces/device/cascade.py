"""The MTCNN cascade (Zhang et al. 2016) for a device: the same steps as :mod:`worker.faces.detectors.mtcnn`, in fixed
capacities and without a loop over faces, so that one compiled function takes a batch of pictures from end to end."""

from dataclasses import dataclass
from typing import Any

from keras import ops

from worker.faces.detectors.mtcnn import (
    IMAGE_NMS,
    LEVEL_NMS,
    OUTPUT_PX,
    OUTPUT_THRESHOLD,
    PROPOSAL_THRESHOLD,
    REFINEMENT_PX,
    REFINEMENT_THRESHOLD,
    logit,
)
from worker.faces.detectors.pyramid import CELL_PX, HALO_PX, STRIDE_PX
from worker.faces.device.geometry import Bucket
from worker.faces.device.sampling import crops, halved, level
from worker.faces.device.selection import overlapped, picked, select
from worker.faces.networks.mtcnn import Part, applied


@dataclass(frozen=True)
class Capacity:
    """How many cells, proposals and faces of a picture there is room for."""

    cells: int
    proposals: int
    faces: int


def proposals(tensors: dict[str, Any], pictures: Any, bucket: Bucket, capacity: Capacity) -> tuple[Any, Any, Any]:
    """Squares float32 (b, proposals, 4) that may hold a face, which of them count, and how many cells (b,) and
    squares (b,) there were in all, int32 (b, 2).

    Args:
        tensors: ``geometry`` (see :func:`worker.faces.device.geometry.geometry`), ``proposal`` (the weights).
        pictures: uint8 (b, 3, H, W).
    """
    geometry = tensors["geometry"]
    maps = _proposal_maps(tensors, pictures, bucket)
    level_of_cell = geometry["level_of_cell"]
    wanted = (maps[..., 0] > logit(PROPOSAL_THRESHOLD)) & (level_of_cell >= 0)[None]
    cells, counts, cell_total = select(wanted, capacity.cells)
    found = ops.cast(picked(maps, cells), "float32")
    in_row = (bucket.canvas_size[1] - HALO_PX) // STRIDE_PX
    levels = ops.relu(ops.take(level_of_cell, cells, axis=0))
    places = ops.cast(ops.stack([cells % in_row, cells // in_row], axis=2), "float32") * float(STRIDE_PX)
    corners = places - ops.take(geometry["corners"], levels, axis=0)
    # A cell covers pixels 2i + 1 to 2i + 12 in the reference implementation, a side of 11.
    windows = ops.concatenate([corners + 1.0, corners + float(CELL_PX)], axis=2)
    scales = ops.take(geometry["scales"], levels, axis=0)[..., None]
    boxes = (windows + found[..., 1:] * float(CELL_PX - 1)) / scales
    scores = found[..., 0]
    counts = counts & ~overlapped(boxes, scores, counts, LEVEL_NMS, groups=levels)
    counts = counts & ~overlapped(boxes, scores, counts, IMAGE_NMS)
    kept, counts, total = select(counts, capacity.proposals)
    return _square(picked(boxes, kept)), counts, ops.stack([cell_total, total], axis=1)


def faces(tensors: dict[str, Any], pictures: Any, squares: Any, counts: Any, capacity: Capacity) -> tuple[Any, Any]:
    """What is known of each place for a face, float32 (b, faces, 16): 1 if there is one, its logit difference, the box,
    the five landmarks as x, y. And how many squares got as far as the
    output network, int32 (b,).

    Args:
        tensors: ``geometry``, ``refinement`` and ``output`` (weights), ``steps_refinement`` and ``steps_output``.
        squares: float32 (b, n, 4) px; ``counts`` bool (b, n) tells which are there.
    """

    def looked_at(part: Part, boxes: Any, side: int) -> Any:
        batch, places = boxes.shape[:2]
        cut = crops(pictures, boxes, tensors["geometry"]["last"], tensors[f"steps_{part}"])
        pixels = ops.reshape(_centred(cut, tensors[part][0].dtype), (batch * places, side, side, 3))
        found = ops.cast(applied(part, tensors[part], pixels), "float32")
        return ops.reshape(found, (batch, places, -1))

    found = looked_at("refinement", squares, REFINEMENT_PX)
    counts = counts & (found[..., 0] > logit(REFINEMENT_THRESHOLD))
    boxes = _adjusted(squares, found[..., 1:])
    counts = counts & ~overlapped(boxes, found[..., 0], counts, IMAGE_NMS)
    kept, counts, total = select(counts, capacity.faces)
    squares = _square(picked(boxes, kept))
    found = looked_at("output", squares, OUTPUT_PX)
    counts = counts & (found[..., 0] > logit(OUTPUT_THRESHOLD))
    boxes = _adjusted(squares, found[..., 1:5])
    counts = counts & ~overlapped(boxes, found[..., 0], counts, IMAGE_NMS, by_smaller=True)
    # The network gives the five x, then the five y.
    batch, places = boxes.shape[:2]
    shares = ops.transpose(ops.reshape(found[..., 5:], (batch, places, 2, 5)), (0, 1, 3, 2))
    sides = squares[..., None, 2:] - squares[..., None, :2] + 1.0
    landmarks = ops.reshape(shares * sides + squares[..., None, :2] - 1.0, (batch, places, 10))
    there = ops.cast(counts, "float32")[..., None]
    return ops.concatenate([there, found[..., :1], boxes, landmarks], axis=2), total


def _proposal_maps(tensors: dict[str, Any], pictures: Any, bucket: Bucket) -> Any:
    """What the proposal network gives for each cell of the canvas, (b, cells, 5)."""
    geometry = tensors["geometry"]
    slots, _, _ = bucket.canvas
    sources = [pictures]
    for rows, columns in geometry["halve"]:
        sources.append(halved(sources[-1], rows, columns))
    height, width = bucket.canvas_size
    canvas = ops.zeros((pictures.shape[0], 3, height, width), "uint8")
    for slot, times, (rows, columns) in zip(slots, bucket.halvings, geometry["levels"], strict=True):
        canvas = ops.slice_update(canvas, (0, 0, slot.top, slot.left), level(sources[times], rows, columns))
    pixels = _centred(ops.transpose(canvas, (0, 2, 3, 1)), tensors["proposal"][0].dtype)
    maps = applied("proposal", tensors["proposal"], pixels)
    return ops.reshape(maps, (pictures.shape[0], -1, 5))


def _centred(pixels: Any, dtype: Any) -> Any:
    return ops.cast((ops.cast(pixels, "float32") - 127.5) * (1 / 128), dtype)


def _adjusted(squares: Any, offsets: Any) -> Any:
    sides = squares[..., 2:] - squares[..., :2] + 1.0
    return squares + offsets * ops.concatenate([sides, sides], axis=-1)


def _square(boxes: Any) -> Any:
    half = ops.max(boxes[..., 2:] - boxes[..., :2], axis=-1, keepdims=True) * 0.5
    centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5
    return ops.concatenate([centre - half, centre + half], axis=-1)
