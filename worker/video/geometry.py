"""How a picture must be turned, mirrored and stretched until it is upright and its pixels are square."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.config import CameraConfig

Turn = tuple[int, int, int, int]
"""``a, b, c, d``: the pixel at (x, y) is shown at (a*x + c*y, b*x + d*y), with y downwards. One of :data:`TURNS`."""

AS_IT_IS: Final[Turn] = (1, 0, 0, 1)
_CLOCKWISE: Final[Turn] = (0, 1, -1, 0)
_TURN_ABOUT: Final[Turn] = (-1, 0, 0, -1)
_COUNTERCLOCKWISE: Final[Turn] = (0, -1, 1, 0)
_MIRROR: Final[Turn] = (-1, 0, 0, 1)
_UPSIDE_DOWN: Final[Turn] = (1, 0, 0, -1)
_TRANSPOSE: Final[Turn] = (0, 1, 1, 0)
_TRANSVERSE: Final[Turn] = (0, -1, -1, 0)
TURNS: Final = (
    AS_IT_IS, _CLOCKWISE, _TURN_ABOUT, _COUNTERCLOCKWISE, _MIRROR, _UPSIDE_DOWN, _TRANSPOSE, _TRANSVERSE,
)  # fmt: skip
_ROTATIONS: Final = {0: AS_IT_IS, 90: _CLOCKWISE, 180: _TURN_ABOUT, 270: _COUNTERCLOCKWISE}
_FLIPS: Final = {"none": AS_IT_IS, "horizontal": _MIRROR, "vertical": _UPSIDE_DOWN}

_SKEW: Final = 0.02
"""What a matrix may differ from one of the eight before it counts as another one: about a degree."""
_WIDEST: Final = 4
_NEARLY_SQUARE: Final = 0.01
"""Pixels this near to square are left alone: the header rounds, and no face network can tell."""


def turn_of_matrix(matrix: NDArray[np.int32]) -> tuple[Turn, bool]:
    """The one of the eight turns that is nearest to a display matrix, and whether the matrix is that turn exactly.

    ``matrix``: 9 int32 as containers hold them, 16.16 fixed point: a, b, u, c, d, v, x, y, w. What it moves and scales
    makes no difference. One that shows nothing at all is nearest to "as it is".
    """
    a, b, c, d = (float(matrix[index]) for index in (0, 1, 3, 4))
    across, down = math.hypot(a, b), math.hypot(c, d)
    if not across or not down:
        return AS_IT_IS, False
    shape = np.array((a / across, b / across, c / down, d / down))
    nearest = max(TURNS, key=lambda turn: float(shape @ np.array(turn)))
    return nearest, bool(np.abs(shape - np.array(nearest)).max() <= _SKEW)


def then(first: Turn, second: Turn) -> Turn:
    """The turn that does what ``first`` and then ``second`` do."""
    a, b, c, d = first
    e, f, g, h = second
    return e * a + g * b, f * a + h * b, e * c + g * d, f * c + h * d


@dataclass(frozen=True, slots=True)
class Geometry:
    """``aspect`` is the width of a stored pixel by its height. It holds before the picture is turned."""

    turn: Turn = AS_IT_IS
    aspect: Fraction | float = Fraction(1)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture upright and on square pixels, contiguous; the same object if there is nothing to do.

        ``image``: uint8 (H, W) or (H, W, 3). It is only ever enlarged: no pixel is lost.
        """
        return _turned(self._stretched(image), self.turn)

    def _stretched(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        aspect, (height, width) = float(self.aspect), image.shape[:2]
        if abs(aspect - 1.0) <= _NEARLY_SQUARE:
            return image
        size = (round(width * aspect), height) if aspect > 1.0 else (width, round(height / aspect))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _turned(image: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    if turn == AS_IT_IS:
        return image
    return np.asarray(_WAYS[turn](image), np.uint8)


_WAYS: Final[dict[Turn, Any]] = {
    _CLOCKWISE: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    _TURN_ABOUT: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    _COUNTERCLOCKWISE: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    _MIRROR: lambda image: cv2.flip(image, 1),
    _UPSIDE_DOWN: lambda image: cv2.flip(image, 0),
    _TRANSPOSE: cv2.transpose,
    _TRANSVERSE: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
}


class Straightener:
    """What must be done to the pictures of one camera. ``tell`` is told what is odd about them."""

    def __init__(self, camera: CameraConfig, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._own_turn = then(_ROTATIONS[camera.rotate], _FLIPS[camera.flip])
        self._own_aspect = Fraction(camera.pixel_aspect.replace(":", "/")) if camera.pixel_aspect else None

    def geometry(self, matrix: NDArray[np.int32] | None, aspect: Fraction | None) -> Geometry:
        """What to do to a picture with this display matrix, see :func:`turn_of_matrix`, and these pixels."""
        turn, exact = (AS_IT_IS, True) if matrix is None else turn_of_matrix(matrix)
        if not exact:
            self._tell("the stream shows its pictures askew: the nearest turn by right angles is used")
        return Geometry(then(turn, self._own_turn), self._own_aspect or self._believed(aspect))

    def _believed(self, aspect: Fraction | None) -> Fraction:
        """Headers hold nonsense at times."""
        if not aspect:
            return Fraction(1)
        if not Fraction(1, _WIDEST) <= aspect <= _WIDEST:
            self._tell(f"the stream says that its pixels are {aspect} times as wide as high: taken for square")
            return Fraction(1)
        return aspect
