"""What runs in a decoder's process: one connection to one camera, within limits of the system."""

import json
import mmap
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.hosts import ALLOW, HostPolicy
from worker.observer import Observer, Stage
from worker.redaction import redact
from worker.types import Planes
from worker.video.addresses import Address
from worker.video.child_messages import (
    MOST_BYTES,
    NOT_WANTED,
    Alive,
    Damaged,
    Ended,
    Opened,
    Passed,
    Shown,
    Told,
    Written,
    parse_answer,
    send,
)
from worker.video.connect_guard import guard_connections
from worker.video.decoder import ImageFolder, SourceMemoryError, Video, open_video
from worker.video.planes import packed
from worker.video.web import SourceSilentError

_ALIVE_EVERY_S: Final = 0.25
_BYTES_A_PIXEL: Final = 2
_MOST_HELD: Final = 4
"""So many pictures may wait for the worker's answer while the next one is decoded."""
_MOST_PASSED: Final = 100
_MOST_FILES: Final = 64
_MOST_FILES_WITH_GPU: Final = 512
_REFUSED: Final = f"which is not the source's own host; {ALLOW}"
_FIRST_TO_GO: Final = "500"
"""The kernel, short of memory, ends a decoder before it ends the worker."""


class _WorkerGoneError(Exception):
    """The worker no longer listens: the end of this process, and no fault."""


def decode(link: socket.socket, memory: int) -> int:
    """Does what is asked over ``link``, and writes pictures to the file descriptor ``memory``; the exit code."""
    try:
        asked = json.loads(link.recv(MOST_BYTES))
        camera = CameraConfig.model_validate(asked["camera"])
        _limit(*asked["limits"], on_gpu=camera.decode_on == "gpu")
        kind, target, label = asked["address"]
        allowed, refused = asked["hosts"]
        child = _Child(link, memory)
        child.run(
            Address(kind, target, label),
            camera,
            HostPolicy(tuple(allowed), tuple(refused)),
        )
    except (_WorkerGoneError, BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as error:  # noqa: BLE001 - nobody reads what a child prints
        return _tell_end(link, error)
    return 0


def _tell_end(link: socket.socket, error: Exception) -> int:
    kind = (
        "memory" if isinstance(error, MemoryError | SourceMemoryError)
        else "silent" if isinstance(error, SourceSilentError)
        else "source" if isinstance(error, SourceError)
        else "crash"
    )  # fmt: skip
    text = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {redact(str(error))}"
    with suppress(OSError):
        send(link, Ended(text[:2000] or type(error).__name__, kind))
    return 0 if kind in ("silent", "source") else 1


def _limit(memory_bytes: int, shared_bytes: int, *, on_gpu: bool) -> None:
    """``memory_bytes`` of address space beyond what is there already; ``shared_bytes`` of pictures.

    A driver reserves far more addresses for its GPU than there is memory: then only what may be written is limited.
    """
    whole, _, _, _, _, data, _ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    most = (data if on_gpu else whole) * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA if on_gpu else resource.RLIMIT_AS, (most, most))
    files = min(_MOST_FILES_WITH_GPU if on_gpu else _MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (shared_bytes, shared_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold pictures of people
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


class _Clock(Observer):
    """How long the decoder took since it was last asked."""

    def __init__(self) -> None:
        self._took_s = 0.0

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:  # noqa: ARG002
        begun_s = time.perf_counter()
        try:
            yield
        finally:
            self._took_s += time.perf_counter() - begun_s

    def take(self) -> float:
        took_s, self._took_s = self._took_s, 0.0
        return took_s


class _Child:
    """One thread decodes, and another one writes the pictures that are wanted. Decoding does not wait for the worker's
    next turn: so a busy machine costs no frames, as long as it gives this process its share."""

    def __init__(self, link: socket.socket, memory: int) -> None:
        self._link = link
        self._memory = memory
        self._clock = _Clock()
        self._told_s = 0.0
        self._passed: list[float | None] = []
        self._behind = False
        self._number = 0
        self._held: dict[int, list[NDArray[np.uint8]]] = {}
        self._room = threading.Semaphore(_MOST_HELD)
        self._gone = threading.Event()
        self._unguarded = False

    def run(self, address: Address, camera: CameraConfig, hosts: HostPolicy) -> None:
        refused = self._guard(address, hosts)
        try:
            video = open_video(address, camera, self._clock, hosts)
        except SourceError as error:
            raise SourceError(f"{address.label} leads to {refused[0]}, {_REFUSED}") if refused else error from None
        try:
            self._tell(Opened(video.recording, _is_still(video), video.frame_interval_s, video.duration_s))
            if self._unguarded:
                self._tell(Told("this system cannot keep a redirect of the camera from other hosts", False))
            if isinstance(video, Video):
                video.tell = lambda text: self._tell(Told(text, refused=bool(video.refused)))
            self._heed(video)
            threading.Thread(target=self._answer, args=(video,), name="answers", daemon=True).start()
            for picture in video.pictures(self._keep_going):
                if picture is None:
                    _require_memory(video)
                    self._tell(Damaged())
                elif picture.planes is None:
                    self._pass(video, picture.pts_s)
                else:
                    self._show(video, picture.pts_s, picture.planes())
            for _ in range(_MOST_HELD):  # what is still wanted is written first
                self._room.acquire()
            self._tell_passed()
            self._tell(Ended("", ""))
        finally:
            video.close()

    def _guard(self, address: Address, hosts: HostPolicy) -> list[str]:
        """Where FFmpeg connects by itself, it is led to no other host; returns the addresses that are refused, as they
        come."""
        refused: list[str] = []
        if address.kind != "network" or address.over_http:
            return refused
        own = urlsplit(address.target).hostname or ""

        def may_connect(to: str) -> bool:
            if not (permitted := hosts.permits(to, own=own)):
                refused.append(to)
            return permitted

        self._unguarded = not guard_connections(may_connect)
        return refused

    def _tell(self, message: Any) -> None:
        self._told_s = time.monotonic()
        send(self._link, message)

    def _keep_going(self) -> bool:
        if self._gone.is_set():
            raise _WorkerGoneError
        if len(self._passed) >= _MOST_PASSED:
            self._tell_passed()
        if time.monotonic() - self._told_s >= _ALIVE_EVERY_S:
            self._tell(Alive())
        return True

    def _pass(self, video: Video | ImageFolder, pts_s: float | None) -> None:
        """Remembers a picture that was passed over: it is told with the next one, which saves a message."""
        self._heed_pace(video)
        self._passed.append(pts_s)

    def _heed_pace(self, video: Video | ImageFolder) -> float:
        """What was passed over for another reason is told apart. Returns by how much the video is late, s."""
        behind, late_s = (video.behind, video.late_s) if isinstance(video, Video) else (False, 0.0)
        if behind != self._behind:
            self._tell_passed()
            self._behind = behind
        return late_s

    def _tell_passed(self) -> None:
        if self._passed:
            self._tell(Passed(self._passed, self._behind))
            self._passed = []

    def _show(self, video: Video | ImageFolder, pts_s: float | None, planes: Planes) -> None:
        self._room.acquire()
        if self._gone.is_set():
            raise _WorkerGoneError
        late_s = self._heed_pace(video)
        parts, number = packed(planes), self._number
        self._held[number], self._number = parts, number + 1
        self._tell(
            Shown(
                number, pts_s, planes.form, planes.width, planes.height, [part.shape[1] for part in parts],
                [part.shape[0] for part in parts], planes.colour_range, planes.matrix, list(planes.turn), planes.aspect,
                self._clock.take(), self._passed, self._behind, late_s,
            )
        )  # fmt: skip
        self._passed = []

    def _answer(self, video: Video | ImageFolder) -> None:
        """Does what the worker answers, in a thread of its own, until it is gone."""
        try:
            while True:
                number, place = self._heed(video)
                parts = self._held.pop(number)
                if place != NOT_WANTED:
                    self._write(parts, place)
                    self._tell(Written(number))
                del parts
                self._room.release()
        except (_WorkerGoneError, OSError):
            self._gone.set()
            self._room.release(_MOST_HELD)
        except MemoryError as error:
            os._exit(_tell_end(self._link, error))

    def _heed(self, video: Video | ImageFolder) -> tuple[int, int]:
        """Waits for the worker's answer; returns the number of the picture and its place."""
        packet = self._link.recv(MOST_BYTES)
        if not packet:
            raise _WorkerGoneError
        number, place, look_interval_s = parse_answer(packet)
        if isinstance(video, Video):
            video.look_interval_s = look_interval_s
        return number, place

    def _write(self, parts: list[NDArray[np.uint8]], place: int) -> None:
        if os.pwritev(self._memory, [part.data for part in parts], place) != sum(part.nbytes for part in parts):
            raise MemoryError("the shared memory for pictures is full")


def _require_memory(video: Video | ImageFolder) -> None:
    """Raises MemoryError where there is none for a picture: FFmpeg calls that damage."""
    pixels = video.pixels if isinstance(video, Video) else 0
    if pixels:
        try:
            mmap.mmap(-1, _BYTES_A_PIXEL * pixels).close()
        except OSError as error:
            raise MemoryError(str(error)) from None


def _is_still(video: Video | ImageFolder) -> bool:
    return isinstance(video, Video) and video.still
