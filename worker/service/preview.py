"""A look through a camera, as the worker sees it: boxes, names and all, as MJPEG for a browser.

Nothing is drawn or encoded while nobody looks. The work is done in the thread of the viewer.
"""

import hmac
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.config import PreviewConfig
from worker.types import Frame, Image, Tracks
from worker.video.drawing import FaceKind, draw_faces

MAX_VIEWERS: Final = 4
BOUNDARY: Final = "frame"
_QUIET_S: Final = 2.0
_JPEG_QUALITY: Final = 75


@dataclass(frozen=True, slots=True)
class _Seen:
    image: Image
    boxes: NDArray[np.float32]
    labels: list[str]
    number: int


class Preview:
    """Hand :meth:`watch` to the pipeline; each viewer iterates over :meth:`pictures`."""

    def __init__(self, config: PreviewConfig, token: str) -> None:
        self._config = config
        self._token = token.encode()
        self._viewers: dict[str, int] = defaultdict(int)
        self._seen: dict[str, _Seen] = {}
        self._changed = threading.Condition()

    def watch(self, frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        """Takes note of a frame if somebody looks through its camera."""
        if not self._viewers.get(frame.camera_id):
            return
        with self._changed:
            known = self._seen.get(frame.camera_id)
            number = known.number + 1 if known else 1
            self._seen[frame.camera_id] = _Seen(frame.image, tracks.detections.boxes, labels, number)
            self._changed.notify_all()

    def allows(self, token: str) -> bool:
        """Whether this is the token; the answer takes the same time for every wrong one."""
        return hmac.compare_digest(token.encode(), self._token)

    @property
    def full(self) -> bool:
        """Whether as many people look already as one worker serves."""
        return sum(self._viewers.values()) >= MAX_VIEWERS

    def pictures(self, camera_id: str, there: Callable[[], bool]) -> Iterator[bytes]:
        """JPEGs of the camera, at most ``max_fps`` a second, while it is ``there``. A picture that does not change is
        sent again every 2 s, so that a viewer who has gone is noticed."""
        with self._changed:
            self._viewers[camera_id] += 1
        try:
            shown, encoded = 0, b""
            while there():
                begun_s = time.monotonic()
                seen = self._next(camera_id, shown)
                if seen is not None and seen.number != shown:
                    shown, encoded = seen.number, self._draw(seen)
                if encoded:
                    yield encoded
                time.sleep(max(0.0, 1 / self._config.max_fps - (time.monotonic() - begun_s)))
        finally:
            with self._changed:
                self._viewers[camera_id] -= 1
                if not self._viewers[camera_id]:
                    del self._viewers[camera_id]
                    self._seen.pop(camera_id, None)

    def _next(self, camera_id: str, shown: int) -> _Seen | None:
        def newer() -> bool:
            seen = self._seen.get(camera_id)
            return seen is not None and seen.number != shown

        with self._changed:
            self._changed.wait_for(newer, _QUIET_S)
            return self._seen.get(camera_id)

    def _draw(self, seen: _Seen) -> bytes:
        image, boxes = seen.image, seen.boxes
        scale = self._config.max_width_px / image.shape[1]
        if scale < 1:
            size = (self._config.max_width_px, round(image.shape[0] * scale))
            image, boxes = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), boxes * scale
        # A person on whom there is no verdict yet must not look like somebody known.
        kinds: list[FaceKind | None] = ["plain" if label == "..." else None for label in seen.labels]
        drawn = draw_faces(image, boxes, seen.labels, kinds=kinds)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        return cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), quality)[1].tobytes()


def open_preview(config: PreviewConfig) -> Preview | None:
    """The preview for viewers who have the token; None without a token: then nobody may look.

    Raises:
        ConfigError: the token's file cannot be read, or the token is too short to be one.
    """
    token = config.read_token()
    return Preview(config, token) if token is not None else None
