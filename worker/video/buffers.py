"""Frames of several cameras, buffered within bounds and gathered into batches.

Producers (one decode thread per camera) put into a :class:`FrameBuffer`; one consumer takes batches from the
:class:`Batcher`. Every frame is either handed to the consumer or reported to the observer as dropped.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.config import BatchingConfig, CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.types import Frame, Planes
from worker.video.addresses import is_live
from worker.video.planes import lazy_of, rgb_of

_MOST_CONVERTERS: Final = 4

Policy = Literal["newest", "every"]


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame that is decoded but not yet converted; the other fields are those of :class:`Frame`.

    A frame that is superseded or passed over is never converted to RGB. ``grey`` is uint8 (H, W) as
    stored, before it is turned.
    """

    camera_id: str
    sequence: int
    pts_s: float
    captured_at: datetime
    received_monotonic_s: float
    planes: Planes
    grey: NDArray[np.uint8]
    spacing_s: float = 0.0

    def convert(self, *, lazily: bool = False) -> Frame:
        """The frame with its picture; ``lazily``: as planes, if these can be converted later.

        Raises:
            SourceError: the picture cannot be converted.
        """
        picture = (lazy_of(self.planes) if lazily else None) or rgb_of(self.planes)
        return Frame(
            self.camera_id, self.sequence, self.pts_s, self.captured_at, self.received_monotonic_s, picture,
            self.spacing_s,
        )  # fmt: skip


class FrameBuffer:
    """What one camera has decoded and nobody has taken yet.

    ``newest`` holds one frame and a later one replaces it (counted as ``superseded``); ``every`` holds
    ``capacity`` frames and :meth:`put` waits for room. Safe for one or several producers and a consumer.
    """

    def __init__(self, camera_id: str, policy: Policy, *, capacity: int = 4, observer: Observer | None = None) -> None:
        self.camera_id = camera_id
        self._policy: Policy = policy
        self._capacity = capacity
        self._observer = observer or Observer()
        self._frames: deque[Frame | RawFrame] = deque()
        self._closed = False
        self._room = threading.Condition()
        self._on_change: Callable[[], None] | None = None

    @classmethod
    def for_camera(
        cls, camera: CameraConfig, config: BatchingConfig, observer: Observer | None = None
    ) -> "FrameBuffer":
        """As the camera's policy says; ``auto`` is ``newest`` for live sources and ``every`` for files.

        Raises:
            ConfigError: the camera's source is not one that is read.
        """
        live = is_live(camera)
        policy: Policy = camera.policy if camera.policy != "auto" else "newest" if live else "every"
        return cls(camera.id, policy, capacity=config.queue_frames, observer=observer)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def policy(self) -> Policy:
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        """Takes effect with the next frame: whether a network source is a recording shows only once it is open."""
        with self._room:
            self._policy = policy

    @property
    def closed(self) -> bool:
        """No further frame is accepted; those inside can still be taken."""
        return self._closed

    @property
    def exhausted(self) -> bool:
        """Closed, and everything has been taken."""
        with self._room:
            return self._closed and not self._frames

    def put(self, frame: Frame | RawFrame, timeout_s: float | None = None) -> bool:
        """Add a frame. ``every``: waits for room, without limit by default.

        Returns False where the frame was not taken in: the buffer was closed (counted as ``closed``), or no
        room within ``timeout_s`` (counted as ``full``).
        """
        superseded = 0
        with self._room:
            if self._policy == "every":
                self._room.wait_for(lambda: self._closed or len(self._frames) < self._capacity, timeout_s)
                refused = "closed" if self._closed else "full" if len(self._frames) >= self._capacity else None
            else:
                refused = "closed" if self._closed else None
                if not refused:
                    superseded = len(self._frames)
                    self._frames.clear()
            if not refused:
                self._frames.append(frame)
            depth = len(self._frames)
        if superseded:
            self._observer.frame_dropped(self.camera_id, "superseded", superseded)
        if refused:
            self._observer.frame_dropped(self.camera_id, refused)
            return False
        self._observer.queue_depth(self.camera_id, depth)
        self._changed()
        return True

    def take(self) -> Frame | RawFrame | None:
        """The oldest frame inside, or None; never waits."""
        with self._room:
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._room.notify()
            depth = len(self._frames)
        self._observer.queue_depth(self.camera_id, depth)
        return frame

    def close(self, *, discard: str | None = None) -> None:
        """Refuse further frames and wake a waiting :meth:`put`.

        With ``discard``, what is inside is dropped for that reason.
        """
        with self._room:
            self._closed = True
            dropped = len(self._frames) if discard else 0
            if discard:
                self._frames.clear()
            self._room.notify_all()
        if discard and dropped:
            self._observer.frame_dropped(self.camera_id, discard, dropped)
            self._observer.queue_depth(self.camera_id, 0)
        self._changed()

    def attach(self, on_change: Callable[[], None] | None) -> None:
        """Call ``on_change`` (without any lock held) after each frame put and after the close."""
        self._on_change = on_change

    def _changed(self) -> None:
        on_change = self._on_change
        if on_change is not None:
            on_change()


class Batcher:
    """Gathers one batch after another over cameras that may come and go.

    Cameras take turns, so that none starves another; those with the lowest ``turn`` come first. ``due``, where given,
    decides of each frame whether it is handed over or passed over; it must count what it passes over. One consumer;
    :meth:`add` and :meth:`remove` may be called from any thread.

    Only frames that are handed over are converted to RGB. That happens in threads of their own, several frames at a
    time: the consumer's thread does no more than wait for them. With ``keeps_planes``, which may be set at any time,
    those that a device can convert are handed over as planes.
    """

    keeps_planes = False

    def __init__(
        self,
        buffers: Iterable[FrameBuffer],
        config: BatchingConfig,
        observer: Observer | None = None,
        *,
        due: Callable[[Frame | RawFrame], bool] | None = None,
        turn: Callable[[str], int] = lambda _camera_id: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._due = due
        self._turn = turn
        self._clock = clock
        self._observer = observer or Observer()
        self._buffers: deque[FrameBuffer] = deque()  # the camera whose turn is next stands first
        self._changed = threading.Condition()
        self._converters = ThreadPoolExecutor(min(_MOST_CONVERTERS, os.cpu_count() or 1), "convert")
        for buffer in buffers:
            self.add(buffer)

    def add(self, buffer: FrameBuffer) -> None:
        """Take frames from ``buffer`` too.

        Raises:
            ValueError: a buffer of this camera is there already.
        """
        with self._changed:
            if any(other.camera_id == buffer.camera_id for other in self._buffers):
                raise ValueError(f"camera {buffer.camera_id} already has a frame buffer")
            self._buffers.append(buffer)
        buffer.attach(self._notify)
        self._notify()

    def remove(self, camera_id: str) -> None:
        """Close the camera's buffer and forget it; what is inside is dropped as ``removed``.

        Unknown ids are ignored.
        """
        with self._changed:
            found = next((buffer for buffer in self._buffers if buffer.camera_id == camera_id), None)
            if found is None:
                return
            self._buffers.remove(found)
        found.attach(None)
        found.close(discard="removed")
        self._notify()

    def close(self) -> None:
        """No further batch is asked for."""
        self._converters.shutdown()

    @property
    def waiting(self) -> int:
        """How many cameras have a frame that nobody has taken yet."""
        with self._changed:
            return self._ready()

    def next_batch(self, timeout_s: float, most: int | None = None) -> list[Frame] | None:
        """Up to ``max_frames`` frames, and no more than ``most``, one of each camera: what the next frame of a camera
        is worth depends on what this one shows.

        Once there is a frame, waits up to ``max_wait_s`` for the cameras that have none yet. Returns ``[]`` where
        none came within ``timeout_s``, and None when there are cameras and all of them are closed and empty.
        """
        deadline = time.monotonic() + timeout_s
        most = min(most or self._config.max_frames, self._config.max_frames)
        while True:
            with self._changed:
                self._changed.wait_for(self._may_return, max(0.0, deadline - time.monotonic()))
                if not self._ready():
                    return None if self._all_exhausted() else []
                self._changed.wait_for(lambda: self._complete(most), self._config.max_wait_s)
                turns = sorted(self._buffers, key=lambda buffer: self._turn(buffer.camera_id))
            frames = self._gather(turns, most)
            if frames:
                return frames

    def _ready(self) -> int:
        return sum(1 for buffer in self._buffers if len(buffer))

    def _all_exhausted(self) -> bool:
        return bool(self._buffers) and all(buffer.exhausted for buffer in self._buffers)

    def _may_return(self) -> bool:
        return self._ready() > 0 or self._all_exhausted()

    def _complete(self, most: int) -> bool:
        """Whether there is nothing to wait for: the batch is full, or each camera that can still send has sent."""
        if self._ready() >= most:
            return True
        return all(len(buffer) or buffer.closed for buffer in self._buffers)

    def _gather(self, turns: list[FrameBuffer], most: int) -> list[Frame]:
        """The cameras whose frames are taken go to the end of the queue."""
        frames: list[Future[Frame | None]] = []
        for buffer in turns:
            if len(frames) == most:
                break
            frame = self._next_due(buffer)
            if frame is not None:
                frames.append(self._converters.submit(self._converted, frame))
                self._to_the_end(buffer)
        return [frame for future in frames if (frame := future.result()) is not None]

    def _to_the_end(self, buffer: FrameBuffer) -> None:
        with self._changed:
            if buffer in self._buffers:
                self._buffers.remove(buffer)
                self._buffers.append(buffer)

    def _next_due(self, buffer: FrameBuffer) -> Frame | RawFrame | None:
        """The camera's next frame that is fresh and due."""
        while (frame := buffer.take()) is not None:
            if buffer.policy == "newest" and self._clock() - frame.received_monotonic_s > self._config.stale_after_s:
                self._observer.frame_dropped(frame.camera_id, "stale")
            elif self._due is None or self._due(frame):
                return frame
        return None

    def _converted(self, frame: Frame | RawFrame) -> Frame | None:
        try:
            if not isinstance(frame, RawFrame):
                return frame
            return frame.convert(lazily=True) if self.keeps_planes else frame.convert()
        except SourceError:
            self._observer.frame_dropped(frame.camera_id, "undecodable")
            return None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()
