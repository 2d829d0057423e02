"""Pictures on the device: each goes up once, whichever of detector and embedder asks for it first."""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from keras import ops

from worker.faces.device.runtimes import Runtime
from worker.faces.device.sampling import channels_first, rgb
from worker.types import LazyImage, Picture, Planes

BATCH_SIZES: Final = (1, 2, 4, 8, 16)
"""The only numbers of pictures that are compiled; a batch is filled up with empty ones."""
_BATCHES_KEPT: Final = 32
"""At most: those of whose pictures none is used any more are forgotten at once."""
_BLANKS_KEPT: Final = 8
_FULL_RANGE: Final = 2
_BT601: Final = (104597, 132201, 25675, 53279)
_MATRICES: Final = {
    1: (117489, 138438, 13975, 34925),
    4: (104448, 132798, 24759, 53109),
    7: (117579, 136230, 16907, 35559),
    9: (110013, 140363, 12277, 42626),
    10: (110013, 140363, 12277, 42626),
}
"""What red, blue and green take of the colour planes, in 1/65536, by FFmpeg's ``AVColorSpace``; others are BT.601."""


@dataclass(frozen=True)
class OnDevice:
    """``pixels``: a tensor uint8 (batch, 3, H, W) with pictures of ``width`` by ``height`` px in its corner; ``last``:
    a tensor float32 (2,) with the place of their last pixel."""

    pixels: Any
    last: Any
    width: int
    height: int

    @property
    def batch(self) -> int:
        return int(self.pixels.shape[0])


class Pictures:
    """Uploads pictures, and knows those of the last batches again. Not safe for concurrent calls."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._kept: deque[tuple[list[weakref.ref[Picture]], OnDevice]] = deque(maxlen=_BATCHES_KEPT)
        self._stacks: dict[tuple[bool, int, int, int], Any] = {}
        self._empty: dict[tuple[int, ...], Any] = {}

    def upload(self, images: Sequence[Picture], width: int, height: int) -> OnDevice:
        """``images`` of one size, uint8 (H, W, 3) or all of them planes, in the corner of pictures of ``width`` by
        ``height`` px."""
        self._kept = deque((kept for kept in self._kept if any(ref() is not None for ref in kept[0])), _BATCHES_KEPT)
        for known, on_device in self._kept:
            same = len(known) == len(images) and all(ref() is image for ref, image in zip(known, images, strict=True))
            if same and on_device.pixels.shape[2:] == (height, width):
                return on_device
        batch = next(size for size in BATCH_SIZES if size >= len(images))
        filling = batch - len(images)
        if any(isinstance(image, LazyImage) for image in images):
            planes = [image.planes for image in images if isinstance(image, LazyImage)]
            luma_and_chroma = [[np.ascontiguousarray(each.planes[number]) for each in planes] for number in range(3)]
            colours = np.array([colours_of(each) for each in planes] + [(0,) * 6] * filling, np.int32)
            *columns, there = self._runtime.put([*luma_and_chroma, colours])
            for column, plane in zip(columns, planes[0].planes, strict=True):
                column += [self._blank(plane.shape)] * filling
            pixels = self._stacked(True, (*columns, there), width, height)
        else:
            arrays = [np.ascontiguousarray(image) for image in images if not isinstance(image, LazyImage)]
            tensors = self._runtime.put(arrays)
            pixels = self._stacked(False, (tensors + [self._blank(images[0].shape)] * filling,), width, height)
        shown_height, shown_width = images[0].shape[:2]
        last = self._runtime.put(np.array([shown_width - 1, shown_height - 1], np.float32))
        on_device = OnDevice(pixels, last, shown_width, shown_height)
        self._kept.append(([weakref.ref(image) for image in images], on_device))
        return on_device

    def find(self, image: Picture) -> tuple[OnDevice, int] | None:
        """Where ``image`` lies on the device, if it is among those of the last batches."""
        for known, on_device in reversed(self._kept):
            for place, ref in enumerate(known):
                if ref() is image:
                    return on_device, place
        return None

    def _stacked(self, planar: bool, tensors: tuple[Any, ...], width: int, height: int) -> Any:
        """``tensors``: pictures of RGB, or three lists of planes and the colours of each picture."""
        key = (planar, len(tensors[0]), width, height)
        if key not in self._stacks:

            def stacked(tensors: tuple[Any, ...]) -> Any:
                if planar:
                    luma, u, v = (ops.stack(column) for column in tensors[:3])
                    pixels = rgb(luma, u, v, tensors[3])
                else:
                    pixels = channels_first(ops.stack(tensors[0]))
                _, _, shown_height, shown_width = pixels.shape
                padding = ((0, 0), (0, 0), (0, height - shown_height), (0, width - shown_width))
                return ops.pad(pixels, padding)

            self._stacks[key] = self._runtime.compiled(stacked)
        return self._stacks[key](tensors)

    def _blank(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._empty:
            while len(self._empty) >= _BLANKS_KEPT:
                del self._empty[next(iter(self._empty))]
            self._empty[shape] = self._runtime.put(np.zeros(shape, np.uint8))
        return self._empty[shape]


def colours_of(planes: Planes) -> tuple[int, int, int, int, int, int]:
    """What :func:`worker.faces.device.sampling.rgb` must know of a picture: the darkest grey value, then in 1/8192 what
    a step of grey is worth, and what red takes of V, green of U and of V, and blue of U.

    As FFmpeg computes them, so that every pixel is the one that the processor gets.
    """
    red, blue, green_u, green_v = _MATRICES.get(planes.matrix, _BT601)
    if planes.colour_range == _FULL_RANGE or planes.form == "yuvj420p":
        darkest, step = 0, 65536
        red, blue, green_u, green_v = (each * 224 // 255 for each in (red, blue, green_u, green_v))
    else:
        darkest, step = 16, 65536 * 255 // 219
    eighths = [(each + 4) // 8 for each in (step, red, green_u, green_v, blue)]
    return darkest, eighths[0], eighths[1], -eighths[2], -eighths[3], eighths[4]


_shared: Final[dict[tuple[str, str], Pictures]] = {}


def pictures_on(runtime: Runtime) -> Pictures:
    """Those that the detector and the embedder of this process share."""
    return _shared.setdefault((runtime.name, runtime.device), Pictures(runtime))
