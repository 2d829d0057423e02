"""One connection to a source, from its opening to its end, in a thread that somebody else watches."""

import threading
import time
from collections.abc import Callable
from typing import Final

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.video.addresses import Address
from worker.video.child_video import ChildVideo, DecoderDiedError, Fate
from worker.video.decoder import ImageFolder, Picture, Video
from worker.video.web import SourceSilentError

_PICTURE_PATIENCE: Final = 6
"""Data without a picture that can be decoded is accepted for this many read timeouts: key frames may be far apart."""


Source = Video | ImageFolder | ChildVideo
Opener = Callable[[Address, CameraConfig, Observer], Source]


class Connection:
    """Opens ``address``, hands what it has opened to ``on_open`` and then each picture to ``on_picture``.

    Both are called in a thread of its own; ``on_picture`` returns False to take no more pictures. ``grace_s``:
    FFmpeg's own timeouts come first; where they do not come, it is overdue this much later.

    ``done`` is set at the end or by :meth:`stop`, whichever is first. After that: ``ended_well`` (a recording is
    through, or no more pictures are taken), ``still`` (it was a single picture, and that was taken), else ``problem``
    says in one line what broke, ``silent`` whether it was a timeout of the stream, ``fate`` how the process of the
    decoder died, if it did, and ``unexpected`` holds any other
    exception.
    """

    def __init__(
        self,
        address: Address,
        camera: CameraConfig,
        observer: Observer,
        *,
        on_open: Callable[[Source], None],
        on_picture: Callable[[Picture], bool],
        opener: Opener,
        grace_s: float = 1.0,
    ) -> None:
        self._address = address
        self._camera = camera
        self._observer = observer
        self._on_open = on_open
        self._on_picture = on_picture
        self._opener = opener
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._picture_deadline_s = float("inf")
        self._deadline_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode-{camera.id}", daemon=True)
        self.done = threading.Event()
        self.phase = "open"
        self.pictures = 0
        self.recording = False
        self.still = False
        self.ended_well = False
        self.silent = False
        self.problem = ""
        self.fate: Fate | None = None
        self.unexpected: Exception | None = None
        self._video: Source | None = None

    def start(self) -> None:
        if self._address.live:
            self._deadline_s = time.monotonic() + 2 * self._camera.open_timeout_s + self._grace_s
        self._thread.start()

    def stop(self) -> None:
        """Hand over nothing more and end as soon as FFmpeg returns."""
        self._stopping.set()
        self.done.set()
        video = self._video
        if isinstance(video, ChildVideo):
            video.interrupt()

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
        except DecoderDiedError as error:
            self.problem, self.fate = str(error), error.fate
        except SourceError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - handed to the watcher, which ends the camera with it
            self.unexpected = error
        finally:
            self._deadline_s = None
            self.done.set()

    def _read(self) -> None:
        video = self._video = self._opener(self._address, self._camera, self._observer)
        try:
            if not self._stopping.is_set():
                self.recording = video.recording
                self._on_open(video)
                self._hand_over(video)
        finally:
            video.close()

    def _hand_over(self, video: Source) -> None:
        self.phase = "read"
        self._expect_picture()
        for picture in video.pictures(self._keep_going):
            if self._stopping.is_set():
                return
            if picture is None:
                self._observer.frame_dropped(self._camera.id, "undecodable")
                continue
            if picture.planes is not None:
                self._deadline_s = None
                self.pictures += 1
            if not self._on_picture(picture):
                self.ended_well = True
                return
            if picture.planes is not None:
                self._expect_picture()
        if self._stopping.is_set():
            return
        if time.monotonic() >= self._picture_deadline_s:
            raise SourceSilentError(f"{self._address.label}: data but no picture that can be decoded{self._why(video)}")
        if not self.pictures:
            hint = self._why(video) or "; is it damaged, or cut off?"
            raise SourceError(f"{self._address.label}: not one picture can be decoded{hint}")
        self.still = not isinstance(video, ImageFolder) and video.still and self.pictures == 1
        self.ended_well = self.recording
        self.problem = f"{self._address.label}: the stream ended"

    def _expect_picture(self) -> None:
        if self._address.live:
            now_s = time.monotonic()
            self._deadline_s = now_s + self._camera.read_timeout_s + self._grace_s
            self._picture_deadline_s = now_s + _PICTURE_PATIENCE * self._camera.read_timeout_s

    def _keep_going(self) -> bool:
        now_s = time.monotonic()
        if self._address.live:
            self._deadline_s = now_s + self._camera.read_timeout_s + self._grace_s
        return not self._stopping.is_set() and now_s < self._picture_deadline_s

    def _why(self, video: Source) -> str:
        if not isinstance(video, ImageFolder) and video.refused:
            return f": {video.refused}; see max_megapixels"
        return "; does the GPU decode its kind of video? See decode_on" if self._camera.decode_on == "gpu" else ""
