"""Videos that are decoded in processes of their own, which can crash, hang or be killed without harm to the worker."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal

from worker.config import CameraConfig, DecodingConfig
from worker.errors import SourceError
from worker.hosts import HostPolicy
from worker.logs import get_logger
from worker.names import clean_text
from worker.observer import Observer
from worker.redaction import redact
from worker.types import Planes
from worker.video.addresses import Address
from worker.video.child_messages import (
    BEGIN,
    MOST_BYTES,
    NOT_WANTED,
    Damaged,
    Died,
    Ended,
    Message,
    Opened,
    Passed,
    Shown,
    Told,
    Written,
    answer,
    parse,
    request,
)
from worker.video.decoder import Picture
from worker.video.geometry import TURNS
from worker.video.planes import planes_in
from worker.video.shared_pictures import SharedPictures
from worker.video.web import SourceSilentError

Fate = Literal["crashed", "killed", "hung", "memory"]
"""How a decoder ended that did not end by itself."""

_GRACE_S: Final = 0.5
"""A decoder says by itself that a source is silent; one that says nothing for so much longer hangs."""
_POLL_S: Final = 0.25
_GONE: Final = "the process that starts decoders is gone; another one is started"
_LEAVE_S: Final = 0.5
"""A decoder that is no longer needed may say good-bye to its camera for so long."""
_STOP_S: Final = 1.0
_SPARE_PICTURES: Final = 4
"""One that is written, one that is converted, and two for what is held a little longer."""
_BYTES_A_PIXEL: Final = 3
_MOST_WAITING: Final = 1000
_WIDEST: Final = 16.0
_MOST_INTERVAL_S: Final = 86_400.0
_KEPT: Final = (
    "CUDA_DEVICE_ORDER", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES", "LANG", "LC_ALL", "LD_LIBRARY_PATH",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ",
)  # fmt: skip
"""What a decoder gets of the worker's environment, which may hold keys and passwords."""

_log = get_logger(__name__)


class DecoderDiedError(SourceError):
    """The process that decodes a camera died, or hung and was killed."""

    def __init__(self, text: str, fate: Fate) -> None:
        super().__init__(text)
        self.fate: Fate = fate


class Decoders:
    """The processes that decode cameras: one for each connection, and one that forks them.

    They have no more memory than ``config`` says, end with this process, and get nothing of it but the address of
    their camera, with its login. ``queue_frames`` is how many pictures of a camera may wait. Safe to use from any
    thread.
    """

    def __init__(self, config: DecodingConfig, hosts: HostPolicy, *, queue_frames: int = 1) -> None:
        self._memory_bytes = config.memory_mb * 1_000_000
        self._hosts = hosts
        self._pictures = queue_frames + _SPARE_PICTURES
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._keeper: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins what takes most of a second, and returns at once: it need not be called."""
        with self._lock:
            self._running()

    def open(self, address: Address, camera: CameraConfig, observer: Observer) -> "ChildVideo":
        """As :func:`worker.video.decoder.open_video`, in a process of its own.

        Raises:
            SourceError: as there.
            DecoderDiedError: the process died.
        """
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = SharedPictures(self._pictures, 2 * self._pictures * _BYTES_A_PIXEL * camera.max_pixels)
        try:
            with other, self._lock:
                socket.send_fds(self._running(), [b"fork"], [other.fileno(), memory.descriptor])
            own.send(request(address, camera, self._hosts, self._memory_bytes, memory.most_bytes))
            return ChildVideo(own, memory, address, camera, observer)
        except OSError:
            own.close()
            memory.close()
            raise SourceError(f"{address.label}: {_GONE}") from None
        except BaseException:
            own.close()
            memory.close()
            raise

    def close(self) -> None:
        """Ends all of them, within a second or two."""
        with self._lock:
            self._closed = True
            if self._control is not None:
                self._control.close()
            keeper, process = self._keeper, self._process
        if keeper is None:
            return
        keeper.join(_STOP_S)
        if process is not None and keeper.is_alive():
            process.kill()
            keeper.join(_STOP_S)

    def _running(self) -> socket.socket:
        """The way to the process that forks; starts it where it does not run."""
        if self._closed:
            raise SourceError("the worker stops")
        if self._control is not None and self._keeper is not None and self._keeper.is_alive():
            return self._control
        if self._control is not None:
            _log.warning("the process that starts decoders is gone: starting another")
            self._control.close()
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        started = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(other, started), name="decoders", daemon=True)
        self._keeper.start()
        started.wait()
        return self._control

    def _keep(self, other: socket.socket, started: threading.Event) -> None:
        """Runs in a thread that lives as long as the process does: the kernel ends the process with the thread."""
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"  # it computes nothing
        command = [sys.executable, "-P", "-m", "worker.video.fork_server", str(other.fileno()), str(os.getpid())]
        try:
            with other:
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    command,
                    env=environment,
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError as error:
            _log.error("no process for decoders can be started", reason=str(error))
            return
        finally:
            started.set()
        self._process.wait()


class ChildVideo:
    """A video that a process of its own decodes; has what :class:`worker.video.decoder.Video` has.

    Raises:
        SourceError: the source cannot be opened.
        DecoderDiedError: the process died, or was silent beyond its timeouts.
    """

    def __init__(
        self, link: socket.socket, memory: SharedPictures, address: Address, camera: CameraConfig, observer: Observer
    ) -> None:
        self._link = link
        self._memory = memory
        self._address = address
        self._camera = camera
        self._observer = observer
        self._leaving_s: float | None = None
        # The kernel's own limit costs nothing; Python's costs a call for each message.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(_POLL_S * 1e6)))
        self._unanswered: int | None = BEGIN
        self._waiting: deque[Message] = deque()
        self.look_interval_s = 0.0
        self.tell: Callable[[str], None] = lambda _what: None
        self.refused = ""
        self.behind = False
        self.late_s = 0.0
        opened = self._next(2 * camera.open_timeout_s + _GRACE_S if address.live else None)
        if not isinstance(opened, Opened) or not 0.0 < opened.frame_interval_s < _MOST_INTERVAL_S:
            raise self._senseless()
        self.recording, self.still = opened.recording, opened.still
        self.frame_interval_s, self.duration_s = opened.frame_interval_s, opened.duration_s

    def pictures(self, keep_going: Callable[[], bool]) -> Iterator[Picture | None]:
        """As :meth:`worker.video.decoder.Video.pictures`.

        Raises:
            SourceError: reading fails.
            DecoderDiedError: the process died, or was silent beyond its timeouts.
        """
        self._answer(NOT_WANTED)
        while True:
            message = self._next(self._camera.read_timeout_s + _GRACE_S if self._address.live else None)
            if isinstance(message, Ended):
                return
            if isinstance(message, Told):
                self._hear(message)
                continue
            if isinstance(message, Opened | Written):
                raise self._senseless()
            if not keep_going():
                return
            match message:
                case Shown():
                    self.behind, self.late_s = message.behind, message.late_s
                    yield from map(Picture, message.passed)
                    yield self._shown(message)
                    self._answer(NOT_WANTED)
                case Passed():
                    self.behind = message.behind
                    yield from map(Picture, message.passed)
                case Damaged():
                    yield None
                case _:
                    pass

    def interrupt(self) -> None:
        """Lets :meth:`pictures` end soon, from any thread."""
        self._leaving_s = time.monotonic() + _LEAVE_S
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends the process: it may say good-bye to its camera for a moment, then it is killed."""
        with suppress(SourceError):
            if self._leaving_s is None:
                self.interrupt()
            while True:
                self._next(_LEAVE_S)
        self._link.close()
        self._memory.close()

    def _shown(self, shown: Shown) -> Picture:
        self._unanswered = shown.number
        self._observer.stage_took("decode", shown.decode_s)
        if shown.width * shown.height > self._camera.max_pixels or tuple(shown.turn) not in TURNS:
            raise self._senseless()
        if not shown.rows or len(shown.rows) != len(shown.strides) or min(*shown.rows, *shown.strides) < 1:
            raise self._senseless()
        if abs(shown.late_s) > _MOST_INTERVAL_S:
            raise self._senseless()
        if min(shown.width, shown.height) < 1 or not 1 / _WIDEST <= shown.aspect <= _WIDEST:
            raise self._senseless()
        return Picture(shown.pts_s, lambda: self._fetch(shown))

    def _fetch(self, shown: Shown) -> Planes:
        """Has the picture written to the memory that both share."""
        size = sum(count * stride for count, stride in zip(shown.rows, shown.strides, strict=True))
        place = self._memory.place_for(size, self._camera.read_timeout_s)
        memory = self._memory.view(place, size)  # from here on, the place is given back by itself
        self._answer(place)
        deadline_s = time.monotonic() + self._camera.read_timeout_s + _GRACE_S
        while not isinstance(message := self._checked(self._read(deadline_s)), Written):
            self._waiting.append(message)
            if len(self._waiting) > _MOST_WAITING:
                raise self._senseless()
        if message.number != shown.number:
            raise self._senseless()
        try:
            return planes_in(
                memory, shown.form, (shown.width, shown.height), shown.rows, shown.strides,
                colour_range=shown.colour_range, matrix=shown.matrix, turn=tuple(shown.turn), aspect=shown.aspect,
            )  # fmt: skip
        except (ValueError, OverflowError):
            raise self._senseless() from None

    def _answer(self, place: int) -> None:
        if self._unanswered is not None:
            with suppress(OSError):  # what is read next tells why
                self._link.send(answer(self._unanswered, place, self.look_interval_s))
            self._unanswered = None

    def _hear(self, told: Told) -> None:
        text = redact(clean_text(told.text))[:500]
        if told.refused:
            self.refused = text
        self.tell(text)

    def _next(self, timeout_s: float | None) -> Message:
        """The next message. Raises what ended the process, if that is what comes."""
        if self._waiting:
            return self._checked(self._waiting.popleft())
        return self._checked(self._read(float("inf") if timeout_s is None else time.monotonic() + timeout_s))

    def _read(self, deadline_s: float) -> Message:
        while True:
            now_s = time.monotonic()
            if now_s >= deadline_s:
                raise DecoderDiedError(f"{self._address.label}: its decoder hangs, and is killed", "hung")
            if self._leaving_s is not None and now_s >= self._leaving_s:
                raise SourceError(f"{self._address.label}: stopped")
            try:
                packet = self._link.recv(MOST_BYTES)
            except BlockingIOError:  # nothing came within a moment
                continue
            except ConnectionResetError:
                # It ended with an answer unread. The kernel says so once, before what was said of its end.
                continue
            except OSError:
                packet = b""
            if not packet:
                raise SourceError(f"{self._address.label}: {_GONE}")
            try:
                message = parse(packet)
            except ValueError:
                raise self._senseless() from None
            if isinstance(message, Died):
                raise self._death(message.code)
            return message

    def _checked(self, message: Message) -> Message:
        label = self._address.label
        if isinstance(message, Ended) and message.problem:
            problem = redact(clean_text(message.problem))[:1000]
            if message.kind == "memory":
                raise DecoderDiedError(
                    f"{label}: its decoder needs more memory than it may have; see decoding.memory_mb", "memory"
                )
            if message.kind == "crash":
                raise DecoderDiedError(f"{label}: its decoder died: {problem}", "crashed")
            raise SourceSilentError(problem) if message.kind == "silent" else SourceError(problem)
        return message

    def _death(self, code: int) -> SourceError:
        label = self._address.label
        if code == -signal.SIGKILL:
            return DecoderDiedError(f"{label}: its decoder was killed, perhaps for want of memory", "killed")
        if code < 0:
            with suppress(ValueError):
                return DecoderDiedError(f"{label}: its decoder crashed: {signal.Signals(-code).name}", "crashed")
        return DecoderDiedError(f"{label}: its decoder ended with code {code}", "crashed")

    def _senseless(self) -> DecoderDiedError:
        return DecoderDiedError(
            f"{self._address.label}: its decoder says what makes no sense, and is killed", "crashed"
        )
