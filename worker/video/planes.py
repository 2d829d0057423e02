"""From a decoder's planes to the pictures that are looked at: RGB, or grey for the motion gate."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.types import Image, LazyImage, Planes
from worker.video.geometry import AS_IT_IS, Geometry

_LOW: Final = frozenset({"yuv420p", "yuvj420p", "nv12"})
_HALVED: Final = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
_BYTE_PLANES: Final = _HALVED | {"yuv444p", "yuvj444p", "gray"}
_APART: Final = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_GREY_FIRST: Final = _BYTE_PLANES | {"nv12"}
"""Formats whose first plane is the grey picture, a byte a pixel: it is read without converting anything."""

_of_thread = threading.local()


def planes_of(frame: VideoFrame, geometry: Geometry, *, apart: bool = False) -> Planes:
    """The planes of a decoded frame, which they keep alive. Nothing is copied.

    ``apart``: U and V that lie by turns, as a GPU decodes them, are copied apart. So the planes are those that the
    processor decodes, and what is made of them is the same.

    Raises:
        SourceError: they cannot be copied.
    """
    if apart and frame.format.name in _APART:
        with _told_of(frame.format.name):
            frame = _reformatter().reformat(frame, format=_APART[frame.format.name], threads=1)
    form, width, height = frame.format.name, frame.width, frame.height
    return Planes(
        form,
        width,
        height,
        tuple(_rows(plane)[:, : _row_bytes(form, index, width)] for index, plane in enumerate(frame.planes)),
        int(frame.color_range),
        int(frame.colorspace),
        geometry.turn,
        float(geometry.aspect),
        frame,
    )


def packed(planes: Planes) -> list[NDArray[np.uint8]]:
    """The planes as whole rows, uint8 (rows, bytes from one row to the next), contiguous; copied if they are not."""
    if isinstance(planes.origin, VideoFrame):
        return [np.ascontiguousarray(_rows(plane)) for plane in planes.origin.planes]
    return [np.ascontiguousarray(plane) for plane in planes.planes]


def planes_in(
    memory: NDArray[np.uint8], form: str, size: tuple[int, int], rows: list[int], strides: list[int], **fields: Any
) -> Planes:
    """The planes that lie one behind the other in ``memory``, uint8 (n,), as :func:`packed` gives them; not copied.

    ``size``: (width, height) px. ``fields``: the other fields of :class:`Planes`.

    Raises:
        ValueError: they do not fit.
    """
    width, height = size
    ends = np.cumsum(np.multiply(rows, strides)).tolist()
    whole = [
        memory[end - count * stride : end].reshape(count, stride)
        for end, count, stride in zip(ends, rows, strides, strict=True)
    ]
    planes = tuple(plane[:, : _row_bytes(form, index, width)] for index, plane in enumerate(whole))
    for index, plane in enumerate(planes):
        wanted = (-(-height // 2) if index and form in _LOW else height, _row_bytes(form, index, width))
        if wanted[1] is not None and plane.shape != wanted:
            raise ValueError("a plane of another size")
    origin = _frame_over(memory[: ends[-1]], form, width, height, rows, strides)
    if origin is not None:
        origin.color_range, origin.colorspace = fields["colour_range"], fields["matrix"]
    return Planes(form, width, height, planes, origin=memory if origin is None else origin, **fields)


def _frame_over(
    memory: NDArray[np.uint8], form: str, width: int, height: int, rows: list[int], strides: list[int]
) -> VideoFrame | None:
    """A frame that lies in ``memory``; None where PyAV cannot make one of this layout."""
    half = strides[0] // 2
    halves = {"yuv420p": [half, half], "yuvj420p": [half, half], "nv12": [strides[0]]}.get(form)
    if halves is None or width % 2 or height % 4 or strides[0] % 2 or strides[0] < width:
        return None
    if strides[1:] != halves or rows != [height, *(height // 2 for _ in halves)]:
        return None
    return VideoFrame.from_numpy_buffer(memory.reshape(-1, strides[0]), form, width)


def planes_of_image(image: Image) -> Planes:
    """Those of uint8 (H, W, 3) RGB that is upright already. Nothing is copied if it is contiguous."""
    height, width = image.shape[:2]
    return Planes("rgb24", width, height, (image.reshape(height, 3 * width),))


def rgb_of(planes: Planes) -> Image:
    """uint8 (H, W, 3), upright and on square pixels.

    Raises:
        SourceError: the picture cannot be converted.
    """
    plain = planes.planes[0].reshape(planes.height, planes.width, 3) if _is_plain(planes) else None
    return Geometry(planes.turn, planes.aspect).apply(_converted(planes, "rgb24") if plain is None else plain)


def lazy_of(planes: Planes) -> LazyImage | None:
    """The picture, to be converted by whoever needs RGB; None where that is not done pixel by pixel: where it must be
    turned or stretched, or where FFmpeg mixes the colours of neighbours."""
    upright = planes.turn == AS_IT_IS and planes.aspect == 1.0
    plain = planes.form in {"yuv420p", "yuvj420p"} and planes.width % 2 == planes.height % 2 == 0
    return LazyImage(planes, rgb_of) if upright and plain else None


def grey_of(planes: Planes) -> NDArray[np.uint8]:
    """uint8 (height, width) as stored, neither turned nor stretched: a view where the format has such a plane.

    Raises:
        SourceError: the picture cannot be converted.
    """
    if planes.form in _GREY_FIRST:
        return planes.planes[0]
    return planes.planes[0][:, 1::3] if _is_plain(planes) else _converted(planes, "gray")


def _is_plain(planes: Planes) -> bool:
    """Whether it is a picture of :func:`planes_of_image`."""
    return planes.form == "rgb24" and planes.origin is None


def _converted(planes: Planes, form: str) -> NDArray[np.uint8]:
    with _told_of(planes.form):
        frame = planes.origin if isinstance(planes.origin, VideoFrame) else _frame_of(planes)
        # The thread that converts is one of several already: FFmpeg would start more for each picture.
        image = _reformatter().reformat(frame, format=form, threads=1).to_ndarray()
    # FFmpeg pads the rows of widths that do not suit it.
    return np.ascontiguousarray(image, np.uint8)


@contextmanager
def _told_of(form: str) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        raise SourceError(f"a picture of format {form} cannot be converted: {type(error).__name__}") from None


def _reformatter() -> VideoReformatter:
    found: VideoReformatter | None = getattr(_of_thread, "reformatter", None)
    if found is None:
        found = _of_thread.reformatter = VideoReformatter()
    return found


def _frame_of(planes: Planes) -> VideoFrame:
    """A frame with a copy of the planes."""
    frame = VideoFrame(planes.width, planes.height, planes.form)
    for plane, source in zip(frame.planes, planes.planes, strict=True):
        rows = _rows(plane)
        width = min(rows.shape[1], source.shape[1])
        rows[:, :width] = source[:, :width]
        rows[:, width:] = 0
    frame.color_range, frame.colorspace = planes.colour_range, planes.matrix
    return frame


def _rows(plane: Any) -> NDArray[np.uint8]:
    """uint8 (rows, bytes from one row to the next) from the top, whichever way they lie in memory."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size) or plane.buffer_size)
    return rows if plane.line_size >= 0 else rows[::-1]


def _row_bytes(form: str, index: int, width: int) -> int | None:
    """How many bytes of a plane's row are picture; None where all may be."""
    if form == "rgb24":
        return 3 * width
    if form == "nv12":
        return 2 * (-(-width // 2)) if index else width
    if form in _BYTE_PLANES:
        return -(-width // 2) if index and form in _HALVED else width
    return None
