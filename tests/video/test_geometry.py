"""Pictures that are stored turned, mirrored or squeezed are seen upright and on square pixels."""

import gc
import itertools
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from PIL import Image as Pillow

from worker.config import BatchingConfig, CameraConfig
from worker.types import Frame, Image
from worker.video.buffers import Batcher, FrameBuffer, RawFrame
from worker.video.geometry import TURNS, then
from worker.video.reader import CameraReader

MATRICES = {
    "as it is": (1, 0, 0, 1),
    "clockwise": (0, 1, -1, 0),
    "about": (-1, 0, 0, -1),
    "counterclockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}
WIDTH, HEIGHT = 64, 48


def marked() -> Image:
    """White in the top left corner, grey in the top right one, otherwise black: it tells all eight turns apart."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:16, :16] = 255
    image[:16, -16:] = 128
    return image


def shown(image: Image, matrix: tuple[int, ...]) -> Image:
    """What the definition of a display matrix says, pixel by pixel."""
    a, b, c, d = matrix
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    x, y = a * columns + c * rows, b * columns + d * rows
    result = np.zeros_like(image, shape=(np.ptp(y) + 1, np.ptp(x) + 1, *image.shape[2:]))
    result[y - y.min(), x - x.min()] = image
    return result


def write(
    path: Path, image: Image, *, aspect: Fraction | None = None, codec: str = "libx264", frames: int = 3, **options: str
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = image.shape[1], image.shape[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.options = options
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def set_matrix(path: Path, *matrix: float) -> Path:
    """Writes the display matrix into the track of an MP4."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    content = bytearray(path.read_bytes())
    struct.pack_into(">9i", content, content.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.fixture
def read() -> Iterator[Callable[..., list[Frame | RawFrame]]]:
    readers: list[CameraReader] = []

    def read_all(where: Path, *, raw: bool = False, **fields: Any) -> list[Frame | RawFrame]:
        camera = CameraConfig.model_validate({"id": "cam", "source": str(where), **fields})
        config = BatchingConfig(queue_frames=256)
        buffer = FrameBuffer.for_camera(camera, config)
        reader = CameraReader(camera, buffer)
        readers.append(reader)
        reader.start()
        assert reader.join(20)
        assert reader.error is None
        frames: list[Frame | RawFrame] = []
        if raw:
            while (frame := buffer.take()) is not None:
                frames.append(frame)
            return frames
        batcher = Batcher([buffer], config)
        while (batch := batcher.next_batch(5)) is not None:
            frames += batch
        return frames

    yield read_all
    for reader in readers:
        reader.stop()


@pytest.mark.parametrize("name", MATRICES)
def test_each_of_the_eight_display_matrices_is_applied(tmp_path: Path, read: Any, name: str) -> None:
    path = set_matrix(write(tmp_path / "clip.mp4", marked(), crf="1"), *MATRICES[name])
    frame = read(path)[0]
    expected = shown(marked(), MATRICES[name])
    assert frame.image.shape == expected.shape
    assert frame.image.flags.c_contiguous
    assert np.abs(frame.image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("suffix", ["ts", "h264", "mp4"])
def test_a_turn_that_stands_in_the_stream_beside_some_pictures_holds_for_those_behind_them(
    tmp_path: Path, read: Any, suffix: str
) -> None:
    """Encoders write it beside the first picture, or beside key frames."""
    plain = write(tmp_path / "plain.ts", marked(), frames=12, crf="1", g="6")
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        mirror = BitStreamFilterContext("h264_metadata=display_orientation=insert:flip=horizontal", source.streams[0])
        for packet in source.demux(video=0):
            for turned in mirror.filter(packet) if packet.size else []:
                turned.stream = stream
                target.mux(turned)
    frames = read(path)
    assert len(frames) == 12
    expected = shown(marked(), MATRICES["mirrored"])
    for frame in frames:
        assert np.abs(frame.image.astype(int) - expected).mean() < 6


def test_a_frame_is_free_once_its_picture_is_taken_without_the_garbage_collector(tmp_path: Path, read: Any) -> None:
    """Otherwise a worker holds hundreds of pictures, and the threads that converted them."""
    path = set_matrix(write(tmp_path / "clip.mp4", marked()), *MATRICES["mirrored"])
    gc.collect()
    before = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    gc.disable()
    try:
        assert len(read(path)) > 1
        assert sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()) <= before + 1  # the last one
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("matrix", "as_if"),
    [
        ((0.966, 0.259, -0.259, 0.966), "as it is"),  # 15 degrees
        ((0.259, 0.966, -0.966, 0.259), "clockwise"),
        ((-0.966, 0.259, 0.259, 0.966), "mirrored"),
        ((0.0, 0.0, 0.0, 0.0), "as it is"),
    ],
)
def test_an_odd_matrix_is_the_nearest_of_the_eight_and_told_once(
    tmp_path: Path, read: Any, caplog: pytest.LogCaptureFixture, matrix: tuple[float, ...], as_if: str
) -> None:
    path = set_matrix(write(tmp_path / "clip.mp4", marked()), *matrix)
    frame = read(path)[0]
    expected = shown(marked(), MATRICES[as_if])
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 12
    assert caplog.text.count("askew") == 1


def test_a_matrix_that_also_scales_is_not_odd(tmp_path: Path, read: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = set_matrix(write(tmp_path / "clip.mp4", marked()), 0, 0.5, -0.5, 0)
    assert read(path)[0].size == (HEIGHT, WIDTH)
    assert "askew" not in caplog.text


def test_turns_follow_each_other() -> None:
    for first, second in itertools.product(TURNS, TURNS):
        assert np.array_equal(shown(shown(marked(), first), second), shown(marked(), then(first, second)))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("40:33", (854, 576)), ("12:11", (768, 576)), ("4:3", (939, 576)), ("2:1", (1408, 576)), ("8:9", (704, 648))],
)
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".ts", "libx264"), (".mkv", "mpeg4")])
def test_pixels_become_square(
    tmp_path: Path, read: Any, aspect: str, size: tuple[int, int], suffix: str, codec: str
) -> None:
    width, height = aspect.split(":")
    picture = np.full((576, 704, 3), 90, np.uint8)
    path = write(tmp_path / f"clip{suffix}", picture, aspect=Fraction(int(width), int(height)), codec=codec)
    seen = read(path)[0].size
    assert seen == pytest.approx(size, abs=2)


def test_a_circle_is_round_again(tmp_path: Path, read: Any) -> None:
    rows, columns = np.mgrid[:240, :120]
    squeezed = ((((columns - 60) * 2) ** 2 + (rows - 120) ** 2) < 80**2)[..., None] * np.full(3, 255, np.uint8)
    image = read(write(tmp_path / "clip.ts", squeezed.astype(np.uint8), aspect=Fraction(2)))[0].image
    bright = image[..., 1] > 127
    assert bright.any(axis=0).sum() == pytest.approx(bright.any(axis=1).sum(), abs=4)


def test_the_aspect_may_change_within_a_stream(tmp_path: Path, read: Any) -> None:
    picture = np.full((96, 64, 3), 90, np.uint8)
    wide = write(tmp_path / "wide.ts", picture, aspect=Fraction(2), tune="zerolatency")
    square = write(tmp_path / "square.ts", picture, aspect=Fraction(1), tune="zerolatency")
    both = tmp_path / "both.ts"
    both.write_bytes(wide.read_bytes() + square.read_bytes())
    assert [frame.size for frame in read(both)] == [(128, 96)] * 3 + [(64, 96)] * 3


def test_an_aspect_that_nobody_can_mean_is_taken_for_square(
    tmp_path: Path, read: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "clip.mp4", marked(), aspect=Fraction(9))
    assert read(path)[0].size == (WIDTH, HEIGHT)
    assert caplog.text.count("taken for square") == 1


def test_the_aspect_belongs_to_the_picture_before_it_is_turned(tmp_path: Path, read: Any) -> None:
    path = set_matrix(write(tmp_path / "clip.mp4", marked(), aspect=Fraction(2)), *MATRICES["clockwise"])
    assert read(path)[0].size == (HEIGHT, 2 * WIDTH)


@pytest.mark.parametrize(
    ("fields", "as_if"),
    [
        ({"rotate": 90}, "clockwise"),
        ({"rotate": 180}, "about"),
        ({"rotate": 270}, "counterclockwise"),
        ({"flip": "horizontal"}, "mirrored"),
        ({"flip": "vertical"}, "upside down"),
        ({"rotate": 180, "flip": "horizontal"}, "upside down"),
        ({"rotate": "90", "flip": "horizontal"}, "transposed"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_camera_that_hangs_otherwise_is_turned(
    tmp_path: Path, read: Any, fields: dict[str, Any], as_if: str, kind: str
) -> None:
    if kind == "folder":
        Pillow.fromarray(marked()).save(tmp_path / "one.png")
        path = tmp_path
    else:
        path = write(tmp_path / "clip.mp4", marked(), crf="1")
    image, expected = read(path, **fields)[0].image, shown(marked(), MATRICES[as_if])
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_the_camera_s_own_turn_comes_after_what_the_stream_says(tmp_path: Path, read: Any) -> None:
    path = set_matrix(write(tmp_path / "clip.mp4", marked(), crf="1"), *MATRICES["clockwise"])
    image = read(path, flip="horizontal")[0].image
    expected = shown(shown(marked(), MATRICES["clockwise"]), MATRICES["mirrored"])
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("aspect", ["2:1", "2/1", "2", 2, 2.0, 121])  # YAML reads 2:1 without quotes as 121
def test_a_recorder_that_does_not_say_its_aspect_is_told_it(tmp_path: Path, read: Any, aspect: Any) -> None:
    assert read(write(tmp_path / "clip.mp4", marked()), pixel_aspect=aspect)[0].size == (2 * WIDTH, HEIGHT)


def test_the_aspect_of_the_settings_holds_in_place_of_the_stream_s(tmp_path: Path, read: Any) -> None:
    path = write(tmp_path / "clip.mp4", marked(), aspect=Fraction(2))
    assert read(path, pixel_aspect="1:1")[0].size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("aspect", ["0:1", "1:0", "5:1", "wide", "", "-2:1", "2:1:1", True, "nan"])
def test_an_aspect_that_is_not_one_is_refused(aspect: Any) -> None:
    with pytest.raises(ValueError, match="pixel_aspect"):
        CameraConfig.model_validate({"id": "cam", "source": "x.mp4", "pixel_aspect": aspect})


def test_an_upright_picture_costs_nothing(tmp_path: Path, read: Any) -> None:
    frame = read(write(tmp_path / "clip.mp4", marked()), raw=True)[0]
    assert not frame.grey.flags.owndata, "the grey picture is still the decoder's own plane"
