"""Averaging: the vector of a face as the mean over several views of it, asked for by the ending of a model's name."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.faces import alignment

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
        moves = alignment.MOVES[: self.jitter] or ""
        return hashlib.sha256(f"{preprocessing_digest}{self.suffix}{moves}".encode()).hexdigest()

    def border_px(self, side: int) -> int:
        """What the image must show around a chip of ``side`` px on each side, so that moved ones can be cut out."""
        return alignment.border_px(side) if self.jitter else 0

    def views(self, chips: NDArray[np.uint8], border: int) -> list[NDArray[np.uint8]]:
        """All views (n, side, side, 3) of ``chips`` with their ``border``."""
        moved = [alignment.moved(chips, border, number) for number in range(self.jitter)]
        views = [alignment.without_border(chips, border), *moved]
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
