"""How the pyramid of a picture is made: of which pixels each one of a level, and where each level lies on the canvas.

Only the sizes of a :class:`Bucket` are compiled. What tells one picture's size from another's is data, so pictures of
many sizes share what was compiled for the bucket that holds them.
"""

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.faces.detectors.pyramid import BAND_STEP_PX, HALO_PX, Level, level_of_cell, level_sizes, packed

Taps = tuple[NDArray[Any], NDArray[Any]]
"""Places of pixels in a row or column, and what each counts for."""
_WEIGHT: Final = 2048
_COARSE: Final = (64, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 1920, 2432)
_FINE_STEP: Final = 8


@dataclass(frozen=True)
class Bucket:
    """Pictures of up to ``width`` by ``height`` px, and the canvas with their levels."""

    width: int
    height: int
    min_face_px: float

    @functools.cached_property
    def canvas(self) -> tuple[tuple[Level, ...], int, int]:
        """The levels with their places, the canvas' width in px, and how many bands of px high it is."""
        return packed(list(level_sizes(self.width, self.height, self.min_face_px)))

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width, px."""
        _, width, bands = self.canvas
        return bands * BAND_STEP_PX + HALO_PX, width

    @functools.cached_property
    def halvings(self) -> tuple[int, ...]:
        """How many times the picture is halved before each level is made of it: as the canvas of the processor does."""
        times, source_scale, found = 0, 1.0, []
        for level in self.canvas[0]:
            while level.scale * 4 <= source_scale:
                times, source_scale = times + 1, source_scale / 2
            found.append(times)
        return tuple(found)


def bucket_for(width: int, height: int, min_face_px: float, *, many: bool) -> Bucket:
    """The bucket of a picture: a near one where ``many`` of its size come, else one of few."""
    if many:
        return Bucket(_up(width), _up(height), min_face_px)
    return Bucket(_coarse(width), _coarse(height), min_face_px)


def _up(side: int) -> int:
    return -(-side // _FINE_STEP) * _FINE_STEP


def _coarse(side: int) -> int:
    return next((size for size in _COARSE if size >= side), _up(side))


def geometry(width: int, height: int, bucket: Bucket) -> dict[str, Any]:
    """What the cascade must know of pictures of ``width`` by ``height`` px that lie in ``bucket``, as arrays:

    ``halve`` and ``levels``: for rows and for columns what :func:`worker.faces.device.sampling.halved` and
    :func:`worker.faces.device.sampling.level` take; ``level_of_cell`` int32 (cells,); ``scales`` float32 (levels,);
    ``corners`` float32 (levels, 2); ``last`` float32 (2,).
    """
    slots, canvas_width, bands = bucket.canvas
    sizes = list(level_sizes(width, height, bucket.min_face_px))
    deepest = max(bucket.halvings, default=0)
    sides = _halved_sides((height, width), deepest)
    room = _halved_sides((bucket.height, bucket.width), deepest)
    halve = [tuple(_widened(_averages(sides[n][axis]), room[n + 1][axis]) for axis in (0, 1)) for n in range(deepest)]
    levels, here = [], []
    for number, (slot, times) in enumerate(zip(slots, bucket.halvings, strict=True)):
        there = number < len(sizes)
        target = (sizes[number][2], sizes[number][1]) if there else (0, 0)
        shape = (2 * (slot.height + slot.height % 2), 2 * (slot.width + slot.width % 2))
        levels.append(tuple(_widened(_linear(sides[times][axis], target[axis]), shape[axis]) for axis in (0, 1)))
        if there:
            here.append(Level(slot.scale, target[1], target[0], slot.left, slot.top))
    return {
        "halve": halve,
        "levels": levels,
        "level_of_cell": level_of_cell(here, canvas_width, bands).reshape(-1).astype(np.int32),
        "scales": np.array([slot.scale for slot in slots], np.float32),
        "corners": np.array([(slot.left, slot.top) for slot in slots], np.float32).reshape(-1, 2),
        "last": np.array([width - 1, height - 1], np.float32),
    }


def _halved_sides(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    sides = [size]
    for _ in range(times):
        height, width = sides[-1]
        sides.append((-(-height // 2), -(-width // 2)))
    return sides


def _averages(side: int) -> Taps:
    """The three pixels that each pixel of half the ``side``, rounded up, covers, and which share of it each covers."""
    target = -(-side // 2)
    ratio = side / target
    begins, ends = np.arange(target) * ratio, (np.arange(target) + 1) * ratio
    places = np.floor(begins + 1e-6).astype(np.int32) + np.arange(3, dtype=np.int32)[:, None]
    covered = np.minimum(ends, places + 1) - np.maximum(begins, places)
    return np.minimum(places, side - 1), (np.clip(covered, 0, None) / ratio).astype(np.float32)


def _linear(side: int, target: int) -> Taps:
    """The two pixels between which each of ``2 * target`` samples lies, and their weights in 1/2048; the last two come
    twice if there is an odd number of pixels in the level."""
    if target == 0:
        return np.zeros((2, 0), np.int32), np.zeros((2, 0), np.int32)
    places = ((np.arange(2 * target) + 0.5) * (side / (2 * target)) - 0.5).astype(np.float32)
    first = np.floor(places)
    share = places - first
    share[(first < 0) | (first >= side - 1)] = 0
    near = np.clip(first, 0, side - 1).astype(np.int32)
    taps = np.stack([near, np.minimum(near + 1, side - 1)])
    weights = np.rint(np.stack([np.float32(1) - share, share]) * np.float32(_WEIGHT)).astype(np.int32)
    if target % 2:
        taps, weights = (np.concatenate([each, each[:, -2:]], axis=1) for each in (taps, weights))
    return taps, weights


def _widened(taps: Taps, length: int) -> Taps:
    """``taps`` with more at the end that weigh nothing."""
    missing = ((0, 0), (0, length - taps[0].shape[1]))
    return np.pad(taps[0], missing), np.pad(taps[1], missing)
