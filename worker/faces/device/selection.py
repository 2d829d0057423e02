"""Choosing among many: places of what a mask shows, and which boxes fall to better ones, without a loop."""

from typing import Any, Final

from keras import ops

_BLOCK: Final = 128


def select(mask: Any, capacity: int) -> tuple[Any, Any, Any]:
    """The places at which ``mask`` bool (b, n) is true, in order, as far as ``capacity`` goes.

    Returns:
        places int32 (b, capacity), which of them count bool (b, capacity), and how many there are in all, int32 (b,).
        If there are more than ``capacity``, the last ones are missing.
    """
    batch, length = mask.shape
    blocks = -(-length // _BLOCK)
    padded = ops.pad(mask, ((0, 0), (0, blocks * _BLOCK - length)), constant_values=False)
    padded = ops.cast(ops.reshape(padded, (batch * blocks, _BLOCK)), "int32")
    counts = ops.reshape(ops.sum(padded, axis=1), (batch, blocks))
    ends = ops.cumsum(counts, axis=1)
    slots = ops.arange(capacity, dtype="int32")[None, :]
    block = ops.sum(ops.cast(ends[:, None, :] <= slots[:, :, None], "int32"), axis=2)
    block = ops.minimum(block, blocks - 1)
    first = ops.take(ops.reshape(ends - counts, (-1,)), own_rows(block, blocks), axis=0)
    inside = ops.cumsum(ops.take(padded, own_rows(block, blocks), axis=0), axis=2)
    offset = ops.sum(ops.cast(inside <= (slots - first)[:, :, None], "int32"), axis=2)
    total = ends[:, -1]
    places = ops.minimum(block * _BLOCK + offset, length - 1)
    return places, slots < total[:, None], total


def own_rows(places: Any, length: int) -> Any:
    """``places`` int32 (b, ...) within the ``length`` rows of each item, counted over all items."""
    batch = places.shape[0]
    first = ops.reshape(ops.arange(batch, dtype="int32") * length, (batch, *(1 for _ in places.shape[1:])))
    return places + first


def picked(values: Any, places: Any) -> Any:
    """``values`` (b, n, ...) at ``places`` int32 (b, k): (b, k, ...)."""
    batch, length, *rest = values.shape
    return ops.take(ops.reshape(values, (batch * length, *rest)), own_rows(places, length), axis=0)


def overlapped(
    boxes: Any, scores: Any, counts: Any, threshold: float, *, groups: Any = None, by_smaller: bool = False
) -> Any:
    """Which boxes a better one of the same group overlaps by more than ``threshold``: bool (b, n).

    The rule of :func:`worker.boxes.nms`, in which a box falls to any better box, even to one that falls itself.

    Args:
        boxes: float32 (b, n, 4).
        scores: float32 (b, n); of equal ones the earlier is the better.
        counts: bool (b, n): the boxes that are there.
        groups: int32 (b, n).
        by_smaller: divide by the smaller area in place of the union.
    """
    x1, y1, x2, y2 = (boxes[..., side] for side in range(4))
    own, other = (slice(None), slice(None), None), (slice(None), None, slice(None))
    across = ops.relu(ops.minimum(x2[own], x2[other]) - ops.maximum(x1[own], x1[other]))
    down = ops.relu(ops.minimum(y2[own], y2[other]) - ops.maximum(y1[own], y1[other]))
    shared = across * down
    areas = (x2 - x1) * (y2 - y1)
    whole = ops.minimum(areas[own], areas[other]) if by_smaller else areas[own] + areas[other] - shared
    place = ops.arange(boxes.shape[1], dtype="int32")
    earlier = (place[None, :] < place[:, None])[None]
    better = (scores[other] > scores[own]) | ((scores[other] == scores[own]) & earlier)
    falls = better & counts[other] & (shared > threshold * whole) & (whole > 0)
    if groups is not None:
        falls = falls & (groups[own] == groups[other])
    return ops.any(falls, axis=2)
