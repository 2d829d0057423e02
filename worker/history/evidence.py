"""Evidence: the best picture of each sighting, kept for people to look at. It is opt-in, and for a limited time.

Events hold no pixels. The store holds two JPEGs of a sighting:
``CAMERA/DATE/SIGHTING_ID.face.jpg`` and ``.frame.jpg``; the date is that of the sighting's first frame, in UTC. They
are sealed where the process has a key, see :mod:`worker.encryption`.
"""

import io
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from queue import Empty, Full, Queue
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from worker.background import BackgroundTask, Heartbeats
from worker.boxes import clip, expand, square
from worker.config import EvidenceConfig
from worker.encryption import seal, unseal
from worker.errors import SinkError
from worker.history.evidence_store import EvidenceStore, about, open_store
from worker.logs import get_logger
from worker.observer import Observer
from worker.types import Event, Image

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_BETTER: Final = 0.05
"""A face must be so much better than the one that is kept: encoding costs milliseconds."""
_AROUND: Final = 1.8
_MOST_PIXELS: Final = 36_000_000
"""Of a face: no frame of a camera is larger, unless it was allowed to be."""
_OPEN_SIGHTINGS: Final = 500
_QUEUED: Final = 200
_PRUNE_EVERY_S: Final = 3600.0
_WAIT_S: Final = 1.0

_log = get_logger(__name__)


class Seen(Protocol):
    """A sighting, by what names its pictures."""

    @property
    def sighting_id(self) -> str: ...

    @property
    def camera_id(self) -> str: ...

    @property
    def started_at(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Pictures:
    """The best look at somebody so far: a face with what is around it, and the whole frame, as JPEG."""

    quality: float
    face: bytes
    frame: bytes


class Evidence:
    """Writes the pictures of each sighting when it is first told, and again if a better one came until its end.

    Nothing waits for the store: where it is slow or away, pictures are given up and counted. The thread is ``evidence``
    in ``heartbeats``.
    """

    def __init__(
        self,
        config: EvidenceConfig,
        store: EvidenceStore,
        observer: Observer | None = None,
        *,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._observer = observer or Observer()
        self._open: OrderedDict[str, Pictures] = OrderedDict()
        self._written: dict[str, float] = {}
        self._queue: Queue[tuple[str, Pictures | None]] = Queue(_QUEUED)
        self._failed = False
        self._pruned_s = float("-inf")
        self._task = BackgroundTask("evidence", self._step, interval_s=_WAIT_S, heartbeats=heartbeats, drains=True)
        self._task.start()

    def face(
        self, sighting_id: str, image: Image, box: NDArray[np.float32], quality: float, *, doubtful: bool = False
    ) -> None:
        """A face (box float32 (4,) px) that was good enough to embed, in the frame ``image``.

        A ``doubtful`` face does not resemble the person of the sighting. Its picture waits until :meth:`parted` says
        that it shows another one, and is given up if the next face is the person's again.
        """
        if not doubtful:
            self._open.pop(_doubtful(sighting_id), None)
        shown = _doubtful(sighting_id) if doubtful else sighting_id
        known = self._open.get(shown)
        if known is not None and quality < known.quality + _BETTER:
            return
        self._keep(shown, Pictures(quality, self._face_of(image, box), self._jpeg(image)))

    def parted(self, sighting_id: str, new_id: str) -> None:
        """The doubtful faces of a sighting were those of another person, whose sighting is ``new_id``."""
        self.joined(new_id, _doubtful(sighting_id))

    def joined(self, kept_id: str, gone_id: str) -> None:
        """Two sightings turned out to be one, which goes on as ``kept_id``."""
        pictures, kept = self._open.pop(gone_id, None), self._open.get(kept_id)
        if pictures is not None and (kept is None or pictures.quality > kept.quality):
            self._keep(kept_id, pictures)

    def told(self, event: Event) -> None:
        """An event about a sighting was decided on."""
        sighting_id = event.sighting_id
        wanted = self._config.of in {"all", "known" if event.identity_id else "unknown"}
        pictures = self._open.get(sighting_id)
        if wanted and pictures is not None and pictures.quality > self._written.get(sighting_id, -1.0):
            self._written[sighting_id] = pictures.quality
            try:
                self._queue.put_nowait((_path(event), pictures))
            except Full:
                self._observer.evidence_dropped("buffer_full")
            self._task.wake()
        if event.type == "ended":
            self._open.pop(sighting_id, None)
            self._open.pop(_doubtful(sighting_id), None)
            self._written.pop(sighting_id, None)

    def erase(self, sightings: Collection[Seen]) -> None:
        """Gives up the pictures of these sightings, also those that are written or wait to be."""
        for seen in sightings:
            for shown in (seen.sighting_id, _doubtful(seen.sighting_id)):
                self._open.pop(shown, None)
            self._written.pop(seen.sighting_id, None)
            # Behind what waits, so that nothing is written afterwards.
            try:
                self._queue.put((_path(seen), None), timeout=_WAIT_S)
            except Full:
                _log.error("the pictures of a sighting cannot be removed now", sighting_id=seen.sighting_id)
        self._task.wake()

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what is still to be written."""
        self._task.stop(timeout_s)

    def _keep(self, sighting_id: str, pictures: Pictures) -> None:
        self._open[sighting_id] = pictures
        self._open.move_to_end(sighting_id)
        while len(self._open) > _OPEN_SIGHTINGS:
            oldest, _ = self._open.popitem(last=False)
            self._written.pop(oldest, None)

    def _face_of(self, image: Image, box: NDArray[np.float32]) -> bytes:
        height, width = image.shape[:2]
        x1, y1, x2, y2 = clip(expand(square(box[None]), _AROUND), width, height)[0].round().astype(int).tolist()
        return self._jpeg(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])

    def _jpeg(self, image: Image) -> bytes:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._config.jpeg_quality]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        return encoded.tobytes()

    # What follows runs in the writer's thread.

    def _step(self) -> float | None:
        if time.monotonic() - self._pruned_s > _PRUNE_EVERY_S:
            self._pruned_s = time.monotonic()
            self._attempt(self._prune)
        try:
            path, pictures = self._queue.get_nowait()
        except Empty:
            return None
        if pictures is None:
            self._attempt(partial(self._remove, path))
        elif not self._attempt(partial(self._write, path, pictures)):
            self._observer.evidence_dropped("unwritten")
        return 0.0

    def _write(self, path: str, pictures: Pictures) -> None:
        written = {f"{path}.face.jpg": pictures.face} | (
            {f"{path}.frame.jpg": pictures.frame} if self._config.frames else {}
        )
        for name, picture in written.items():
            self._store.put(name, seal(picture, about(name)))
        self._observer.evidence_written()

    def _remove(self, path: str) -> None:
        self._store.remove(paths_of(path))

    def _prune(self) -> None:
        if removed := self._store.prune(time.time() - self._config.keep_days * 86_400):
            _log.info("expired pictures removed", count=removed)

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except SinkError as error:
            if not self._failed:
                _log.error("pictures of sightings cannot be kept", reason=str(error))
            self._failed = True
            return False
        if self._failed:
            _log.info("pictures of sightings are kept again")
        self._failed = False
        return True


def open_evidence(
    config: EvidenceConfig, observer: Observer, *, heartbeats: Heartbeats | None = None
) -> Evidence | None:
    """As ``config`` asks for; None where it asks for none.

    Raises:
        ConfigError: the store's address is not valid, or its library is not installed.
        SinkError: the store cannot be written.
    """
    if config.store is None:
        return None
    return Evidence(config, open_store(config), observer, heartbeats=heartbeats)


def stored_face(store: EvidenceStore, sighting: Seen) -> Image | None:
    """The picture of the face in a sighting, uint8 RGB; None if none is kept that can be read.

    Raises:
        SinkError: the store cannot be read.
        EncryptionError: it is encrypted, and its key is not among those of this process.
    """
    return _stored(store, f"{_path(sighting)}.face.jpg")


def stored_scene(store: EvidenceStore, sighting: Seen) -> Image | None:
    """The whole frame from which that face is, in the same form. Raises as :func:`stored_face` does."""
    return _stored(store, f"{_path(sighting)}.frame.jpg")


def _stored(store: EvidenceStore, path: str) -> Image | None:
    content = store.get(path)
    if content is None:
        return None
    # The store is not trusted: a few bytes may declare a picture that takes all memory.
    try:
        content = bytes(unseal(content, about(path), f"picture {path}"))
        with Pillow.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            return None if opened.width * opened.height > _MOST_PIXELS else np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError):
        return None


def _doubtful(sighting_id: str) -> str:
    return f"{sighting_id} doubtful"


def paths_of(path: str) -> list[str]:
    """Both pictures of the sighting at ``path``, as :func:`picture_path` gives it."""
    return [f"{path}.face.jpg", f"{path}.frame.jpg"]


def picture_path(camera_id: str, started_at: datetime, sighting_id: str) -> str:
    """Where the pictures of a sighting are, without what tells the two apart."""
    return f"{camera_id}/{started_at:%Y-%m-%d}/{_NOT_IN_NAMES.sub('', sighting_id)}"


def _path(sighting: Seen) -> str:
    # A sighting's id is made of a camera's id and a time; not every file system takes its colons. Whatever else is in
    # it, it names one file in the folder of its camera and day.
    return picture_path(sighting.camera_id, sighting.started_at, sighting.sighting_id)
