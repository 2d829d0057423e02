"""The planes of a decoded picture, and the RGB and grey that are made of them."""

from dataclasses import replace

import av
import numpy as np
import pytest

from worker.types import Planes
from worker.video.geometry import TURNS, Geometry
from worker.video.planes import grey_of, planes_of, planes_of_image, rgb_of

FORMS = [
    "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "nv12", "gray", "yuv420p10le", "yuyv422", "rgb24", "bgr0",
    "pal8",
]  # fmt: skip


def decoded(form: str, width: int, height: int, *, colour_range: int = 0, matrix: int = 2) -> av.VideoFrame:
    """A frame as a decoder would make it, full of noise."""
    frame = av.VideoFrame(width, height, form)
    chance = np.random.default_rng(7)
    for plane in frame.planes:
        most = 4 if form.endswith("10le") else 256  # the upper byte of ten bits; the lower one may be anything below it
        plane.update(chance.integers(0, most, plane.buffer_size, np.uint8).tobytes())
    frame.color_range, frame.colorspace = colour_range, matrix
    return frame


@pytest.mark.parametrize(("form", "of_gpu"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize("size", [(1920, 1080), (322, 242)])
def test_what_a_gpu_decodes_becomes_what_the_processor_decodes(
    form: str, of_gpu: str, colour_range: int, size: tuple[int, int]
) -> None:
    """Decoders for one standard give the same values; a GPU only lays U and V by turns."""
    frame = decoded(form, *size, colour_range=colour_range, matrix=1)
    expected = planes_of(frame, Geometry())
    planes = planes_of(frame.reformat(format=of_gpu, threads=1), Geometry(), apart=True)
    assert (planes.form, planes.colour_range, planes.matrix) == (form, colour_range, 1)
    for plane, same in zip(planes.planes, expected.planes, strict=True):
        used = size[0] * (2 if form.endswith("10le") else 1) // (1 if plane is planes.planes[0] else 2)
        np.testing.assert_array_equal(plane[:, :used], same[:, :used])
    np.testing.assert_array_equal(rgb_of(planes), rgb_of(expected))
    assert planes_of(frame, Geometry(), apart=True).form == form


def copied(planes: Planes) -> Planes:
    """The same picture without the decoder's frame: as it comes from elsewhere."""
    return replace(planes, planes=tuple(plane.copy() for plane in planes.planes), origin=None)


SIZES = [(1920, 1080), (640, 360), (322, 242), (33, 17)]


@pytest.mark.parametrize(
    ("form", "size"),
    [
        (form, size) for form in FORMS for size in SIZES if form != "yuyv422" or size[0] % 2 == 0
    ],  # it has pairs of pixels
)
def test_pixels_are_those_of_ffmpeg_to_the_last_bit(form: str, size: tuple[int, int]) -> None:
    frame = decoded(form, *size)
    planes = planes_of(frame, Geometry())
    assert (planes.form, planes.width, planes.height) == (form, *size)
    expected = frame.to_ndarray(format="rgb24")
    np.testing.assert_array_equal(rgb_of(planes), expected)
    if form != "rgb24":  # without a decoder's frame it is a picture that is ready
        np.testing.assert_array_equal(rgb_of(copied(planes)), expected)
    if form in ("yuv420p", "nv12", "gray"):
        np.testing.assert_array_equal(grey_of(planes), planes.planes[0])
    elif form == "bgr0":
        np.testing.assert_array_equal(grey_of(planes), frame.to_ndarray(format="gray"))


@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 9])
def test_range_and_matrix_are_those_of_the_stream(colour_range: int, matrix: int) -> None:
    frame = decoded("yuv420p", 64, 48, colour_range=colour_range, matrix=matrix)
    planes = planes_of(frame, Geometry())
    assert (planes.colour_range, planes.matrix) == (colour_range, matrix)
    expected = frame.to_ndarray(format="rgb24")
    np.testing.assert_array_equal(rgb_of(planes), expected)
    np.testing.assert_array_equal(rgb_of(copied(planes)), expected)


@pytest.mark.parametrize("turn", TURNS)
def test_a_picture_is_shown_turned_and_stretched(turn: tuple[int, int, int, int]) -> None:
    frame = decoded("yuv420p", 64, 48)
    geometry = Geometry(turn, 2.0)
    np.testing.assert_array_equal(rgb_of(planes_of(frame, geometry)), geometry.apply(frame.to_ndarray(format="rgb24")))


@pytest.mark.parametrize(
    ("form", "shapes"),
    [("yuv420p", [(17, 33), (9, 17), (9, 17)]), ("nv12", [(17, 33), (9, 34)]),
     ("yuv422p", [(17, 33), (17, 17), (17, 17)]), ("yuv444p", [(17, 33)] * 3), ("gray", [(17, 33)]),
     ("rgb24", [(17, 99)])],
)  # fmt: skip
def test_planes_have_the_shapes_that_are_documented_and_are_the_decoder_s_memory(
    form: str, shapes: list[tuple[int, int]]
) -> None:
    frame = decoded(form, 33, 17)
    planes = planes_of(frame, Geometry())
    assert [plane.shape for plane in planes.planes] == shapes
    assert {plane.dtype for plane in planes.planes} == {np.dtype(np.uint8)}
    assert planes.nbytes == sum(rows * width for rows, width in shapes)
    for plane, whole in zip(planes.planes, frame.planes, strict=True):
        assert np.shares_memory(plane, np.frombuffer(memoryview(whole), np.uint8))


def test_a_picture_that_is_rgb_already_is_neither_converted_nor_copied() -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)
    planes = planes_of_image(image)
    assert np.shares_memory(rgb_of(planes), image)
    np.testing.assert_array_equal(rgb_of(planes), image)
    np.testing.assert_array_equal(grey_of(planes), image[..., 1])
