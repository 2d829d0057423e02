"""Pictures out of video files, network streams, devices and folders of images.

PyAV rather than ``cv2.VideoCapture``: see ``docs/decisions/decoder.md``.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import av
import av.logging
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.hosts import ALLOW, HostPolicy, HostRefusedError
from worker.observer import Observer
from worker.types import Planes
from worker.video import jpeg_stream
from worker.video.addresses import Address
from worker.video.geometry import Straightener
from worker.video.jpeg_stream import JpegStream, jpegs_in
from worker.video.photos import list_photos, read_cut_jpeg, read_photo
from worker.video.planes import planes_of, planes_of_image
from worker.video.schedule import may_pass_over
from worker.video.steadying import SteadyPackets
from worker.video.timelines import LiveEdge
from worker.video.web import SourceSilentError, Web

FOLDER_FPS: Final = 25.0
"""A folder of images counts as this many a second."""

_UNTIMED_FORMATS: Final = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_BEGIN_OF_JPEG: Final = b"\xff\xd8"
_END_OF_JPEG: Final = b"\xff\xd9"
_TRAILER_BYTES: Final = 64
_ADRIFT_S: Final = 60.0
_MATRIX_NUMBERS: Final = 9
_FIXED_POINT: Final = 1 << 16
_MOST_HELD: Final = 20  # 16 by the standards, and one for each further thread
_MAX_FRUITLESS_READS: Final = 10
_RAISE_LIMIT: Final = "scale them down, or raise the camera's max_megapixels"
_ROUNDING_PX: Final = 63
_RTSP_PORT: Final = 554
_MOST_ROWS: Final = 16_384
_PLAYLISTS: Final = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl"})
_TIMEOUTS: Final = (av.error.ExitError, av.error.TimeoutError)
_PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    # HTTP is read by worker.video.web; the names are needed for what a playlist names.
    "http": "http,https,crypto",
    "https": "https,crypto",
}

# FFmpeg's own messages quote URLs with their passwords.
av.logging.set_level(None)


class SourceMemoryError(SourceError):
    """Decoding needs more memory than there is."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture.

    ``pts_s`` is seconds since the beginning of the source, None where the source does not say. ``planes`` gives its
    pixels, and may be called until the next picture is asked for; it is None if the picture was passed over, and raises
    SourceError if they cannot be had.
    """

    pts_s: float | None
    planes: Callable[[], Planes] | None = None


class Video:
    """An open video. Use from one thread; :meth:`pictures` may be called once.

    Attributes:
        look_interval_s: where nobody looks more often than this, pictures in between that no other one depends on
            are not decoded; 0 decodes every picture. Which ones depends on the video alone.
        still: it comes over HTTP and is no stream but a single picture, unless further ones follow (``alone``: a
            JPEG outside of a multipart answer).
        tell: is told what is odd about it, perhaps more than once.
        refused: which pictures were not decoded for their size; empty if there were none.
    """

    def __init__(
        self,
        container: InputContainer,
        address: Address,
        camera: CameraConfig,
        observer: Observer,
        web: Web | None = None,
        *,
        alone: bool = False,
        begun_s: float,
    ) -> None:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            container.close()
            raise SourceError(f"{address.label} holds no video that can be decoded: give a video stream or file")
        self._on_gpu = camera.decode_on == "gpu"
        if self._on_gpu and not stream.codec_context.is_hwaccel:
            container.close()
            raise SourceError(_not_on_gpu(address, f"a GPU decodes no {stream.codec_context.name}"))
        self._max_pixels = camera.max_pixels
        if _pixels(stream) > self._max_pixels:
            width, height = stream.codec_context.width, stream.codec_context.height
            container.close()
            raise SourceError(
                f"{address.label} has pictures of {width}x{height} px, more than {self._max_pixels / 1e6:g} "
                f"megapixels; {_RAISE_LIMIT}"
            )
        # The size may change on the way: the decoder itself refuses more, before it takes memory for it.
        stream.codec_context.options = _limit(camera)
        self._container = container
        self._web = web
        self._arrived = web.arrived if web is not None else lambda: None
        self._stream = stream
        self._address = address
        self._observer = observer
        # A second thread costs an eighth more CPU time and delays live pictures; recordings may use spare cores.
        stream.codec_context.thread_count = 1 if address.live else max(1, min(4, (os.cpu_count() or 1) // 2))
        stream.codec_context.thread_type = "FRAME"
        rate = stream.average_rate or stream.guessed_rate
        self.frame_interval_s = float(1 / rate) if rate else 1 / 25
        self.duration_s = container.duration / 1_000_000 if container.duration else None
        self.still = address.kind == "network" and (alone or _is_of_stills(container.format.name))
        self._timed = not self.still and not (address.live and container.format.name in _UNTIMED_FORMATS)
        self.look_interval_s = 0.0
        self.tell: Callable[[str], None] = lambda _what: None
        self.refused = ""
        self._straightener = Straightener(camera, lambda what: self.tell(what))
        said = stream.sample_aspect_ratio
        # What the container says holds throughout; what the stream itself says may change within it.
        self._container_aspect = said if said != stream.codec_context.sample_aspect_ratio else None
        self._matrix: NDArray[np.int32] | None = None
        # AVI holds times of decoding alone, and FFmpeg makes up wrong times of display where pictures are reordered.
        # The pictures, in the order of display, have the times of decoding in their order.
        self._turns: deque[int] | None = deque(maxlen=_MOST_HELD) if container.format.name == "avi" else None
        self._cut_short = False
        self._may_pass_over: list[float] = []
        self._edge = LiveEdge(begun_s) if address.kind == "network" and self._timed and not self.recording else None

    @property
    def behind(self) -> bool:
        """A live stream is read later than it is sent, so that some of it is passed over."""
        return self._edge is not None and self._edge.behind

    @property
    def late_s(self) -> float:
        """By how much longer than usual a live stream's last packet was under way; 0 if its times do not say."""
        return 0.0 if self._edge is None else self._edge.late_s

    @property
    def pixels(self) -> int:
        """How many a picture has, as far as is known; 0 if that is not."""
        return _pixels(self._stream)

    @property
    def recording(self) -> bool:
        """It has an end: a file, or one that is served over HTTP."""
        if self.still:
            return False
        if self._address.kind == "network":
            return self.duration_s is not None and self._address.over_http
        return self._address.kind == "file"

    def pictures(self, keep_going: Callable[[], bool]) -> Iterator[Picture | None]:
        """Each picture in the order of display; None in place of one that cannot be decoded.

        ``keep_going`` is asked after each packet, so also while nothing can be decoded.

        Raises:
            SourceError: reading fails (a live source: no data within the read timeout).
        """
        packets = self._of_video(keep_going)
        if self.recording and (time_base := self._stream.time_base):
            start = self._stream.start_time
            packets = iter(SteadyPackets(packets, time_base, self.frame_interval_s, start, on_oddity=self._doubt))
        for packet in packets:
            if packet is None or (self.still and not self._is_whole(packet)):
                yield None
            else:
                yield from self._decoded(packet)
        if not self._cut_short:
            yield from self._decoded(None)

    def close(self) -> None:
        self._container.close()
        if self._web is not None:
            self._web.close()

    def _is_whole(self, packet: av.Packet) -> bool:
        """Whether a single picture has come to its end; FFmpeg makes up what is missing in a JPEG."""
        data = bytes(packet)
        if not data.startswith(_BEGIN_OF_JPEG) or _END_OF_JPEG in data[-_TRAILER_BYTES:]:
            return True
        if read_cut_jpeg(data, self._max_pixels) is None:
            return False
        self.tell("the camera's pictures lack their last bytes, which only say that they end: they are taken")
        return True

    def _of_video(self, keep_going: Callable[[], bool]) -> Iterator[Any]:
        """Those packets that belong to the video, as long as it is to go on."""
        for packet in self._packets():
            if not keep_going():
                self._cut_short = True
                return
            if packet is None or packet.stream.index == self._stream.index:
                if packet is not None and self._turns is not None:
                    packet.pts = None
                yield packet

    def _packets(self) -> Iterator[Any]:
        """Each packet; None in place of damage in a recording. Behind the damage, reading goes on."""
        fruitless = 0
        while fruitless < _MAX_FRUITLESS_READS:
            fruitless += 1
            try:
                for packet in self._container.demux():
                    self._arrived()
                    if packet.size:
                        fruitless = 0
                        yield packet
            except av.error.InvalidDataError as error:
                if self._address.live:
                    raise self._read_error(error) from None
                if not fruitless:
                    yield None
            except (av.error.FFmpegError, OSError) as error:
                raise self._read_error(error) from None
            except IndexError:
                # Damage can make further streams appear on the way; at the end PyAV stumbles over them.
                return
            else:
                return

    def _decoded(self, packet: av.Packet | None) -> Iterator[Picture | None]:
        """The pictures that ``packet`` completes; without a packet, those that the decoder still holds."""
        if packet is not None:
            self._thin_out(packet)
            if self._turns is not None and packet.dts is not None:
                self._turns.append(packet.dts)
        try:
            with self._observer.stage("decode"):
                frames = self._stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self._note_damage(error)
            yield None
            return
        for frame in frames:
            if self._turns:
                frame.pts = self._turns.popleft()
            if frame.width * frame.height > self._max_pixels:
                self._refuse()
                yield None
                continue
            yield from self._passed_over_before(frame)
            yield None if frame.is_corrupt else self._picture(frame)
        if packet is None:
            yield from map(Picture, sorted(self._may_pass_over))
            self._may_pass_over.clear()

    def _note_damage(self, error: av.error.FFmpegError) -> None:
        if isinstance(error, MemoryError):
            raise self._read_error(error) from None
        if isinstance(error, av.error.ArgumentError) or _pixels(self._stream) > self._max_pixels:
            self._refuse()

    def _refuse(self) -> None:
        self.refused = f"pictures of a senseless size, or larger than {self._max_pixels / 1e6:g} megapixels"
        self.tell(f"{self.refused} are passed over ({_RAISE_LIMIT})")

    def _doubt(self, what: str) -> None:
        self.tell(f"the recording's clock is not believed: {what}")

    def _thin_out(self, packet: av.Packet) -> None:
        """Lets the decoder pass over ``packet``: where no look falls due with it and no other picture depends on it, or
        where the stream is read too late."""
        pts_s = self._pts_s(packet)
        needless = may_pass_over(pts_s, self.frame_interval_s, self.look_interval_s)
        late = (
            self._edge is not None
            and pts_s is not None
            and self._edge.passes_over(pts_s, time.monotonic(), is_key=packet.is_keyframe)
        )
        self._stream.codec_context.skip_frame = "ALL" if late else "NONREF" if needless else "DEFAULT"
        if late:
            self.tell("the worker reads the stream more slowly than it is sent: it passes over what is old")
        if pts_s is not None and (needless or late):
            self._may_pass_over.append(pts_s)

    def _passed_over_before(self, frame: VideoFrame) -> Iterator[Picture]:
        """The pictures that should have come before ``frame`` and did not: the decoder has passed over them."""
        pts_s = self._pts_s(frame)
        if pts_s is None or not self._may_pass_over:
            return
        # Those of a live clock that has jumped back since have no place among the times that come.
        adrift = sum(other_s > pts_s + _ADRIFT_S for other_s in self._may_pass_over)
        yield from (Picture(None) for _ in range(adrift))
        yield from map(Picture, sorted(other_s for other_s in self._may_pass_over if other_s < pts_s))
        self._may_pass_over = [other_s for other_s in self._may_pass_over if pts_s < other_s <= pts_s + _ADRIFT_S]

    def _read_error(self, error: Exception) -> SourceError:
        kind = (
            SourceSilentError if isinstance(error, _TIMEOUTS)
            else SourceMemoryError if isinstance(error, MemoryError)
            else SourceError
        )  # fmt: skip
        return kind(f"{self._address.label}: reading stopped: {_problem(error)}")

    def _picture(self, frame: VideoFrame) -> Picture:
        aspect = self._container_aspect or self._stream.codec_context.sample_aspect_ratio
        matrix = _display_matrix(frame)
        if matrix is not None:
            # What the stream itself says may stand beside key frames or the first picture alone, and holds behind them.
            self._matrix = matrix
        geometry = self._straightener.geometry(self._matrix, aspect)
        return Picture(self._pts_s(frame), partial(planes_of, frame, geometry, apart=self._on_gpu))

    def _pts_s(self, item: VideoFrame | av.Packet) -> float | None:
        # Frames that the decoder still held at the end come without their time base.
        time_base = item.time_base or self._stream.time_base
        if not self._timed or item.pts is None or time_base is None:
            return None
        return float((item.pts - (self._stream.start_time or 0)) * time_base)


class ImageFolder:
    """The images of a folder, in the order of their names, as a recording."""

    recording = True
    frame_interval_s = 1 / FOLDER_FPS

    def __init__(self, address: Address, camera: CameraConfig) -> None:
        self._geometry = Straightener(camera, lambda _what: None).geometry(None, None)
        self._paths = list_photos(Path(address.target))
        self._max_pixels = camera.max_pixels
        if not self._paths:
            raise SourceError(f"{address.label} holds no images: give a folder of images, a video file or a URL")
        self.duration_s = len(self._paths) / FOLDER_FPS

    def pictures(self, keep_going: Callable[[], bool]) -> Iterator[Picture | None]:
        """Each image; None in place of one that cannot be read."""
        for number, path in enumerate(self._paths):
            if not keep_going():
                return
            try:
                image = self._geometry.apply(read_photo(path, max_pixels=self._max_pixels))
            except SourceError:
                yield None
            else:
                yield Picture(number / FOLDER_FPS, partial(planes_of_image, image))

    def close(self) -> None:
        """Nothing stays open."""


def open_video(
    address: Address, camera: CameraConfig, observer: Observer, hosts: HostPolicy | None = None
) -> Video | ImageFolder:
    """Open a source.

    Blocks for at most twice ``open_timeout_s`` (to connect, and to learn what the stream is), apart from the
    look-up of a host's name, which FFmpeg cannot limit.

    Raises:
        SourceError: missing, unreadable, not a video, refused, silent; without credentials in its text.
    """
    if address.kind == "folder":
        if camera.decode_on == "gpu":
            raise SourceError(_not_on_gpu(address, "a GPU decodes no folder of images"))
        return ImageFolder(address, camera)
    if address.kind == "file" and not Path(address.target).is_file():
        raise SourceError(f"{address.label}: no such file; check the path")
    if address.kind == "file" and not Path(address.target).stat().st_size:
        raise SourceError(f"{address.label}: the file is empty; was it copied completely?")
    # FFmpeg decodes a little to learn what it is: the limit holds there too.
    options = _options(address, camera) | _limit(camera)
    arguments: dict[str, Any] = {"options": options, "metadata_errors": "replace"}
    if address.live:
        arguments["timeout"] = (camera.open_timeout_s, camera.read_timeout_s)
    if address.kind == "device":
        arguments["format"] = "video4linux2,v4l2"
    if camera.decode_on == "gpu":
        arguments["hwaccel"] = HWAccel("cuda", allow_software_fallback=False)
    begun_s = time.monotonic()
    web, target = _way_to(address, camera, hosts or HostPolicy(), arguments)
    try:
        container = av.open(target, **arguments)
    except (av.error.FFmpegError, OSError, SourceError, RuntimeError) as error:
        if web is not None:
            web.close()
        raise _refusal(error, address, camera, begun_s) from None
    alone = isinstance(target, JpegStream) and target.alone
    return Video(container, address, camera, observer, web, alone=alone, begun_s=begun_s)


def _way_to(
    address: Address, camera: CameraConfig, hosts: HostPolicy, arguments: dict[str, Any]
) -> tuple[Web | None, Any]:
    """What FFmpeg is to open, and by which HTTP; adds to its ``arguments``."""
    if address.kind != "network":
        return None, address.target
    if not address.over_http:
        _require_reachable(address, hosts)
        return None, address.target
    web = Web(address.target, address.label, camera, hosts)
    file = web.open()
    arguments["io_open"] = web.open_further
    if file.kind in _PLAYLISTS:
        arguments["format"] = "hls"
        return web, file
    try:
        jpegs = jpegs_in(file)
    except SourceError:
        web.close()
        raise
    if jpegs is None:
        return web, file
    arguments["format"] = jpeg_stream.FORMAT
    return web, jpegs


def _refusal(error: Exception, address: Address, camera: CameraConfig, begun_s: float) -> Exception:
    """What a source that was asked for at ``begun_s`` is refused with, if ``error`` kept it from being opened."""
    if isinstance(error, SourceError) or (camera.decode_on != "gpu" and isinstance(error, RuntimeError)):
        return error
    if camera.decode_on == "gpu" and (why := _why_not_on_gpu(error)):
        return SourceError(_not_on_gpu(address, why))
    problem = _problem(error)
    # FFmpeg's RTSP client calls an interrupted handshake invalid data.
    if address.live and time.monotonic() - begun_s >= camera.open_timeout_s:
        problem = f"no answer within {camera.open_timeout_s:g} s"
    kind = SourceMemoryError if isinstance(error, MemoryError) else SourceError
    return kind(f"{address.label} cannot be opened: {problem}; {_advice(address)}")


def _require_reachable(address: Address, hosts: HostPolicy) -> None:
    """Looks at the address of an RTSP server before FFmpeg does. It is not asked itself: cameras serve few clients, and
    some end the stream of one when another comes."""
    parts = urlsplit(address.target)
    with suppress(OSError, ValueError):  # FFmpeg finds the same, and says it better
        try:
            hosts.addresses(parts.hostname or "", parts.port or _RTSP_PORT, own=parts.hostname or "")
        except HostRefusedError as error:
            raise SourceError(f"{address.label}: {error}; {ALLOW}") from None


def _options(address: Address, camera: CameraConfig) -> dict[str, str]:
    if address.kind == "device":
        return {}
    if address.kind == "file":
        return {"protocol_whitelist": "file"}
    scheme = address.target.split(":", 1)[0].lower()
    # A second longer than PyAV's own interrupts: their error says that it was a timeout.
    socket_timeout_us = str(int((max(camera.open_timeout_s, camera.read_timeout_s) + 1) * 1_000_000))
    # Only the frame rate takes long to find out, and nothing here depends on it.
    options = {"protocol_whitelist": _PROTOCOLS[scheme], "fpsprobesize": "0", "analyzeduration": "1000000"}
    if scheme in ("rtsp", "rtsps"):
        return options | {
            "rtsp_transport": camera.transport,
            "allowed_media_types": "video",
            "timeout": socket_timeout_us,
        }
    # FFmpeg's own HTTP would keep connections.
    return options | {"http_persistent": "0", "http_multiple": "0"}


def _problem(error: Exception) -> str:
    """What went wrong, without the file name or URL that the exception's own text quotes."""
    if isinstance(error, _TIMEOUTS):
        return "no answer within the timeout"
    if isinstance(error, av.error.InvalidDataError):
        return "not a video that can be read, or a damaged one"
    strerror = getattr(error, "strerror", None)
    return str(strerror) if strerror else type(error).__name__


def _advice(address: Address) -> str:
    if address.kind == "network":
        return "check address, credentials and network"
    return "check that it is a camera that nothing else uses" if address.kind == "device" else "check the file"


def _not_on_gpu(address: Address, why: str) -> str:
    return f"{address.label} cannot be decoded on a GPU: {why}; leave decode_on out, or choose 'processor'"


def _why_not_on_gpu(error: Exception) -> str:
    """Empty if the GPU is not the reason of ``error``. FFmpeg's own words are those of a file that cannot be read."""
    if not isinstance(error, av.error.FFmpegError | OSError):
        return "a GPU decodes no video of its kind"
    try:
        HWAccel("cuda").create(av.Codec("h264", "r"))
    except (av.error.FFmpegError, OSError, NotImplementedError):
        return "no NVIDIA GPU can be used here (see nvidia-smi)"
    return ""


def _is_of_stills(format_name: str) -> bool:
    """Whether this is one of FFmpeg's formats for pictures, such as ``image2`` or ``png_pipe``."""
    return format_name == "image2" or format_name.endswith("_pipe")


def _limit(camera: CameraConfig) -> dict[str, str]:
    # FFmpeg counts the width as the next multiple of 64.
    return {"max_pixels": str(camera.max_pixels + _ROUNDING_PX * _MOST_ROWS)}


def _pixels(stream: VideoStream) -> int:
    return stream.codec_context.width * stream.codec_context.height


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    """The 9 numbers of the frame's display matrix; None without one."""
    try:
        # ``frame.side_data`` would refer back to its frame: only the garbage collector frees a frame that was asked for
        # it, with its picture and the threads of its conversion.
        found: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    except ValueError:  # PyAV does not know another kind of data that the frame carries
        return _matrix_of_rotation(frame.rotation)
    matrix = np.frombuffer(bytes(found), np.int32) if found is not None else None
    return matrix if matrix is not None and matrix.size == _MATRIX_NUMBERS else None


def _matrix_of_rotation(degrees: int) -> NDArray[np.int32] | None:
    """The display matrix that turns counter-clockwise by ``degrees``."""
    angle = -math.radians(degrees)
    turned = (math.cos(angle), math.sin(angle), 0, -math.sin(angle), math.cos(angle), 0, 0, 0, 1)
    return np.array([number * _FIXED_POINT for number in turned], np.int32) if degrees else None
