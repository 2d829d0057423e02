"""Geometry of boxes, in pure NumPy.

Boxes are (n, 4) arrays of x1, y1, x2, y2 in px, x2 and y2 exclusive; n = 0 is fine everywhere.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]
Overlap = Literal["union", "min"]


def area(boxes: Boxes) -> Boxes:
    """Area of each box, (n,) px²."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union of each box of ``a`` (n, 4) with the one of ``b`` (n, 4) beside it: (n,), 0..1."""
    return _overlap(a, b, "union")


def iou_matrix(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union of each box of ``a`` (n, 4) with each of ``b`` (m, 4): (n, m), 0..1."""
    return _overlap(a[:, None, :], b[None, :, :], "union")


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """The boxes cut off at the edges of a picture of ``width`` by ``height`` px."""
    limit = np.array([width, height, width, height], boxes.dtype)
    return np.clip(boxes, 0, limit)


def square(boxes: Boxes) -> Boxes:
    """Squares with the boxes' centres and longer sides."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0) / 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def expand(boxes: Boxes, factor: float) -> Boxes:
    """The boxes enlarged about their centres: sides times ``factor``."""
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def centres_in(boxes: Boxes, outline: Sequence[tuple[float, float]], width: float, height: float) -> NDArray[np.bool_]:
    """Which boxes, (n,), have their centre within ``outline``: its corners are shares of ``width`` and ``height``.

    A centre is within if a line from it to the right crosses the outline an odd number of times.
    """
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / (2 * np.array([width, height]))).T[:, :, None]
    corners = np.array(outline)
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    inside: NDArray[np.bool_] = crossed.sum(axis=1) % 2 == 1
    return inside


def nearest_to_centre(boxes: Boxes, width: float, height: float) -> int:
    """Index of the box whose centre is nearest to the centre of a picture of ``width`` by ``height`` px.

    There must be one box or more.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.argmin(np.square(centres - np.array([width / 2, height / 2])).sum(axis=1)))


def nms(
    boxes: Boxes,
    scores: NDArray[np.floating],
    threshold: float,
    *,
    groups: NDArray[np.integer] | None = None,
    overlap: Overlap = "union",
) -> NDArray[np.intp]:
    """Indices of the boxes that no higher-scored box of the same group overlaps by more than ``threshold``.

    This is the rule of the MTCNN reference implementation: a box is dropped for *any* better box, even for one that is
    dropped itself, so no loop is needed. Of two boxes with equal scores, the earlier one counts as better.

    Args:
        boxes: (n, 4).
        scores: (n,).
        threshold: overlap, 0..1.
        groups: (n,) integers; boxes of different groups (images, pyramid levels) never meet. Default: one group.
        overlap: what the intersection is divided by: the union of the two, or the smaller of them.

    Returns:
        (k,) indices, best score first.
    """
    ranked = np.argsort(-scores, kind="stable")
    if len(ranked) < 2:
        return ranked
    better, worse = _close_pairs(boxes, ranked, threshold if overlap == "union" else 0.0, groups)
    falls = _overlap(boxes[better], boxes[worse], overlap) > threshold
    kept = np.ones(len(boxes), bool)
    kept[worse[falls]] = False
    return ranked[kept[ranked]]


def _overlap(a: Boxes, b: Boxes, overlap: Overlap) -> Boxes:
    """Overlap of boxes, broadcast; the last axis holds the coordinates. A box without area overlaps nothing."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    np.maximum(sides, 0, out=sides)
    shared = sides[..., 0] * sides[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    whole = area_a + area_b - shared if overlap == "union" else np.minimum(area_a, area_b)
    ratio: Boxes = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return ratio


def _close_pairs(
    boxes: Boxes, ranked: NDArray[np.intp], threshold: float, groups: NDArray[np.integer] | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (better, worse) of one group that can overlap by more than ``threshold`` of their union.

    If two boxes overlap by more than t, the right one starts within (1 - t) widths of the left one. So with the boxes
    sorted by their left edges, the possible partners of each are one run: the number of pairs grows with how crowded
    the picture is, not with the square of the number of boxes.
    """
    left = boxes[:, 0].astype(np.float64)
    reach = (1 - threshold) * (boxes[:, 2] - boxes[:, 0]).clip(0)
    if groups is not None:
        span = left.max() - left.min() + reach.max() + 1
        left = left + groups * span
    order = np.argsort(left, kind="stable")
    left = left[order]
    ends = np.searchsorted(left, left + reach[order], side="right")
    counts = ends - np.arange(1, len(left) + 1)
    first = np.repeat(np.arange(len(left)), counts)
    runs = np.repeat(np.cumsum(counts) - counts, counts)
    second = first + 1 + np.arange(len(first)) - runs
    first, second = order[first], order[second]
    meet = (boxes[first, 1] < boxes[second, 3]) & (boxes[second, 1] < boxes[first, 3])
    first, second = first[meet], second[meet]
    rank = np.empty_like(ranked)
    rank[ranked] = np.arange(len(ranked))
    swap = rank[first] > rank[second]
    return np.where(swap, second, first), np.where(swap, first, second)
