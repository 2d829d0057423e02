"""The image pyramid of MTCNN laid out on one canvas, so that the proposal network runs once for all levels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from worker.types import Image

CELL_PX: Final = 12
"""Side of the proposal network's window."""
STRIDE_PX: Final = 2
SCALE_FACTOR: Final = 0.709
"""Between successive levels: half the area (Zhang et al. 2016)."""

HALO_PX: Final = CELL_PX - STRIDE_PX
BAND_STEP_PX: Final = 128
BAND_PX: Final = BAND_STEP_PX + HALO_PX
"""Rows that the proposal network sees at once: few enough for its layers to stay in the processor's cache."""
_WIDTH_STEP_PX: Final = 64
"""Canvases come in few widths, since each width is compiled once."""


@dataclass(frozen=True, slots=True)
class Level:
    """One scaled copy of the image: ``width`` by ``height`` px at ``left``, ``top`` of the canvas."""

    scale: float
    width: int
    height: int
    left: int
    top: int


def level_sizes(width: int, height: int, min_face_px: float) -> Iterator[tuple[float, int, int]]:
    """Scale, width and height of each level, largest first, none with a side shorter than :data:`CELL_PX`."""
    scale = min(CELL_PX / min_face_px, 1.0)
    while min(int(width * scale), int(height * scale)) >= CELL_PX:
        yield scale, int(width * scale), int(height * scale)
        scale *= SCALE_FACTOR


class Canvas:
    """The levels of images of one size, side by side, and the way back from a cell to a place in the image.

    The buffer is written anew by each :meth:`draw`; not safe for concurrent use.
    """

    def __init__(self, width: int, height: int, min_face_px: float) -> None:
        sizes = list(level_sizes(width, height, min_face_px))
        self.levels, canvas_width, bands = packed(sizes)
        rows = bands * BAND_STEP_PX + HALO_PX if bands else 0
        self._pixels = np.zeros((rows, canvas_width, 3), np.uint8)
        self._samples = np.empty(max((12 * w * h for _, w, h in sizes), default=0), np.uint8)
        step, *inner = self._pixels.strides
        self.bands: Image = as_strided(
            self._pixels, (bands, BAND_PX, canvas_width, 3), (BAND_STEP_PX * step, step, *inner)
        )
        """uint8 (bands, BAND_PX, W, 3) view of the canvas; neighbours share the rows that a window needs of both."""
        cells = level_of_cell(self.levels, canvas_width, bands)
        self._level_of_cell = cells.reshape(-1)
        self._cells_in_row = cells.shape[1]
        self._scales = np.array([level.scale for level in self.levels], np.float32)
        self._corners = np.array([(level.left, level.top) for level in self.levels], np.float32).reshape(-1, 2)

    def draw(self, image: Image) -> None:
        """Fills the canvas with the levels of ``image``."""
        source, source_scale = image, 1.0
        for level in self.levels:
            # Averaging by area is slow at odd ratios; four linear samples a pixel come as near as the faces need,
            # as long as they do not lie more than two pixels of the source apart.
            while level.scale * 4 <= source_scale:
                source, source_scale = _halved(source), source_scale / 2
            width, height = level.width, level.height
            samples = self._samples[: 12 * width * height].reshape(2 * height, 2 * width, 3)
            cv2.resize(source, (2 * width, 2 * height), dst=samples, interpolation=cv2.INTER_LINEAR)
            rows, columns = slice(level.top, level.top + height), slice(level.left, level.left + width)
            cv2.resize(samples, (width, height), dst=self._pixels[rows, columns], interpolation=cv2.INTER_AREA)
            # The last window of an odd side reaches one pixel beyond it.
            if width % 2:
                self._pixels[rows, columns.stop] = self._pixels[rows, columns.stop - 1]
            if height % 2:
                self._pixels[rows.stop, columns] = self._pixels[rows.stop - 1, columns]

    def windows(self, cells: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int8], NDArray[np.float32]]:
        """Where the ``cells`` (flat indices into the proposal maps of all bands) lie in the image.

        Returns:
            the positions in ``cells`` of those that lie in a level, their levels, and their windows' corners
            (k, 2) in px of the level.
        """
        levels = self._level_of_cell[cells]
        inside = np.flatnonzero(levels >= 0)
        levels = levels[inside]
        rows, columns = np.divmod(cells[inside], self._cells_in_row)
        corners = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE_PX - self._corners[levels]
        return inside, levels, corners

    def scales(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        """The scale of each of ``levels``."""
        return self._scales[levels]


def _halved(image: Image) -> Image:
    size = (-(-image.shape[1] // 2), -(-image.shape[0] // 2))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def level_of_cell(levels: Sequence[Level], canvas_width: int, bands: int) -> NDArray[np.int8]:
    """int8 (rows, columns): to which of ``levels`` each cell of the proposal map belongs; -1 for none."""
    cells = np.full((bands * BAND_STEP_PX // STRIDE_PX, (canvas_width - HALO_PX) // STRIDE_PX), -1, np.int8)
    for number, level in enumerate(levels):
        top, left = level.top // STRIDE_PX, level.left // STRIDE_PX
        cells[top : top + _cells(level.height), left : left + _cells(level.width)] = number
    return cells


def _cells(side_px: int) -> int:
    return (side_px - 1) // 2 - 4


def packed(sizes: list[tuple[float, int, int]]) -> tuple[tuple[Level, ...], int, int]:
    """Levels with their places, canvas width and number of bands, for the canvas of fewest pixels."""
    if not sizes:
        return (), _WIDTH_STEP_PX, 0
    widest = -(-sizes[0][1] // _WIDTH_STEP_PX) * _WIDTH_STEP_PX
    best: tuple[tuple[Level, ...], int, int] | None = None
    for canvas_width in range(widest, 2 * widest + 1, _WIDTH_STEP_PX):
        levels = _placed(sizes, canvas_width)
        height = max(level.top + level.height for level in levels)
        bands = max(1, -(-(height - HALO_PX) // BAND_STEP_PX))
        if best is None or bands * canvas_width < best[1] * best[2]:
            best = levels, canvas_width, bands
    assert best is not None  # noqa: S101 - the loop runs at least once
    return best


def _placed(sizes: list[tuple[float, int, int]], canvas_width: int) -> tuple[Level, ...]:
    """Each level in turn at the highest free place, then the leftmost (bottom-left skyline packing)."""
    skyline = np.zeros(canvas_width // 2 + 1, np.int64)
    levels = []
    for scale, width, height in sizes:
        span = (width + 1) // 2
        tops = np.lib.stride_tricks.sliding_window_view(skyline[: canvas_width // 2], span).max(axis=1)
        column = int(tops.argmin())
        top = int(tops[column])
        skyline[column : column + span] = top + height + height % 2
        levels.append(Level(scale, width, height, 2 * column, top))
    return tuple(levels)
