"""One connection to a source, from its opening to its end, in a thread that somebody else watches."""

import threading
import time
from typing import Final, Protocol

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.metrics import Observer
from worker.video.addresses import Address
from worker.video.decoder import ImageFolder, Picture, SourceSilentError, Video

GRACE_S: Final = 1.0
"""FFmpeg's own timeouts come first; a watchdog acts this much later, where they did not."""

_PICTURE_PATIENCE: Final = 6
"""Data without a decodable picture is borne for so many read timeouts: key frames may be far apart."""


class Opener(Protocol):
    def __call__(self, address: Address, camera: CameraConfig, observer: Observer) -> Video | ImageFolder: ...


class Consumer(Protocol):
    """What is done with a connection's pictures, in its thread; what it raises shows as ``unexpected``."""

    def opened(self, video: Video | ImageFolder) -> None: ...

    def picture(self, picture: Picture) -> bool:
        """False: take no more pictures."""


class Connection:
    """Opens ``address`` and hands each picture to ``consumer``.

    ``done`` is set at the end or by :meth:`stop`, whichever is first. After that: ``ended_well`` (a recording is
    through, or the consumer wants no more), else ``problem`` says in one line what broke, ``silent`` whether it
    was a timeout of the stream, and ``unexpected`` holds an exception that nobody foresaw.
    """

    def __init__(
        self, address: Address, camera: CameraConfig, observer: Observer, consumer: Consumer, opener: Opener
    ) -> None:
        self._address = address
        self._camera = camera
        self._observer = observer
        self._consumer = consumer
        self._opener = opener
        self._stopping = threading.Event()
        self._picture_deadline_s = float("inf")
        self._deadline_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode-{camera.id}", daemon=True)
        self.done = threading.Event()
        self.phase = "open"
        self.pictures = 0
        self.recording = False
        self.ended_well = False
        self.silent = False
        self.problem = ""
        self.unexpected: Exception | None = None

    def start(self) -> None:
        if self._address.live:
            self._deadline_s = time.monotonic() + 2 * self._camera.open_timeout_s + GRACE_S
        self._thread.start()

    def stop(self) -> None:
        """Hand over nothing more and end as soon as FFmpeg returns."""
        self._stopping.set()
        self.done.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether its thread has ended, after waiting up to ``timeout_s``."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def overdue_s(self) -> float | None:
        """Seconds by which FFmpeg has overrun its timeouts (negative: still within); None where it has none."""
        deadline_s = self._deadline_s
        return None if deadline_s is None else time.monotonic() - deadline_s

    def _run(self) -> None:
        try:
            if not self._stopping.is_set():
                self._read()
        except SourceSilentError as error:
            self.problem = str(error)
            self.silent = self.phase == "read"
        except SourceError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - handed to the watcher, which ends the camera with it
            self.unexpected = error
        finally:
            self._deadline_s = None
            self.done.set()

    def _read(self) -> None:
        video = self._opener(self._address, self._camera, self._observer)
        try:
            if not self._stopping.is_set():
                self.recording = video.recording
                self._consumer.opened(video)
                self._hand_over(video)
        finally:
            video.close()

    def _hand_over(self, video: Video | ImageFolder) -> None:
        self.phase = "read"
        self._expect_picture()
        for picture in video.pictures(self._keep_going):
            if self._stopping.is_set():
                return
            if picture is None:
                self._observer.frame_dropped(self._camera.id, "undecodable")
                continue
            self._deadline_s = None
            self.pictures += 1
            if not self._consumer.picture(picture):
                self.ended_well = True
                return
            self._expect_picture()
        if self._stopping.is_set():
            return
        if time.monotonic() >= self._picture_deadline_s:
            raise SourceSilentError(f"{self._address.label}: data but no picture that can be decoded")
        if self.recording and not self.pictures:
            raise SourceError(f"{self._address.label}: not one picture can be decoded; the file is damaged")
        self.ended_well = self.recording
        self.problem = f"{self._address.label}: the stream ended"

    def _expect_picture(self) -> None:
        if self._address.live:
            now_s = time.monotonic()
            self._deadline_s = now_s + self._camera.read_timeout_s + GRACE_S
            self._picture_deadline_s = now_s + _PICTURE_PATIENCE * self._camera.read_timeout_s

    def _keep_going(self) -> bool:
        now_s = time.monotonic()
        if self._address.live:
            self._deadline_s = now_s + self._camera.read_timeout_s + GRACE_S
        return not self._stopping.is_set() and now_s < self._picture_deadline_s
