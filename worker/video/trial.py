"""One look through a camera, to see whether it works."""

import time
from collections.abc import Callable
from typing import Final

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.types import Image
from worker.video.addresses import Address, parse_address
from worker.video.child_video import ChildVideo
from worker.video.planes import rgb_of

_LONGEST_S: Final = 8.0
"""Somebody waits for the answer: so long for the connection, and as long again for a picture."""


Opener = Callable[[Address, CameraConfig, Observer], ChildVideo]
"""As :meth:`worker.video.child_video.Decoders.open`: what a camera sends may end the process that decodes it."""


def look_through(camera: CameraConfig, opener: Opener) -> Image:
    """The first picture of a network camera, uint8 (H, W, 3), upright and on square pixels.

    Raises:
        ConfigError: its source is not one that is read.
        SourceError: it cannot be opened, or sends no picture in time; the text says why, without credentials.
    """
    limits = {name: min(getattr(camera, name), _LONGEST_S) for name in ("open_timeout_s", "read_timeout_s")}
    camera = camera.model_copy(update=limits)
    address = parse_address(camera.source.get_secret_value())
    video = opener(address, camera, Observer())
    try:
        return _first(video, address)
    finally:
        video.close()


def _first(video: ChildVideo, address: Address) -> Image:
    until_s = time.monotonic() + _LONGEST_S
    for picture in video.pictures(lambda: time.monotonic() < until_s):
        if picture is not None and picture.planes is not None:
            return rgb_of(picture.planes())
    raise SourceError(f"{address.label}: data but no picture that can be decoded within {_LONGEST_S:g} s")
