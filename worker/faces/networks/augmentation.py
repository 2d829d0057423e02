"""The same faces as other photos might show them: moved, turned, lit differently, partly hidden."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_TURN_DEGREES: Final = 10.0
_SCALE: Final = 0.10
_SHIFT: Final = 0.06
_CONTRAST: Final = 0.25
_BRIGHTNESS: Final = 25.0
_HIDDEN: Final = (0.1, 0.35)
"""Sides of the patch that hides part of every second face, in sides of the picture."""


def augmented(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Each of ``images`` (n, side, side) changed at random."""
    return np.stack([_changed(image, random) for image in images])


def _changed(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    side = image.shape[0]
    turn, scale = random.uniform(-_TURN_DEGREES, _TURN_DEGREES), 1 + random.uniform(-_SCALE, _SCALE)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn, scale)
    matrix[:, 2] += random.uniform(-_SHIFT, _SHIFT, 2) * side
    moved = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < 0.5:
        moved = moved[:, ::-1]
    middle = float(moved.mean())
    contrast, brightness = 1 + random.uniform(-_CONTRAST, _CONTRAST), random.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    lit = (moved.astype(np.float32) - middle) * contrast + middle + brightness
    changed: NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        height, width = (random.uniform(*_HIDDEN, 2) * side).astype(int)
        top, left = random.integers(0, side - height), random.integers(0, side - width)
        changed[top : top + height, left : left + width] = int(middle)
    return changed
