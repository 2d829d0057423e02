"""Files that are small and would take gigabytes: each is refused with its reason, and takes little memory."""

import io
import struct
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow

from tests.support.bombs import png_bomb, resized_sps, video
from tests.support.memory import measured, measured_python
from worker.config import CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.decoder import Picture, Video, open_video
from worker.video.photos import read_photo

READ_PHOTO = """
import sys
from worker.errors import SourceError
from worker.video.photos import read_photo
try:
    print(read_photo(sys.argv[1]).shape)
except SourceError as error:
    print(error)
"""
READ_VIDEO = """
import sys
from worker.config import CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.decoder import open_video
try:
    video = open_video(parse_address(sys.argv[1]), CameraConfig(id="a", source=sys.argv[1]), Observer())
    print(sum(1 for picture in video.pictures(lambda: True) if picture), video.refused)
except SourceError as error:
    print(error)
"""
LITTLE_MB = 250
"""What the libraries take, and no picture of the size that is refused."""


@pytest.mark.parametrize("colour_type", [0, 3, 6])
def test_a_png_bomb_is_refused_before_it_is_decoded(tmp_path: Path, colour_type: int) -> None:
    bomb = png_bomb(tmp_path / "bomb.png", 14_000, colour_type)
    assert bomb.stat().st_size < 1_000_000
    ended = measured_python(READ_PHOTO, bomb)
    assert "14000x14000 px, more than 64 megapixels" in ended.output
    assert ended.peak_mb < LITTLE_MB


@pytest.mark.parametrize("colour_type", [0, 3, 6])
def test_the_largest_photo_takes_less_than_a_gigabyte(tmp_path: Path, colour_type: int) -> None:
    ended = measured_python(READ_PHOTO, png_bomb(tmp_path / "large.png", 8_000, colour_type))
    assert ended.output == "(8000, 8000, 3)\n"
    assert ended.peak_mb < 850


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    Pillow.new("L", (4000, 4000)).save(held, "JPEG", progressive=True)
    whole = held.getvalue()
    assert read_photo(write(tmp_path / "whole.jpg", whole)).shape == (4000, 4000, 3)
    last_scan = whole[whole.rfind(b"\xff\xda") : -2]
    bomb = write(tmp_path / "bomb.jpg", whole[:-2] + 5000 * last_scan + whole[-2:])
    with pytest.raises(SourceError, match=r"goes over its 4000x4000 px 50\d\d times"):
        read_photo(bomb)
    # What lies behind a photo, such as the film of a telephone, is no part of it.
    film = write(tmp_path / "film.jpg", whole + 5000 * b"\xff\xda\0\x08")
    assert read_photo(film).shape == (4000, 4000, 3)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_tile_that_is_larger_than_its_picture_takes_no_memory(tmp_path: Path) -> None:
    fields = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 200, 325: 50}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(4)
    ended = measured_python(READ_PHOTO, write(tmp_path / "tiles.tif", content.ljust(300, b"\0")))
    assert ended.code == 0
    assert ended.peak_mb < LITTLE_MB


def test_a_command_says_why_and_goes_on(tmp_path: Path) -> None:
    bomb = png_bomb(tmp_path / "bomb.png", 14_000, 3)
    detect = (sys.executable, "-m", "worker", "detect", "--json", "--detector", "dlib-hog")
    small = png_bomb(tmp_path / "small.png", 64, 3)
    alone = measured(*detect, small)
    both = measured(*detect, bomb, small)
    assert "14000x14000 px, more than 64 megapixels" in both.output + both.errors
    assert "small.png" in both.output
    assert both.peak_mb < alone.peak_mb + 100


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("a.mp4", "libx264", None), ("a.h264", "libx264", "h264"), ("a.ts", "libx264", "mpegts"),
     ("a.mjpg", "mjpeg", "mjpeg"), ("a.avi", "mpeg4", "avi"), ("a.mkv", "libx264", "matroska")],
)  # fmt: skip
def test_a_video_that_is_too_large_is_refused(tmp_path: Path, name: str, codec: str, container: str | None) -> None:
    bomb = video(tmp_path / name, 6_100, codec=codec, container=container, frames=2)
    ended = measured_python(READ_VIDEO, bomb)
    assert "36 megapixels" in ended.output
    assert ended.peak_mb < LITTLE_MB


def pictures(path: Path, **limits: float) -> tuple[list[Picture], Video]:
    camera = CameraConfig.model_validate({"id": "door", "source": str(path), **limits})
    opened = open_video(parse_address(str(path)), camera, Observer())
    assert isinstance(opened, Video)
    return [picture for picture in opened.pictures(lambda: True) if picture], opened


@pytest.mark.parametrize("side", [1040, 1600])
def test_a_camera_that_becomes_too_large_on_the_way(tmp_path: Path, side: int) -> None:
    small = video(tmp_path / "small.h264", 320, container="h264", frames=200)
    large = video(tmp_path / "large.h264", side, container="h264")
    path = resized_sps(small, large, tmp_path / "both.h264")
    assert [picture.planes().height for picture in pictures(path)[0] if picture.planes] == [320] * 200 + [side] * 3
    kept, opened = pictures(path, max_megapixels=1)
    assert {picture.planes().height for picture in kept if picture.planes} == {320}
    assert "larger than 1 megapixels" in opened.refused


def test_the_limit_of_a_camera_can_be_raised(tmp_path: Path) -> None:
    path = video(tmp_path / "large.mp4", 1200)
    with pytest.raises(SourceError, match=r"1200x1200 px, more than 1\.4 megapixels; .*max_megapixels"):
        pictures(path, max_megapixels=1.4)
    assert len(pictures(path, max_megapixels=1.44)[0]) == 3


def test_the_photos_of_a_folder_have_the_limit_of_their_camera(tmp_path: Path) -> None:
    png_bomb(tmp_path / "a.png", 1200, 3)
    png_bomb(tmp_path / "b.png", 100, 3)
    camera = CameraConfig.model_validate({"id": "door", "source": str(tmp_path), "max_megapixels": 1.4})
    folder = open_video(parse_address(str(tmp_path)), camera, Observer())
    assert [picture is not None for picture in folder.pictures(lambda: True)] == [False, True]
