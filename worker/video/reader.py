"""Cameras: one decode thread each, which opens again what breaks, and whose end is always told."""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from worker.config import CameraConfig
from worker.errors import FacestreamError, SourceError
from worker.logs import get_logger
from worker.observer import Observer, SourceState
from worker.redaction import redact
from worker.video.addresses import Address, parse_address
from worker.video.buffers import FrameBuffer, RawFrame
from worker.video.child_video import DecoderDiedError, Fate
from worker.video.connection import Connection, Opener, Source
from worker.video.decoder import ImageFolder, Picture, open_video
from worker.video.planes import grey_of
from worker.video.timelines import LiveTimeline, RecordingTimeline, Timeline

MAX_ABANDONED: Final = 3
"""The most threads of one camera that may hang in FFmpeg; while there are as many, no further try is made."""

MOST_DEATHS: Final = 5
DEATHS_WITHIN_S: Final = 600.0
"""A camera whose decoder dies so often within this time is given up: what it sends will kill the next one as well."""

_WIDEST_SPACING_S: Final = 10.0
_SPACING_WEIGHT: Final = 0.1

_log = get_logger(__name__)


def backoff_s(
    attempt: int,
    initial_s: float,
    maximum_s: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Pause before try ``attempt`` (from 0): exponential with full jitter, so that cameras that failed together do not
    come back together.

    M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return uniform(0.0, min(maximum_s, initial_s * 2.0 ** min(attempt, 32)))


def find_fault(camera: CameraConfig) -> SourceError | None:
    """Why a file or folder cannot be read at all; None where it can. None for network and device: they may come back.

    Raises:
        ConfigError: the camera's source is not one that is read.
    """
    address = parse_address(camera.source.get_secret_value())
    if address.live:
        return None
    try:
        open_video(address, camera, Observer()).close()
    except SourceError as error:
        return error
    return None


class CameraReader:
    """Reads one camera into its buffer until the source ends, fails for good or :meth:`stop` is called.

    A live source (network, device) is reopened whenever it breaks; a recording (file, folder, a video that is
    served over HTTP) ends, or fails with :attr:`error`. A single picture over HTTP is asked for again and again. The
    buffer is closed at the end in each case. ``wanted``, called in the decode thread with the camera's id and a
    frame's ``pts_s``, decides whether a live frame is buffered at all, and must count what is not. Frames within
    ``look_interval_s`` of each other need not be decoded, where the video allows it; they are counted as read, and
    skipped.

    ``backoff_s`` gives the pause before each further try, from the number of the try and the limits of the camera. A
    connection that has lived for ``healthy_s`` lets it begin anew. For ``grace_s`` see :class:`Connection`.

    A thread that hangs inside FFmpeg beyond its timeouts cannot be ended from Python: it is abandoned (it ends as
    soon as FFmpeg returns) and another started, up to :data:`MAX_ABANDONED` at a time. A process that decodes is killed
    instead. A live source whose process dies is reopened like one that breaks; after :data:`MOST_DEATHS` deaths within
    :data:`DEATHS_WITHIN_S` it fails.

    Raises:
        ConfigError: the camera's source is not one that is read.
    """

    def __init__(
        self,
        camera: CameraConfig,
        buffer: FrameBuffer,
        observer: Observer | None = None,
        *,
        wanted: Callable[[str, float], bool] | None = None,
        look_interval_s: float = 0.0,
        opener: Opener = open_video,
        grace_s: float = 1.0,
        healthy_s: float = 10.0,
        backoff_s: Callable[[int, float, float], float] = backoff_s,
    ) -> None:
        self.camera_id = camera.id
        self._camera = camera
        self._address = parse_address(camera.source.get_secret_value())
        self._buffer = buffer
        self.received_monotonic_s: float | None = None
        self._observer = observer or Observer()
        self._wanted = wanted
        self._look_interval_s = look_interval_s
        self._opener = opener
        self._grace_s = grace_s
        self._healthy_s = healthy_s
        self._backoff_s = backoff_s
        self._timeline: Timeline = LiveTimeline(self._doubt_clock) if self.live else RecordingTimeline()
        self._began_at: datetime | None = None
        self._frame_interval_s = 0.0
        self._video: Source | None = None
        self._spacing_s = 0.0
        self._last_pts_s: float | None = None
        self._told: set[str] = set()
        self._played_from_s: float | None = None
        self._sequence = 0
        self._state: SourceState = "connecting"
        self._reason = ""
        self._error: FacestreamError | None = None
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._abandoned: list[Connection] = []
        self._deaths: list[float] = []
        self._thread = threading.Thread(target=self._run, name=f"source-{camera.id}", daemon=True)

    @property
    def live(self) -> bool:
        return self._address.live

    @property
    def state(self) -> SourceState:
        return self._state

    @property
    def reason(self) -> str:
        """Why it is in this state, without credentials; empty while all is well."""
        return self._reason

    @property
    def error(self) -> FacestreamError | None:
        """Set in the state ``failed``: nothing more will come from this camera."""
        return self._error

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask to stop; returns at once. Frames already buffered can still be taken."""
        self._stopping.set()
        self._buffer.close()
        connection = self._connection
        if connection is not None:
            connection.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for all threads of this camera; False where one still hangs in FFmpeg after ``timeout_s``.

        Such a thread ends by itself within the source's timeouts and hands over nothing any more.
        """
        deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s

        def left_s() -> float | None:
            return None if timeout_s is None else max(0.0, deadline_s - time.monotonic())

        if self._thread.ident is not None:
            self._thread.join(left_s())
        connections = [*self._abandoned, *([self._connection] if self._connection else [])]
        ended = [connection.join(left_s()) for connection in connections]
        return all(ended) and not self._thread.is_alive()

    # What follows runs in the supervising thread.

    def _run(self) -> None:
        try:
            self._supervise()
        except FacestreamError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a thread must not die unseen, whatever it met
            _log.exception("the reader of a camera died", camera_id=self.camera_id)
            text = " ".join(redact(str(error)).split())
            self._fail(SourceError(f"camera {self.camera_id}: reading died of {type(error).__name__}: {text}"))
        else:
            self._enter("ended", "stopped" if self._stopping.is_set() else "end of the source")
        finally:
            self._buffer.close()

    def _supervise(self) -> None:
        attempt, polling = 0, False
        while not self._stopping.is_set():
            if not polling:
                self._enter("connecting", self._reason)
            begun_s = time.monotonic()
            connection = Connection(
                self._address,
                self._camera,
                self._observer,
                on_open=self._opened,
                on_picture=self._take,
                opener=self._opener,
                grace_s=self._grace_s,
            )
            self._connection = connection
            if self._stopping.is_set():
                return
            connection.start()
            problem = self._watch(connection)
            if self._stopping.is_set() or connection.ended_well:
                return
            polling = connection.still
            if polling:
                attempt = 0
                self._stopping.wait(max(0.0, begun_s + self._camera.snapshot_interval_s - time.monotonic()))
                continue
            if connection.fate:
                self._count_death(connection, connection.fate)
            if not self.live or connection.recording:
                raise SourceError(f"camera {self.camera_id}: {problem}")
            if connection.pictures and time.monotonic() - begun_s >= self._healthy_s:
                attempt = 0
            camera = self._camera
            pause_s = self._backoff_s(attempt, camera.reconnect_initial_s, camera.reconnect_max_s)
            attempt += 1
            self._enter("waiting", f"{problem}; next try in {pause_s:.1f} s")
            self._stopping.wait(pause_s)
            self._wait_for_abandoned()

    def _count_death(self, connection: Connection, fate: Fate) -> None:
        """Gives the camera up if its decoder dies again and again. One that hangs before the source is open waits for
        the network, for which the camera can do nothing."""
        self._observer.decoder_died(self.camera_id, fate)
        if fate == "hung" and connection.phase == "open":
            return
        now_s = time.monotonic()
        self._deaths = [death_s for death_s in self._deaths if now_s - death_s < DEATHS_WITHIN_S] + [now_s]
        if len(self._deaths) >= MOST_DEATHS:
            raise SourceError(
                f"camera {self.camera_id} is given up: its decoder died {MOST_DEATHS} times within "
                f"{DEATHS_WITHIN_S / 60:g} minutes, at last: {connection.problem}"
            )

    def _watch(self, connection: Connection) -> str:
        """Returns what ended the connection, or why it was given up."""
        while True:
            overdue_s = connection.overdue_s()
            if overdue_s is not None and overdue_s >= 0:
                connection.stop()
                self._abandoned.append(connection)
                problem = f"{self._address.label}: FFmpeg hangs in {connection.phase} beyond its timeout"
                self._enter("stalled", problem)
                return problem
            patience_s = (self._camera.read_timeout_s if self.live else None) if overdue_s is None else -overdue_s
            if connection.done.wait(patience_s):
                break
        if connection.unexpected is not None:
            raise connection.unexpected
        if connection.silent or connection.fate == "hung":
            self._enter("stalled", connection.problem)
        return connection.problem

    def _wait_for_abandoned(self) -> None:
        def hanging() -> list[Connection]:
            return [connection for connection in self._abandoned if not connection.join(0)]

        self._abandoned = hanging()
        if len(self._abandoned) >= MAX_ABANDONED:
            self._enter(
                "stalled", f"{self._address.label}: {MAX_ABANDONED} tries hang in FFmpeg; waiting for one to end"
            )
        while len(self._abandoned) >= MAX_ABANDONED and not self._stopping.wait(1.0):
            self._abandoned = hanging()

    def _fail(self, error: FacestreamError) -> None:
        self._error = error
        self._enter("failed", str(error))

    def _enter(self, state: SourceState, reason: str) -> None:
        self._state, self._reason = state, reason
        self._observer.source_state(self.camera_id, state)
        if state in ("stalled", "waiting", "failed"):
            _log.warning(f"source {state}", camera_id=self.camera_id, reason=reason)
        else:
            _log.info(f"source {state}", camera_id=self.camera_id)

    # What follows runs in the thread of the connection.

    def _opened(self, video: Source) -> None:
        self._timeline.reopened()
        self._frame_interval_s = video.frame_interval_s
        self._video = video
        if not isinstance(video, ImageFolder):
            video.tell = self._tell
            if video.still and not self._spacing_s:
                self._spacing_s = min(self._camera.snapshot_interval_s, _WIDEST_SPACING_S)
        self._thin_out()
        if not video.recording:
            return
        self._began_at = _began_at(self._camera, self._address, video.duration_s)
        if self.live:
            self._timeline = RecordingTimeline()
            if self._camera.policy == "auto":
                self._buffer.policy = "every"

    def _thin_out(self) -> None:
        """Pictures are passed over by what the stream says of their times, as long as that is believed."""
        if self._video is not None and not isinstance(self._video, ImageFolder):
            self._video.look_interval_s = self._look_interval_s if self._timeline.believed else 0.0

    def _doubt_clock(self, reason: str) -> None:
        self._tell(f"the stream's times are not believed: {reason}; the times of arrival are used")

    def _tell(self, what: str) -> None:
        """Says what is odd about the source, once and not whenever it is opened."""
        if what not in self._told:
            self._told.add(what)
            _log.warning(what, camera_id=self.camera_id)

    def _measure_spacing(self, pts_s: float) -> None:
        if self._last_pts_s is not None:
            passed_s = min(pts_s - self._last_pts_s, _WIDEST_SPACING_S)
            self._spacing_s += (passed_s - self._spacing_s) * _SPACING_WEIGHT
        self._last_pts_s = pts_s

    def _take(self, picture: Picture) -> bool:
        received_s = time.monotonic()
        video = self._video
        late, late_s = (False, 0.0) if video is None or isinstance(video, ImageFolder) else (video.behind, video.late_s)
        if late:
            self._timeline.interrupted()
        pts_s = self._timeline.at(picture.pts_s, received_s, self._frame_interval_s)
        self._thin_out()
        self._measure_spacing(pts_s)
        if self._began_at is None:
            captured_at = datetime.now(UTC) - timedelta(seconds=late_s)
        else:
            captured_at = self._began_at + timedelta(seconds=pts_s)
            received_s = self._at_its_own_speed(pts_s, received_s)
        sequence, self._sequence = self._sequence, self._sequence + 1
        self._observer.frame_read(self.camera_id)
        self.received_monotonic_s = received_s
        if picture.planes is None:
            self._observer.frame_skipped(self.camera_id, "late" if late else "interval")
            return True
        if self._state != "streaming":
            self._enter("streaming", "")
        if self._wanted is not None and self._buffer.policy == "newest" and not self._wanted(self.camera_id, pts_s):
            return True
        try:
            # Here and not where it is taken: this thread is the camera's own.
            planes = picture.planes()
            grey = grey_of(planes)
        except DecoderDiedError:
            raise
        except SourceError:
            self._observer.frame_dropped(self.camera_id, "undecodable")
            return True
        return self._buffer.put(
            RawFrame(
                self.camera_id, sequence, pts_s, captured_at, received_s, planes, grey, self._spacing_s
            )
        )  # fmt: skip

    def _at_its_own_speed(self, pts_s: float, received_s: float) -> float:
        """A recording of which only the newest frame counts is played like a camera. Returns the time of arrival."""
        if self._buffer.policy != "newest":
            return received_s
        if self._played_from_s is None:
            self._played_from_s = received_s - pts_s
        self._stopping.wait(max(0.0, self._played_from_s + pts_s - received_s))
        return time.monotonic()


def _began_at(camera: CameraConfig, address: Address, duration_s: float | None) -> datetime:
    """UTC time of a recording's first frame: as configured, else so that it ends at the file's modification time.

    A recording on another host has no date that can be trusted: it begins now.
    """
    if camera.start_time is not None:
        given = camera.start_time
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    if address.live:
        return datetime.now(UTC)
    modified = datetime.fromtimestamp(Path(address.target).stat().st_mtime, UTC)
    return modified - timedelta(seconds=duration_s or 0.0)
