"""What cameras and recorders send, as they send it: every picture, in its colours, at its time.

Turned, mirrored and squeezed pictures are in ``test_geometry``, clocks that are not to be believed in
``test_steadying`` and ``test_timelines``, damage and other connections in ``test_reader``.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from worker.config import BatchingConfig, CameraConfig
from worker.types import Frame, Image
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.reader import CameraReader

COLOURS = [[(220, 40, 40), (40, 200, 60)], [(50, 60, 220), (230, 230, 230)]]
FRAMES = 6


def quarters(width: int = 128, height: int = 96, *, grey: bool = False) -> Image:
    """Four colours, or shades of grey."""
    image = np.zeros((height, width, 3), np.uint8)
    for row, pair in enumerate(COLOURS):
        for column, colour in enumerate(pair):
            part = image[row * height // 2 :, column * width // 2 :]
            part[:] = 60 * (2 * row + column) + 20 if grey else colour
    return image


def write(
    path: Path,
    image: Image,
    codec: str,
    pixels: str,
    *,
    times_ms: Sequence[int] = range(0, 40 * FRAMES, 40),
    container_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip that shows ``image`` at each of ``times_ms``."""

    def encode() -> None:
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], pixels
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
            stream.options = options or {}
            for time_ms in times_ms:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    # For root, SVT-AV1 makes the thread that calls it one of real time, and all that this one starts: in a thread which
    # ends, since two busy processes of that kind leave nothing of two cores.
    with ThreadPoolExecutor(1) as encoder:
        encoder.submit(encode).result()
    return path


@pytest.fixture
def read() -> Iterator[Callable[[Path], list[Frame]]]:
    readers: list[CameraReader] = []

    def read_all(where: Path) -> list[Frame]:
        camera = CameraConfig(id="cam", source=str(where))
        config = BatchingConfig(queue_frames=4, max_frames=4)
        buffer = FrameBuffer.for_camera(camera, config)
        reader = CameraReader(camera, buffer)
        readers.append(reader)
        reader.start()
        frames: list[Frame] = []
        batcher = Batcher([buffer], config)
        while (batch := batcher.next_batch(20)) is not None:
            frames += batch
        assert reader.join(10)
        assert reader.error is None
        return frames

    yield read_all
    for reader in readers:
        reader.stop()


def assert_shows(frame: Frame, image: Image, tolerance: int) -> None:
    """The middles of the quarters have their colours; edges may be blurred."""
    height, width = image.shape[:2]
    assert frame.image.shape == image.shape
    for row in (height // 4, height * 3 // 4):
        for column in (width // 4, width * 3 // 4):
            assert np.abs(frame.image[row, column].astype(int) - image[row, column]).max() <= tolerance


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [
        ("libx264", "yuv420p", "ts"), ("libx264", "yuv422p", "mp4"), ("libx264", "yuv444p", "mkv"),
        ("libx264", "yuv420p10le", "mkv"), ("libx264", "yuvj420p", "mp4"),
        ("libx265", "yuv420p", "mp4"), ("libx265", "yuv420p10le", "mp4"), ("libx265", "yuv422p10le", "ts"),
        ("libx265", "yuv420p12le", "mkv"),
        ("mjpeg", "yuvj422p", "avi"), ("mjpeg", "yuvj444p", "mkv"),
        ("prores", "yuv422p10le", "mov"), ("ffv1", "yuv420p16le", "mkv"), ("qtrle", "rgb24", "mov"),
        ("png", "rgb48be", "mov"), ("libsvtav1", "yuv420p10le", "mp4"),
    ],
)  # fmt: skip
def test_colours_of_every_depth_and_sampling(
    tmp_path: Path, read: Callable[[Path], list[Frame]], codec: str, pixels: str, suffix: str
) -> None:
    image = quarters()
    frames = read(write(tmp_path / f"clip.{suffix}", image, codec, pixels))
    assert len(frames) == FRAMES
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 25 for n in range(FRAMES)], abs=0.005)
    for frame in frames:
        assert_shows(frame, image, 16)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [("libx264", "gray", "ts"), ("libx265", "gray", "mp4"), ("ffv1", "gray10le", "mkv"), ("png", "gray16be", "mov"),
     ("qtrle", "gray", "mov")],
)  # fmt: skip
def test_grey_as_infrared_cameras_send_it(
    tmp_path: Path, read: Callable[[Path], list[Frame]], codec: str, pixels: str, suffix: str
) -> None:
    image = quarters(grey=True)
    frames = read(write(tmp_path / f"clip.{suffix}", image, codec, pixels))
    assert len(frames) == FRAMES
    for frame in frames:
        assert_shows(frame, image, 16)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"), [("qtrle", "argb", "mov"), ("png", "rgba", "mov"), ("ffv1", "yuva420p", "mkv"),
                                    ("libvpx-vp9", "yuva420p", "webm")]
)  # fmt: skip
def test_opaque_parts_of_video_with_transparency(
    tmp_path: Path, read: Callable[[Path], list[Frame]], codec: str, pixels: str, suffix: str
) -> None:
    image = quarters()
    frames = read(write(tmp_path / f"clip.{suffix}", image, codec, pixels))
    assert len(frames) == FRAMES
    assert_shows(frames[-1], image, 16)


@pytest.mark.parametrize(
    ("size", "codec", "pixels"),
    [((321, 241), "libx264", "yuv444p"), ((99, 57), "mjpeg", "yuvj420p"), ((17, 33), "ffv1", "yuv420p"),
     ((2, 2), "ffv1", "bgr0"), ((1440, 1080), "libx264", "yuv420p"), ((64, 1200), "libx264", "yuv420p"),
     ((7680, 4320), "mjpeg", "yuvj420p")],
)  # fmt: skip
def test_sizes_that_are_odd_tall_and_huge(
    tmp_path: Path, read: Callable[[Path], list[Frame]], size: tuple[int, int], codec: str, pixels: str
) -> None:
    image = quarters(*size)
    frames = read(write(tmp_path / "clip.mkv", image, codec, pixels, times_ms=[0, 40]))
    assert [frame.size for frame in frames] == [size] * 2
    assert_shows(frames[0], image, 16)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_interlaced_video_gives_whole_pictures(tmp_path: Path, read: Callable[[Path], list[Frame]], order: str) -> None:
    image = quarters()
    path = write(tmp_path / "clip.ts", image, "libx264", "yuv420p", options={"x264-params": f"{order}=1"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = read(path)
    assert len(frames) == FRAMES
    assert_shows(frames[-1], image, 16)


@pytest.mark.parametrize(
    "times_ms",
    [[0, 33, 150, 160, 700, 705, 2000], [0, 40, 80, 10_080, 10_120, 10_160], [0, 1000, 2000, 3000]],
    ids=["at any time", "a pause", "one a second"],
)
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_times_of_a_recording_stay_as_they_are(
    tmp_path: Path, read: Callable[[Path], list[Frame]], times_ms: list[int], suffix: str
) -> None:
    path = write(tmp_path / f"clip.{suffix}", quarters(), "mjpeg", "yuvj420p", times_ms=times_ms)
    assert [frame.pts_s for frame in read(path)] == pytest.approx([ms / 1000 for ms in times_ms], abs=0.002)


@pytest.mark.parametrize(("codec", "reordered"), [("libx264", "3"), ("mpeg4", "2"), ("libx264", "0")])
def test_avi_which_holds_no_times_of_display_is_shown_evenly(
    tmp_path: Path, read: Callable[[Path], list[Frame]], codec: str, reordered: str
) -> None:
    """Recorders export AVI with pictures that are stored in another order than they are shown."""
    options = {"bf": reordered, "b_strategy": "0"}
    times_ms = range(0, 1600, 40)
    path = write(tmp_path / "clip.avi", quarters(), codec, "yuv420p", times_ms=times_ms, options=options)
    assert [frame.pts_s for frame in read(path)] == pytest.approx([ms / 1000 for ms in times_ms], abs=0.002)


@pytest.mark.parametrize(
    ("suffix", "offset_s"), [("ts", 2**33 / 90_000 - 0.1), ("ts", 3 * 3600.0), ("mkv", 7200.0), ("ts", -0.1)]
)
def test_where_the_clock_of_a_recording_begins_does_not_matter(
    tmp_path: Path, read: Callable[[Path], list[Frame]], suffix: str, offset_s: float
) -> None:
    """Also where 33 bits run over within it, as they do below zero too."""
    offset = {"output_ts_offset": f"{offset_s:.6f}", "avoid_negative_ts": "disabled"}
    path = write(tmp_path / f"clip.{suffix}", quarters(), "libx264", "yuv420p", container_options=offset)
    times_s = [frame.pts_s for frame in read(path)]
    assert len(times_s) == FRAMES
    assert np.diff(times_s) == pytest.approx([0.04] * (FRAMES - 1), abs=0.005)
