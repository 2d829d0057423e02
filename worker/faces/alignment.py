"""Cut faces out of an image the way their network was trained on them.

All functions work on all faces of an image at once; the matrices map px of the image to px of the chip, 2x3.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.types import Image

_SMALLEST_SIDE_PX = 1.0
MOVES: Final = ((0.02, 0.02, 1.0), (-0.02, -0.02, 1.0), (0.0, 0.0, 1.04), (0.0, 0.0, 0.96), (0.02, -0.02, 1.0),
          (-0.02, 0.02, 1.0), (0.0, 0.03, 1.02), (0.0, -0.03, 0.98), (0.03, 0.0, 1.0))  # fmt: skip
"""Right, down (shares of the side) and scale of the moved copies of a face: the same for all faces."""
_REACH: Final = 0.05
"""How far beyond the chip, as a share of its side, a move looks."""


def box_matrices(boxes: NDArray[np.float32], side: int, enlarge: float, shorter_side: float) -> NDArray[np.float64]:
    """float64 (n, 2, 3): the box enlarged, its shorter side brought to ``shorter_side`` px, the centre of that.

    The protocol of VGGFace2 (Cao et al., 2018) has ``enlarge`` 1.3, ``shorter_side`` 256 and ``side`` 224.
    """
    boxes = boxes.astype(np.float64)
    shorter = np.maximum((boxes[:, 2:] - boxes[:, :2]).min(axis=1), _SMALLEST_SIDE_PX)
    scale = shorter_side / (enlarge * shorter)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    matrices = np.zeros((len(boxes), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, :, 2] = side / 2 - scale[:, None] * centre
    return matrices


def similarity_matrices(
    landmarks: NDArray[np.float32], template: Sequence[tuple[float, float]], side: int
) -> NDArray[np.float64]:
    """float64 (n, 2, 3): rotation, scale and shift that bring five points nearest to a template.

    Least squares (Umeyama, 1991) without mirroring, which for points in the plane is one complex division.

    Args:
        landmarks: (n, 5, 2) px of the image.
        template: five points as fractions of ``side``.
        side: of the chip, px.
    """
    points = landmarks[..., 0].astype(np.float64) + 1j * landmarks[..., 1]
    target = np.array([complex(x, y) for x, y in template]) * side
    centre = points.mean(axis=1, keepdims=True)
    spread = np.maximum((np.abs(points - centre) ** 2).sum(axis=1), _SMALLEST_SIDE_PX)
    turn = (np.conj(points - centre) * (target - target.mean())).sum(axis=1) / spread
    shift = target.mean() - turn * centre[:, 0]
    rows = [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]
    return np.array(rows).transpose(2, 0, 1)


def warp(image: Image, matrices: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """Chips uint8 (n, side, side, 3) of ``image``; what lies outside it repeats its edge.

    A face more than twice as large as its chip is first averaged down, so that no pixel is skipped.
    """
    chips = np.empty((len(matrices), side, side, 3), np.uint8)
    for chip, matrix in zip(chips, matrices, strict=True):
        source, to_chip = _shrunk(image, matrix, side)
        cv2.warpAffine(source, to_chip, (side, side), dst=chip, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return chips


def border_px(side: int) -> int:
    """How many px a chip needs on each side, so that after each of :data:`MOVES` it shows the image and no repeated
    edge."""
    return math.ceil(_REACH * side)


def with_border(matrices: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    """``matrices`` (n, 2, 3) to chips that show ``border`` px more on each side, at the same scale."""
    wider = matrices.copy()
    wider[:, :, 2] += border
    return wider


def without_border(chips: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    """The inner part of ``chips`` (n, side + 2 * border, side + 2 * border, 3)."""
    side = chips.shape[1] - 2 * border
    return chips[:, border : border + side, border : border + side]


def moved(chips: NDArray[np.uint8], border: int, number: int) -> NDArray[np.uint8]:
    """Chips (n, side, side, 3) as they would have been cut out by a box or points that lie off by ``MOVES[number]``.

    ``chips`` have a ``border``, so that what comes in from the sides is the image.
    """
    right, down, scale = MOVES[number]
    side = chips.shape[1] - 2 * border
    matrix = cv2.getRotationMatrix2D(((chips.shape[1] - 1) / 2, (chips.shape[1] - 1) / 2), 0.0, scale)
    matrix[:, 2] += right * side - border, down * side - border
    out = np.empty((len(chips), side, side, 3), np.uint8)
    for source, target in zip(chips, out, strict=True):
        cv2.warpAffine(
            source, matrix, (side, side), dst=target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return out


def _shrunk(image: Image, matrix: NDArray[np.float64], side: int) -> tuple[Image, NDArray[np.float64]]:
    """The part of ``image`` that the chip shows, reduced by a whole factor, and the matrix from there."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    factor = int(1 / scale) if scale > 0 else 1
    if factor < 2:
        return image, matrix
    corners = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]]) @ cv2.invertAffineTransform(matrix).T
    height, width = image.shape[:2]
    x1, y1 = np.clip(np.floor(corners.min(axis=0)).astype(int) - factor, 0, (width - 1, height - 1))
    x2, y2 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + factor, (x1 + 1, y1 + 1), (width, height))
    part = image[y1:y2, x1:x2]
    size = (max(part.shape[1] // factor, 1), max(part.shape[0] // factor, 1))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    # Pixel centres lie at whole numbers: (u + 0.5) * ratio - 0.5 + offset is where pixel u of ``small`` came from.
    ratio = np.array([part.shape[1] / size[0], part.shape[0] / size[1]])
    back = np.array([[ratio[0], 0, (ratio[0] - 1) / 2 + x1], [0, ratio[1], (ratio[1] - 1) / 2 + y1], [0, 0, 1]])
    return np.ascontiguousarray(small), matrix @ back


_VARIANT: Final = re.compile(r"^(?P<model>.+?)(?P<flip>\+flip)?(?:\+jitter(?P<jitter>[1-9]))?$")


@dataclass(frozen=True, slots=True)
class Averaging:
    """Over which views of a face its vector is averaged: the chip itself, ``jitter`` chips cut out a little off and at
    another scale, and, with ``flip``, the mirror images of all these."""

    flip: bool = False
    jitter: int = 0

    @property
    def suffix(self) -> str:
        """What it adds to a model's id, since other views make other vectors: ``+flip``, ``+jitter4``, both, or
        nothing."""
        return ("+flip" if self.flip else "") + (f"+jitter{self.jitter}" if self.jitter else "")

    def digest(self, preprocessing_digest: str) -> str:
        """The preprocessing digest of a model with this averaging."""
        if not self.suffix:
            return preprocessing_digest
        moves = MOVES[: self.jitter] or ""
        return hashlib.sha256(f"{preprocessing_digest}{self.suffix}{moves}".encode()).hexdigest()

    def border_px(self, side: int) -> int:
        """What the image must show around a chip of ``side`` px on each side, so that moved ones can be cut out."""
        return border_px(side) if self.jitter else 0

    def views(self, chips: NDArray[np.uint8], border: int) -> list[NDArray[np.uint8]]:
        """All views (n, side, side, 3) of ``chips`` with their ``border``."""
        shifted = [moved(chips, border, number) for number in range(self.jitter)]
        views = [without_border(chips, border), *shifted]
        return [*views, *(view[:, :, ::-1] for view in views)] if self.flip else views


PLAIN: Final = Averaging()
"""No averaging: the chip alone."""


def split_variant(model: str) -> tuple[str, Averaging]:
    """The model that ``model`` names and the averaging that its ending asks for: ``+flip``, ``+jitter1`` to
    ``+jitter9``, or ``+flip+jitter1``."""
    parts = _VARIANT.match(model)
    if parts is None:
        return model, Averaging()
    return parts["model"], Averaging(bool(parts["flip"]), int(parts["jitter"] or 0))
