import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from worker.errors import SourceError
from worker.video.photos import list_photos, read_photo

RED, BLUE = (200, 10, 20), (10, 20, 200)


def corners(width: int = 6, height: int = 4) -> Pillow.Image:
    """Red with one blue pixel at the top left."""
    picture = Pillow.new("RGB", (width, height), RED)
    picture.putpixel((0, 0), BLUE)
    return picture


@pytest.mark.parametrize(
    ("orientation", "shape", "blue_at"),
    [
        (1, (4, 6), (0, 0)),
        (2, (4, 6), (0, 5)),
        (3, (4, 6), (3, 5)),
        (4, (4, 6), (3, 0)),
        (5, (6, 4), (0, 0)),
        (6, (6, 4), (0, 3)),
        (7, (6, 4), (5, 3)),
        (8, (6, 4), (5, 0)),
        (99, (4, 6), (0, 0)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_photos_come_upright(
    tmp_path: Path, orientation: int, shape: tuple[int, int], blue_at: tuple[int, int], mode: str
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    corners().convert(mode).save(tmp_path / "photo.png", exif=exif)
    image = read_photo(tmp_path / "photo.png")
    assert image.shape == (*shape, 3)
    assert image.dtype == np.uint8
    odd = np.argwhere((image != np.median(image, axis=(0, 1))).any(axis=2))
    assert odd.tolist() == [list(blue_at)]


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "bmp"), ("L", "png"), ("P", "png"), ("1", "png"), ("CMYK", "tif"), ("LA", "png"), ("RGB", "webp"),
     ("L", "pgm"), ("RGB", "ppm"), ("P", "gif"), ("YCbCr", "jpg")],
)  # fmt: skip
def test_every_way_of_storing_a_white_photo_gives_the_same(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Pillow.new("RGB", (9, 7), "white").convert(mode).save(path)
    image = read_photo(path)
    assert (image.shape, image.dtype) == ((7, 9, 3), np.dtype(np.uint8))
    assert image.min() >= 254
    assert image.flags.writeable


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    grey = np.array([[0, 128 * 257, 65535]], np.uint16)
    Pillow.fromarray(grey).save(tmp_path / "deep.png")
    Pillow.fromarray(grey).save(tmp_path / "deep.tif")
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 1 65535\n" + grey.astype(">u2").tobytes())
    for name in ("deep.png", "deep.tif", "deep.pgm"):
        assert read_photo(tmp_path / name)[0, :, 1].tolist() == [0, 128, 255], name


def test_floating_point_pictures_are_scaled(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "unit.tif")
    Pillow.fromarray(np.array([[0.0, 128.0, 255.0]], np.float32)).save(tmp_path / "byte.tif")
    for name in ("unit.tif", "byte.tif"):
        assert read_photo(tmp_path / name)[0, :, 0].tolist() == [0, 128, 255]


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    picture = Pillow.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 255, 0, 0))
    picture.save(tmp_path / "photo.png")
    assert read_photo(tmp_path / "photo.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    red, blue = Pillow.new("RGB", (3, 2), (255, 0, 0)), Pillow.new("RGB", (3, 2), (0, 0, 255))
    red.save(tmp_path / "photo.gif", save_all=True, append_images=[blue])
    assert read_photo(tmp_path / "photo.gif")[0, 0].tolist() == [255, 0, 0]


def test_a_single_pixel(tmp_path: Path) -> None:
    Pillow.new("RGB", (1, 1), RED).save(tmp_path / "photo.png")
    assert read_photo(tmp_path / "photo.png").tolist() == [[list(RED)]]


def test_large_photos_are_read_and_bombs_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pillow.new("L", (7360, 4912)).save(tmp_path / "large.png")
    assert read_photo(tmp_path / "large.png").shape == (4912, 7360, 3)
    Pillow.new("1", (20_000, 12_000)).save(tmp_path / "bomb.png")
    with pytest.raises(SourceError, match=r"bomb\.png has more than 200 megapixels"):
        read_photo(tmp_path / "bomb.png")


def test_what_cannot_be_read_is_one_line_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").touch()
    corners(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    for name in ("text.jpg", "empty.png", "cut.jpg", "missing.jpg", "."):
        with pytest.raises(SourceError) as caught:
            read_photo(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "webp", "jpg"])
def test_damaged_photos_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    corners(40, 30).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged.{suffix}"
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 4):
            damaged[position] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            image = read_photo(path)
        except SourceError:
            continue
        assert image.ndim == 3


def test_photos_are_listed_at_any_depth_in_order(tmp_path: Path) -> None:
    wanted = ["Zoë/2.PNG", "Zoë/deep/1.jpeg", "a b.jpg", "李雷.webp"]
    for name in [*wanted, "notes.txt", ".hidden.jpg", ".trash/x.jpg", "Zoë/._2.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Zoë" / "loop").symlink_to(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in list_photos(tmp_path)] == wanted
    assert list_photos(tmp_path / "a b.jpg") == [tmp_path / "a b.jpg"]


def test_folders_without_photos(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no photo or folder at"):
        list_photos(tmp_path / "missing")
    with pytest.raises(SourceError, match=r"no photos in .*\.jpeg"):
        list_photos(tmp_path)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    if os.geteuid() == 0:  # root may read everything
        real = os.scandir

        def scandir(path: str) -> Iterator[os.DirEntry[str]]:
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SourceError, match="closed cannot be listed"):
        list_photos(tmp_path)


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_its_end_marker_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, missing: int, options: dict[str, Any], mode: str
) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Pillow.fromarray(noise).convert(mode).save(tmp_path / "whole.jpg", **options)
    (tmp_path / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-missing])
    assert np.array_equal(read_photo(tmp_path / "short.jpg"), read_photo(tmp_path / "whole.jpg"))
    assert caplog.text.count("lacks its last bytes") == 1
    assert "short.jpg" in caplog.text


@pytest.mark.parametrize("missing", [4, 5, 8, 20, 100, 1000])
def test_a_jpeg_that_lacks_some_of_its_picture_is_refused(tmp_path: Path, missing: int) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-missing])
    with pytest.raises(SourceError, match=r"short\.jpg cannot be read: .*truncated"):
        read_photo(tmp_path / "short.jpg")
