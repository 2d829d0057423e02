"""Write and read video files as plain pictures, for what people look at: demo footage, annotated clips.

Cameras and files that the worker processes are read by :mod:`worker.video.reader`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2

from worker.errors import OutputError, SourceError
from worker.types import Image


class ClipWriter:
    """An H.264 file that takes one picture after the other; use it as a context manager.

    Two runs on the same pictures give the same file: one encoding thread, no dates.

    Args:
        path: file to write; its suffix chooses the container (``.mp4``).
        size: (width, height) px, both even.
        fps: pictures a second.
        crf: x264's constant rate factor; smaller is better and larger.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float | Fraction, *, crf: int = 20) -> None:
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"H.264 needs even sides, not {size[0]}x{size[1]}")
        self._path = path
        with self._told():
            self._file = av.open(str(path), "w", options={"movflags": "+faststart"})
            self._stream: Any = self._file.add_stream("libx264", rate=Fraction(fps).limit_denominator(60_000))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            # Five times quicker than the next preset, for a file three times the size: these clips are short.
            self._stream.options = {"preset": "ultrafast", "crf": str(crf), "threads": "1"}
            self._file.start_encoding()  # opens the file, which is otherwise left to the first picture

    def write(self, image: Image) -> None:
        """Appends ``image``, uint8 RGB (H, W, 3) of the clip's size.

        Raises:
            OutputError: the file cannot be written.
        """
        planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)  # a tenth of the time that PyAV's conversion takes
        with self._told():
            self._file.mux(self._stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))

    def close(self) -> None:
        """Writes what is left, and closes the file.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._told():
            self._file.mux(self._stream.encode(None))
            self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = error.strerror or error
            raise OutputError(f"{self._path}: cannot be written: {reason}; choose another folder") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ClipReader:
    """A video file opened by :func:`open_clip`: ``size`` (width, height) px, ``fps``, and its pictures in order."""

    def __init__(self, path: Path, file: Any) -> None:
        if not file.streams.video:
            raise SourceError(f"{path}: holds no video; give a video file")
        self._path, self._file, stream = path, file, file.streams.video[0]
        self.size: tuple[int, int] = (stream.width, stream.height)
        self.fps = Fraction(stream.average_rate or 25)

    def __iter__(self) -> Iterator[Image]:
        """uint8 RGB (H, W, 3), one after the other. Raises SourceError where the file is damaged."""
        try:
            for frame in self._file.decode(video=0):
                if frame.format.name == "yuv420p":
                    yield cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
                else:
                    yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise SourceError(f"{self._path}: cannot be decoded: {error.strerror}; is the file whole?") from None


@contextmanager
def open_clip(path: Path) -> Iterator[ClipReader]:
    """The video file at ``path``, closed at the end of the block.

    Raises:
        SourceError: no such file, or not a video.
    """
    try:
        file = av.open(str(path))
    except (OSError, av.FFmpegError) as error:
        raise SourceError(f"{path}: cannot be opened as a video: {error.strerror}; is it a video file?") from None
    with file:
        yield ClipReader(path, file)


def repeat_clip(clip: Path, target: Path, seconds: float) -> float:
    """Writes the H.264 video ``clip`` to ``target`` again and again, without coding it anew, until it lasts
    ``seconds``; returns its frames a second.

    Raises:
        SourceError: it is not an H.264 video.
    """
    with open_clip(clip), av.open(str(clip)) as source, av.open(str(target), "w") as repeated:
        video: Any = source.streams.video[0]
        if video.codec_context.name != "h264":
            raise SourceError(f"{clip}: is {video.codec_context.name}; give a video in H.264")
        copy = repeated.add_stream_from_template(video)
        fps = float(video.average_rate or 25)
        packets = [packet for packet in source.demux(video) if packet.dts is not None]
        length = round(len(packets) / fps / float(video.time_base))
        for repeat in range(int(seconds * fps / len(packets)) + 1):
            for packet in packets:
                packet.stream = copy
                packet.time_base = video.time_base
                packet.pts, packet.dts = packet.pts + bool(repeat) * length, packet.dts + bool(repeat) * length
                repeated.mux(packet)
        return fps
