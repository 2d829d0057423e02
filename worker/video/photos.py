"""Photos from disk, as upright 8-bit RGB whatever they are stored as."""

import functools
import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from worker.config import photo_limits
from worker.errors import SourceError
from worker.files import open_regular
from worker.logs import get_logger
from worker.types import Image
from worker.video.folders import files_below
from worker.video.picture_kinds import HEAD_BYTES, is_photo, kind_of

_BATCH_PIXELS: Final = 64_000_000
_NAMED: Final = 5
_END_OF_JPEG: Final = b"\xff\xd9"
_MARKER_OF_JPEG: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCANS: Final = 16
_MOST_SCANNED_PIXELS: Final = 1_000_000_000
"""A progressive JPEG goes over all its pixels some ten times. A small file can ask for thousands of times: minutes."""
_LAST_ROWS: Final = 18
"""The lowest rows of a JPEG, which one row of its blocks covers; their colours reach into two rows more."""
_ROWS_TO_SPARE: Final = 96
"""A photo of fewer rows must be whole."""
_FILLING: Final = 4096
_STRIP_PIXELS: Final = 4_000_000

_log = get_logger(__name__)

_T = TypeVar("_T")

# Pillow's own limit is of the process, and soft: ours is asked for before anything is decoded.
Pillow.MAX_IMAGE_PIXELS = None

_DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError, OverflowError, RuntimeError, struct.error)


def read_photo(path: Path | str, *, max_pixels: int | None = None) -> Image:
    """The photo in ``path`` as uint8 (H, W, 3) RGB, turned upright as its EXIF data say.

    Grey, palette, CMYK, 16-bit and floating-point pictures are converted; transparent parts become white; of an
    animation the first frame is taken.

    What format it is, its first bytes say, not its name. Only formats of photos are tried: no file starts another
    program, as PostScript would. A JPEG that lacks its end, but no more of its picture than its lowest rows, is taken,
    and the log says so.

    ``max_pixels``: more pixels are refused before they are decoded; default: as the environment says, see
    :func:`worker.config.photo_limits`, which also limits the bytes of a file.

    Raises:
        SourceError: the file cannot be read, is no ordinary file, is no picture, is cut off, or is too large.
        ConfigError: a variable of the environment holds no limit.
    """
    path = Path(path)
    limits = photo_limits()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged EXIF data
            return _read(path, limits.max_pixels if max_pixels is None else max_pixels, limits.max_bytes)
    except Pillow.UnidentifiedImageError:
        raise SourceError(f"photo {path} is not a picture that can be decoded (JPEG, PNG, WebP, ...)") from None
    except MemoryError:
        raise SourceError(f"photo {path} does not fit into memory: scale it down") from None
    except _DECODE_ERRORS as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"photo {path} cannot be read: {problem}") from None


def in_batches(photos: Iterable[tuple[_T, Image]], most: int) -> Iterator[list[tuple[_T, Image]]]:
    """``photos``, each with what belongs to it, at most ``most`` at a time; fewer where they are large."""
    batch: list[tuple[_T, Image]] = []
    pixels = 0
    for item, image in photos:
        batch.append((item, image))
        pixels += image.shape[0] * image.shape[1]
        if len(batch) == most or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def read_file(path: Path) -> bytes:
    """The bytes of a file that should be a photo.

    Raises:
        OSError: it cannot be read, or is no ordinary file.
        SourceError: it is larger than :func:`worker.config.photo_limits` says.
    """
    with open_regular(path) as file:
        _refuse_large_file(path, file, photo_limits().max_bytes)
        return file.read()


def _refuse_large_file(path: Path, file: BinaryIO, max_bytes: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise SourceError(
            f"photo {path} has {size / 1e6:.0f} MB, more than {max_bytes / 1e6:g}: scale it down, or raise "
            "FACESTREAM_PHOTO_MAX_MB"
        )


def _read(path: Path, max_pixels: int, max_bytes: int) -> Image:
    with open_regular(path) as file:
        kind = kind_of(file.read(HEAD_BYTES), path)
        if kind is None:
            raise Pillow.UnidentifiedImageError
        if not kind.reader:
            raise SourceError(f"photo {path} {kind.problem}")
        if kind.reader == "HEIF":
            _learn_heif(path)
        _refuse_large_file(path, file, max_bytes)
        file.seek(0)
        try:
            return _decode(file, kind.reader, path, max_pixels)
        except OSError:
            if kind.reader != "JPEG":
                raise
            file.seek(0)
            if (image := read_cut_jpeg(file.read(), max_pixels)) is None:
                raise
    _log.warning("photo lacks its end and was taken all the same", photo=str(path))
    return image


def _learn_heif(path: Path) -> None:
    """Lets Pillow read HEIC, by a library that is no part of the default: the format is rare but on phones, and its
    decoder is large and written in C++.

    Raises:
        SourceError: the library is not installed.
    """
    try:
        import pi_heif
    except ImportError:
        raise SourceError(
            f"photo {path} is a HEIC photo, which needs the extra 'heic' (pip install 'facestream[heic]'); or convert "
            "it to JPEG"
        ) from None
    pi_heif.register_heif_opener()


def _decode(file: BinaryIO, reader: str, path: Path | str, max_pixels: int) -> Image:
    with Pillow.open(file, formats=[reader]) as opened:
        width, height = opened.size
        if not width * height:
            raise SourceError(f"photo {path} has no pixels")
        if width * height > max_pixels:
            raise SourceError(
                f"photo {path} has {width}x{height} px, more than {max_pixels / 1e6:g} megapixels: scale it down, or "
                "raise the limit (photos: FACESTREAM_PHOTO_MAX_MEGAPIXELS, cameras: max_megapixels)"
            )
        if reader == "JPEG":
            file.seek(0)
            scans = _scans(file.read())
            file.seek(0)
            if scans > _SCANS and scans * width * height > _MOST_SCANNED_PIXELS:
                raise SourceError(f"photo {path} goes over its {width}x{height} px {scans} times: save it again")
        return _upright_rgb(opened)


def _scans(content: bytes) -> int:
    """How often the first picture of a JPEG goes over its pixels."""
    scans, place = 0, 0
    while found := _MARKER_OF_JPEG.search(content, place):
        marker, place = content[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        if marker not in (0x01, 0xD8):  # the others are followed by their length
            place += int.from_bytes(content[place : place + 2], "big")
    return scans


def read_cut_jpeg(content: bytes, max_pixels: int) -> Image | None:
    """The picture of a JPEG that lacks its end; None where more of the picture is missing than its lowest rows.

    The decoder invents what is missing from whatever follows. Where two endings make no difference, nothing is missing.

    Raises:
        SourceError: it has more than ``max_pixels``.
    """
    # Zeros behind the picture may be padding, or its last byte.
    for body in dict.fromkeys((content.removesuffix(b"\xff"), content.rstrip(b"\0").removesuffix(b"\xff"))):
        with suppress(*_DECODE_ERRORS):
            if (image := _whole_jpeg(body, max_pixels)) is not None:
                return image
    return None


def _whole_jpeg(content: bytes, max_pixels: int) -> Image | None:
    def decoded(ending: bytes, *, upright: bool) -> Image:
        with Pillow.open(io.BytesIO(content + ending + _END_OF_JPEG), formats=["JPEG"]) as opened:
            if opened.width * opened.height > max_pixels:
                raise SourceError(f"a JPEG has {opened.width}x{opened.height} px, more than {max_pixels / 1e6:g} "
                                  "megapixels")  # fmt: skip
            return _upright_rgb(opened) if upright else np.array(opened.convert("RGB"))

    stored = decoded(b"", upright=False)
    allowed = _LAST_ROWS if len(stored) >= _ROWS_TO_SPARE else 0
    for filling in (b"\x00", b"\xa5"):
        other = decoded(filling * _FILLING, upright=False)
        if any((stored[top] != other[top]).any() for top in range(len(stored) - allowed)):
            return None
    del stored, other
    return decoded(b"", upright=True)


def list_photos(path: Path | str) -> list[Path]:
    """The photos in a folder, at any depth, sorted; or the one photo that ``path`` is.

    What is a photo is told by a file's name or by its first bytes; a photo of a format that cannot be decoded is listed
    too, and :func:`read_photo` says why. What is left out is said in the log, once: files that are no pictures, what
    systems make by themselves, and links to folders. Hidden files and folders are passed over.

    Raises:
        SourceError: ``path`` does not exist, cannot be listed, or holds no photos.
    """
    root = Path(path)
    try:
        if root.is_file():
            return [root]
        if not root.is_dir():
            raise SourceError(f"no photo or folder at {root}")
    except OSError as error:
        raise SourceError(f"no photo or folder at {root}: {error.strerror}") from None
    tree = files_below(root)
    photos: list[Path] = []
    others: list[Path] = []
    for file in tree.files:
        (photos if is_photo(file) else others).append(file)
    _tell_left_out(str(root), "files that are no pictures are left out", _some(others, root))
    _tell_left_out(str(root), "folders that a system made are left out", _some(tree.system, root))
    _tell_left_out(str(root), "links to folders are not followed: give their targets by themselves",
                   _some(tree.links, root))  # fmt: skip
    if not photos:
        raise SourceError(f"no photos in {root} (looked for JPEG, PNG, WebP, TIFF, AVIF and others by their content)")
    return photos


@functools.lru_cache(maxsize=1000)
def _tell_left_out(folder: str, what: str, names: str) -> None:
    """Says it once, however often a folder is listed."""
    if names:
        _log.warning(what, folder=folder, left_out=names)


def _some(paths: Sequence[Path], root: Path) -> str:
    names = [str(path.relative_to(root)) for path in paths[:_NAMED]]
    return ", ".join(names) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")


def _upright_rgb(picture: Pillow.Image) -> Image:
    """In strips, so that beside the decoded picture there is one more in memory, and no further ones."""
    picture.load()  # a TIFF is turned by this, and forgets its orientation
    width, height = picture.size
    deep = picture.mode.startswith("I;16") or picture.mode in ("I", "F")
    strips = [(0, top, width, min(top + max(1, _STRIP_PIXELS // width), height))
              for top in range(0, height, max(1, _STRIP_PIXELS // width))]  # fmt: skip
    scale = _scale_of_deep_grey(picture, strips) if deep else 0.0
    rgb = np.empty((height, width, 3), np.uint8)
    for box in strips:
        strip = picture.crop(box)
        rgb[box[1] : box[3]] = _rgb_of_deep_grey(np.asarray(strip), scale) if deep else _rgb(strip)
    try:
        turn = _TURNS.get(picture.getexif().get(0x0112, 1))
    except _DECODE_ERRORS:
        turn = None
    picture.close()
    return rgb if turn is None else np.ascontiguousarray(turn(rgb))


def _rgb(strip: Pillow.Image) -> Image:
    if strip.has_transparency_data:
        # Transparent over white: the colours stored under transparent pixels are meaningless.
        layered = strip.convert("RGBA")
        strip = Pillow.alpha_composite(Pillow.new("RGBA", layered.size, "white"), layered)
    return np.asarray(strip.convert("RGB"))


_TURNS: Final[dict[int, Callable[[Image], Image]]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: rgb.transpose(1, 0, 2)[:, ::-1],
    7: lambda rgb: rgb.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda rgb: rgb.transpose(1, 0, 2)[::-1],
}
"""By the EXIF orientation."""


def _scale_of_deep_grey(picture: Pillow.Image, strips: Sequence[tuple[int, int, int, int]]) -> float:
    """16-bit integers fill 0..65535; floats 0..1, or 0..255 where any is larger."""
    if picture.mode != "F":
        return 255.0 / 65_535.0
    # A strip of nothing but NaN has no largest value.
    largest = max(np.nan_to_num(np.asarray(picture.crop(box)), nan=0.0).max(initial=0.0) for box in strips)
    return 255.0 if largest <= 1.0 else 1.0


def _rgb_of_deep_grey(values: NDArray[np.generic], scale: float) -> Image:
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0)
    eight_bit = np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)
