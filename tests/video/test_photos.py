import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from worker.errors import ConfigError, SourceError
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photos_come_upright_in_every_format(tmp_path: Path, orientation: int, suffix: str, mode: str) -> None:
    quarters = np.zeros((32, 48), np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = 250, 170, 90
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(quarters).convert(mode).save(tmp_path / f"photo.{suffix}", exif=exif, quality=95)
    upright = {
        1: quarters, 2: quarters[:, ::-1], 3: quarters[::-1, ::-1], 4: quarters[::-1], 5: quarters.T,
        6: quarters.T[:, ::-1], 7: quarters.T[::-1, ::-1], 8: quarters.T[::-1],
    }[orientation]  # fmt: skip
    image = read_photo(tmp_path / f"photo.{suffix}")
    assert image.shape == (*upright.shape, 3)
    middles = np.ix_(
        [upright.shape[0] // 4, upright.shape[0] * 3 // 4], [upright.shape[1] // 4, upright.shape[1] * 3 // 4]
    )
    assert np.abs(image[..., 1][middles].astype(int) - upright[middles]).max() < 20


def test_deep_tiff_is_turned_once(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    grey = np.array([[0, 128 * 257, 65535]], np.uint16)
    Pillow.fromarray(grey).save(tmp_path / "deep.tif", exif=exif)
    assert read_photo(tmp_path / "deep.tif")[..., 0].tolist() == [[0], [128], [255]]


@pytest.mark.data
def test_reported_tiff_stands_upright(test_data: Path) -> None:
    assert read_photo(test_data / "reports" / "or6.tif").shape == (240, 192, 3)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "bmp"), ("L", "png"), ("P", "png"), ("1", "png"), ("CMYK", "tif"), ("LA", "png"), ("RGB", "webp"),
     ("L", "pgm"), ("RGB", "ppm"), ("P", "gif"), ("YCbCr", "jpg"),
     ("CMYK", "jpg"), ("RGBA", "webp"), ("RGB", "avif"), ("RGB", "jp2"), ("LA", "tif"), ("RGB", "tga"), ("RGB", "qoi"),
     ("1", "pbm"), ("RGB", "pcx")],
)  # fmt: skip
def test_every_way_of_storing_a_white_photo_gives_the_same(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    white = Pillow.new("RGB", (9, 7), "white")
    white.convert(mode).save(path)
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


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_the_first_frame_in_other_formats(tmp_path: Path, suffix: str) -> None:
    red, blue = Pillow.new("RGB", (3, 2), (255, 0, 0)), Pillow.new("RGB", (3, 2), (0, 0, 255))
    red.save(tmp_path / f"photo.{suffix}", save_all=True, append_images=[blue])
    image = read_photo(tmp_path / f"photo.{suffix}")
    assert image[0, 0, 0] > 240
    assert image[0, 0, 2] < 15


def test_a_single_pixel(tmp_path: Path) -> None:
    Pillow.new("RGB", (1, 1), RED).save(tmp_path / "photo.png")
    assert read_photo(tmp_path / "photo.png").tolist() == [[list(RED)]]


def test_large_photos_are_read_and_bombs_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pillow.new("L", (7360, 4912)).save(tmp_path / "large.png")
    assert read_photo(tmp_path / "large.png").shape == (4912, 7360, 3)
    Pillow.new("1", (20_000, 12_000)).save(tmp_path / "bomb.png")
    with pytest.raises(SourceError, match=r"bomb\.png has 20000x12000 px, more than 64 megapixels"):
        read_photo(tmp_path / "bomb.png")


def test_the_limits_of_photos_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corners(1000, 1000).save(tmp_path / "photo.bmp")
    monkeypatch.setenv("FACESTREAM_PHOTO_MAX_MEGAPIXELS", "0.9")
    with pytest.raises(SourceError, match=r"1000x1000 px, more than 0\.9 megapixels"):
        read_photo(tmp_path / "photo.bmp")
    assert read_photo(tmp_path / "photo.bmp", max_pixels=1_000_000).shape == (1000, 1000, 3)
    monkeypatch.setenv("FACESTREAM_PHOTO_MAX_MEGAPIXELS", "1")
    assert read_photo(tmp_path / "photo.bmp").shape == (1000, 1000, 3)
    monkeypatch.setenv("FACESTREAM_PHOTO_MAX_MB", "2.9")
    with pytest.raises(SourceError, match=r"has 3 MB, more than 2\.9: .*FACESTREAM_PHOTO_MAX_MB"):
        read_photo(tmp_path / "photo.bmp")
    for wrong in ("many", "0", "-1", "1e9"):
        monkeypatch.setenv("FACESTREAM_PHOTO_MAX_MB", wrong)
        with pytest.raises(ConfigError, match="FACESTREAM_PHOTO_MAX_MB"):
            read_photo(tmp_path / "photo.bmp")


def test_nothing_but_an_ordinary_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        for path in (tmp_path / "photo.jpg", tmp_path / "socket.jpg", Path("/dev/zero"), Path("/dev/null")):
            with pytest.raises(SourceError, match="cannot be read"):
                read_photo(path)
        corners().save(tmp_path / "real.jpg")
        assert list_photos(tmp_path) == [tmp_path / "real.jpg"]


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


def portrait(width: int = 160, height: int = 240) -> Pillow.Image:
    """Something that no decoder could invent."""
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def jpeg(**options: object) -> bytes:
    out = io.BytesIO()
    portrait().save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("cut", "filling"), [(1, b""), (2, b""), (2, bytes(300)), (12, b"")])
def test_jpeg_that_lacks_only_its_end_is_taken_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, progressive: bool, cut: int, filling: bytes
) -> None:
    whole = jpeg(progressive=progressive)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "cut.jpg").write_bytes(whole[:-cut] + filling)
    expected = read_photo(tmp_path / "whole.jpg")
    assert caplog.messages == []
    image = read_photo(tmp_path / "cut.jpg")
    assert (image[:-18] == expected[:-18]).all()
    told = any("lacks its end" in message and "cut.jpg" in message for message in caplog.messages)
    assert told or filling  # what follows may look like the end


def test_jpeg_that_lacks_its_end_is_turned_too(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    (tmp_path / "cut.jpg").write_bytes(jpeg(exif=exif)[:-2])
    assert read_photo(tmp_path / "cut.jpg").shape == (160, 240, 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_jpeg_that_lacks_part_of_its_picture_is_refused(tmp_path: Path, progressive: bool, share: float) -> None:
    whole = jpeg(progressive=progressive)
    (tmp_path / "cut.jpg").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SourceError, match=r"cut\.jpg cannot be read: .*truncated"):
        read_photo(tmp_path / "cut.jpg")


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.avif", "AVIF"), ("a.jp2", "JPEG2000"), ("a", "JPEG"), ("a.1", "PNG"),
     ("a.JPG_original", "JPEG"), ("a.jpg!d", "WEBP"), ("a.bin", "TIFF"), ("a.dat", "BMP"), ("a.x", "GIF"),
     ("a.y", "PPM"), ("a.heic", "JPEG"), ("a.qoi", "QOI"), ("a.tga", "TGA")],
)  # fmt: skip
def test_photos_are_known_by_their_content(tmp_path: Path, name: str, format_: str) -> None:
    portrait().save(tmp_path / name, format_)
    assert list_photos(tmp_path) == [tmp_path / name]
    assert read_photo(tmp_path / name).shape == (240, 160, 3)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
HEIF = b"\0\0\0\x14ftypmif1\0\0\0\0heic" + bytes(100)


@pytest.mark.parametrize("name", ["a.heic", "a", "a.jpg", "a.HIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_read_upright_whatever_it_is_called(tmp_path: Path, name: str, orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pi_heif")
    upright = Pillow.new("RGB", (160, 240), RED)
    upright.paste(BLUE, (0, 0, 40, 80))
    turns = {3: Pillow.Transpose.ROTATE_180, 6: Pillow.Transpose.ROTATE_90, 8: Pillow.Transpose.ROTATE_270}
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    pillow_heif.from_pillow(stored).save(tmp_path / name, quality=95, exif=exif.tobytes())
    assert list_photos(tmp_path) == [tmp_path / name]
    read = read_photo(tmp_path / name).astype(int)
    assert np.abs(read - np.asarray(upright, int)).mean() < 6


@pytest.mark.parametrize(("name", "content"), [("a.heic", HEIC), ("a", HEIC), ("a.jpg", HEIC), ("a.heif", HEIF)])
def test_without_its_decoder_heic_is_named_with_what_to_install(
    tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / name).write_bytes(content)
    assert list_photos(tmp_path) == [tmp_path / name]
    with pytest.raises(SourceError, match=r"HEIC photo, which needs the extra 'heic' .*facestream\[heic\].*JPEG"):
        read_photo(tmp_path / name)


def test_damaged_heic_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(SourceError, match=r"a\.heic (cannot be read|is not a picture)"):
        read_photo(tmp_path / "a.heic")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jxl", b"\xff\x0a" + bytes(100), "JPEG XL"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(100), "raw file"),
        ("a.dng", b"II*\0\x08\0\0\0" + bytes(100), "raw file"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100), "raw file"),
        ("a.dcm", bytes(128) + b"DICM" + bytes(100), "DICOM"),
    ],
)
def test_photos_that_cannot_be_decoded_are_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert list_photos(tmp_path) == [tmp_path / name]
    with pytest.raises(SourceError, match=f"{reason}.* convert it to JPEG"):
        read_photo(tmp_path / name)


def test_no_file_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "gs").write_text("#!/bin/sh\ntouch " + str(tmp_path / "started"))
    (tmp_path / "gs").chmod(0o755)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "photo.jpg").write_bytes(postscript)
    with pytest.raises(SourceError, match="not a picture that can be decoded"):
        read_photo(tmp_path / "photo.jpg")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "webp", "jpg", "avif", "jp2"])
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
    assert [str(path.relative_to(tmp_path)) for path in list_photos(tmp_path)] == wanted
    assert list_photos(tmp_path / "a b.jpg") == [tmp_path / "a b.jpg"]


def test_what_is_no_picture_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    portrait().save(tmp_path / "a.jpg")
    for name in ("notes.txt", "a.jpg.json", "clip.mp4", "empty", "page.pdf", "P5 songs"):
        (tmp_path / name).write_bytes(b"" if name == "empty" else b"P5 is what we sing: \0\0ftypisom")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "door.mjpeg").write_bytes(jpeg() * 2)
    for _ in range(2):
        assert list_photos(tmp_path) == [tmp_path / "a.jpg"]
    told = [message for message in caplog.messages if "no pictures" in message]
    assert len(told) == 1
    assert "clip.mp4" in told[0]
    assert "and 3 more" in told[0]


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", ".Trash-1000", "__MACOSX",
     ".thumbnails", ".@__thumb", "lost+found", "@Recycle", "RECYCLER", "#snapshot", ".Trashes", ".Spotlight-V100",
     "FOUND.000", "Network Trash Folder", "Photos Library.photoslibrary", "anna/@eaDir/1.jpg", ".recycle/anna"],
)  # fmt: skip
def test_what_systems_put_aside_is_nobody(tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("anna/1.jpg", f"{folder}/2.jpg"):
        if not (tmp_path / name).parent.is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    kept = tmp_path / "anna" / ("1.jpg" if not folder.startswith("anna") else "0.jpg")
    portrait().save(kept)
    portrait().save(tmp_path / folder / "2.jpg")
    assert list_photos(tmp_path) == [kept]
    if not folder.startswith("."):
        assert any(folder.rpartition("/1.jpg")[0] or folder in message for message in caplog.messages)


def test_links_to_folders_are_not_followed_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = tmp_path / "home" / "photos"
    (given / "anna").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    portrait().save(given / "anna" / "1.jpg")
    portrait().save(tmp_path / "home" / "stranger.jpg")
    portrait().save(tmp_path / "elsewhere" / "2.jpg")
    (given / "up").symlink_to(tmp_path / "home")
    (given / "loop").symlink_to(given)
    (given / "out").symlink_to(tmp_path / "elsewhere")
    (given / "Anna Smith").symlink_to("anna")
    (given / "anna" / "3.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    assert list_photos(given) == [given / "anna" / "1.jpg", given / "anna" / "3.jpg"]
    (told,) = [message for message in caplog.messages if "not followed" in message]
    assert all(name in told for name in ("up", "loop", "out", "Anna Smith"))
    (tmp_path / "photos").symlink_to(given)
    assert len(list_photos(tmp_path / "photos")) == 2


def test_folders_without_photos(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no photo or folder at"):
        list_photos(tmp_path / "missing")
    with pytest.raises(SourceError, match=r"no photos in .*JPEG, PNG"):
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
    assert caplog.text.count("lacks its end") == 1
    assert "short.jpg" in caplog.text


@pytest.mark.parametrize("missing", [4, 5, 8, 20, 100, 1000])
def test_a_jpeg_that_lacks_some_of_its_picture_is_refused(tmp_path: Path, missing: int) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-missing])
    with pytest.raises(SourceError, match=r"short\.jpg cannot be read: .*truncated"):
        read_photo(tmp_path / "short.jpg")
