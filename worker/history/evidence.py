"""Evidence: the best picture of each sighting, kept for people to look at. It is opt-in, and for a limited time.

Events hold no pixels. The store holds two JPEGs of a sighting and never more, however long it lasts:
``CAMERA/DATE/SIGHTING_ID.face.jpg`` and ``.frame.jpg``; the date is that of the sighting's first frame, in UTC. They
are sealed where the process has a key, see :mod:`worker.encryption`. Why so: docs/decisions/best-face.md.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.background import BackgroundTask, Heartbeats
from worker.boxes import clip, expand, square
from worker.config import EvidenceConfig
from worker.encryption import seal
from worker.errors import SinkError
from worker.history.evidence_store import (
    EvidenceStore,
    Seen,
    about,
    open_store,
    path_of,
    paths_of,
    stored_merit,
    with_merit,
)
from worker.history.retention import Retention, kept_s
from worker.logs import get_logger
from worker.observer import Observer
from worker.types import Event, Image, LazyImage, Picture, image_of

_BETTER: Final = 0.05
"""A face must be so much better than the one that is kept: encoding costs milliseconds."""
_AROUND: Final = 1.8
_LARGE_PX: Final = 200.0
"""People see no more in a larger face; networks see no more above 80 px, which is where quality ends to grow."""
_OPEN_SIGHTINGS: Final = 500
_WAITING: Final = 200
_PRUNE_EVERY_S: Final = 3600.0
_WAIT_S: Final = 1.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The best look at somebody so far: a face with what is around it, and the whole frame, as JPEG; the frame is
    empty where none is to be kept. ``merit`` is 0..1."""

    merit: float
    face: bytes
    frame: bytes


@dataclass(slots=True)
class _Told:
    """A sighting that was told: whether its pictures are ``wanted`` by the verdict of now, and the ``merit`` of those
    that were given to the writer. One that another worker began (``elsewhere``) may have better ones already."""

    path: str
    elsewhere: bool
    wanted: bool = False
    merit: float = -1.0


class Evidence:
    """Writes the pictures of each sighting when it is first told, and each better one that comes until its end.

    Nothing waits for the store: where it is slow, a better picture takes the place of the one that waits; where it is
    away, pictures are given up and counted. ``retention`` says for how long they are kept, where not ``config`` does;
    None: that is not known yet, and none is removed. The thread is ``evidence`` in ``heartbeats``.
    """

    def __init__(
        self,
        config: EvidenceConfig,
        store: EvidenceStore,
        observer: Observer | None = None,
        *,
        retention: Callable[[], Retention | None] = Retention,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._config = config
        self._retention = retention
        self._store = store
        self._observer = observer or Observer()
        self._open: OrderedDict[str, Pictures] = OrderedDict()
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[Pictures, bool] | None] = OrderedDict()
        self._failed = False
        self._pruned_s = float("-inf")
        self._pruned_by: Retention | None = None
        self._task = BackgroundTask("evidence", self._step, interval_s=_WAIT_S, heartbeats=heartbeats, drains=True)
        self._task.start()

    def face(
        self, sighting_id: str, picture: Picture, box: NDArray[np.float32], quality: float, *, doubtful: bool = False
    ) -> None:
        """A face (box float32 (4,) px) that was good enough to embed, in the frame ``picture``.

        A ``doubtful`` face does not resemble the person of the sighting. Its picture waits until :meth:`parted` says
        that it shows another one, and is given up if the next face is the person's again.
        """
        if not doubtful:
            self._open.pop(_doubtful(sighting_id), None)
        shown = _doubtful(sighting_id) if doubtful else sighting_id
        merit = quality * min(1.0, float((box[2:] - box[:2]).min()) / _LARGE_PX) ** 0.25
        known = self._open.get(shown)
        if known is not None and merit < known.merit + _BETTER:
            return
        frame = self._jpeg(image_of(picture)) if self._config.frames else b""
        self._keep(shown, Pictures(merit, self._face_of(picture, box), frame))

    def parted(self, sighting_id: str, new_id: str) -> None:
        """The doubtful faces of a sighting were those of another person, whose sighting is ``new_id``."""
        self.joined(new_id, _doubtful(sighting_id))

    def joined(self, kept_id: str, gone_id: str) -> None:
        """Two sightings turned out to be one, which goes on as ``kept_id``."""
        pictures, kept = self._open.pop(gone_id, None), self._open.get(kept_id)
        if pictures is not None and (kept is None or pictures.merit > kept.merit):
            self._keep(kept_id, pictures)

    def told(self, event: Event) -> None:
        """An event about a sighting was decided on. If its pictures are not wanted by what is known now, they go."""
        sighting_id = event.sighting_id
        told = self._told.setdefault(sighting_id, _Told(path_of(event), elsewhere=event.type != "started"))
        told.wanted = self._config.of in {"all", "known" if event.identity_id else "unknown"}
        if told.wanted:
            self._offer(sighting_id)
        elif told.elsewhere or told.merit >= 0:
            told.merit = -1.0
            self._wait(told.path, None)
        while len(self._told) > _OPEN_SIGHTINGS:
            self._told.popitem(last=False)
        if event.type == "ended":
            self._give_up(sighting_id)

    def erase(self, sightings: Collection[Seen]) -> None:
        """Gives up the pictures of these sightings, also those that are written or wait to be."""
        for seen in sightings:
            self._give_up(seen.sighting_id)
            self._wait(path_of(seen), None)

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what is still to be written."""
        self._task.stop(timeout_s)

    def _give_up(self, sighting_id: str) -> None:
        for shown in (sighting_id, _doubtful(sighting_id)):
            self._open.pop(shown, None)
        self._told.pop(sighting_id, None)

    def _keep(self, sighting_id: str, pictures: Pictures) -> None:
        self._open[sighting_id] = pictures
        self._open.move_to_end(sighting_id)
        while len(self._open) > _OPEN_SIGHTINGS:
            oldest, _ = self._open.popitem(last=False)
            self._told.pop(oldest, None)
        self._offer(sighting_id)

    def _offer(self, sighting_id: str) -> None:
        told, pictures = self._told.get(sighting_id), self._open.get(sighting_id)
        if told is not None and told.wanted and pictures is not None and pictures.merit > told.merit:
            told.merit = pictures.merit
            self._wait(told.path, (pictures, told.elsewhere))

    def _wait(self, path: str, what: tuple[Pictures, bool] | None) -> None:
        """For the writer; None removes what is there. It takes the place of what waits for the same sighting."""
        with self._lock:
            is_room = what is None or path in self._waiting or len(self._waiting) < _WAITING
            if is_room:
                self._waiting[path] = what
        if not is_room:
            self._observer.evidence_dropped("buffer_full")
        self._task.wake()

    def _face_of(self, picture: Picture, box: NDArray[np.float32]) -> bytes:
        height, width = picture.shape[:2]
        x1, y1, x2, y2 = clip(expand(square(box[None]), _AROUND), width, height)[0].round().astype(int).tolist()
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        return self._jpeg(picture.cut(x1, y1, x2, y2) if isinstance(picture, LazyImage) else picture[y1:y2, x1:x2])

    def _jpeg(self, image: Image) -> bytes:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._config.jpeg_quality]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        return encoded.tobytes()

    # What follows runs in the writer's thread.

    def _step(self) -> float | None:
        retention = self._retention()
        if retention is not None and (
            retention != self._pruned_by or time.monotonic() - self._pruned_s > _PRUNE_EVERY_S
        ):
            self._pruned_s, self._pruned_by = time.monotonic(), retention
            self._attempt(partial(self._prune, kept_s(retention.pictures_days, self._config.keep_days * 86_400)))
        with self._lock:
            if not self._waiting:
                return None
            path, what = self._waiting.popitem(last=False)
        if what is None:
            self._attempt(partial(self._remove, path))
        elif not self._attempt(partial(self._write, path, *what)):
            self._observer.evidence_dropped("unwritten")
        return 0.0

    def _write(self, path: str, pictures: Pictures, elsewhere: bool) -> None:
        face, frame = paths_of(path)
        if elsewhere and stored_merit(self._store, face) >= pictures.merit:
            return
        # The face last: it tells how good both are.
        for name, picture in ((frame, pictures.frame), (face, with_merit(pictures.face, pictures.merit))):
            if name != frame or picture:
                self._store.put(name, seal(picture, about(name)))
        self._observer.evidence_written()

    def _remove(self, path: str) -> None:
        self._store.remove(paths_of(path))

    def _prune(self, keep_s: float) -> None:
        if removed := self._store.prune(time.time() - keep_s):
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
    config: EvidenceConfig,
    observer: Observer,
    *,
    retention: Callable[[], Retention | None] = Retention,
    heartbeats: Heartbeats | None = None,
) -> Evidence | None:
    """As ``config`` asks for; None where it asks for none.

    Raises:
        ConfigError: the store's address is not valid, or its library is not installed.
        SinkError: the store cannot be written.
    """
    if config.store is None:
        return None
    return Evidence(config, open_store(config), observer, retention=retention, heartbeats=heartbeats)


def _doubtful(sighting_id: str) -> str:
    return f"{sighting_id} doubtful"
