"""Photos from disk, as upright 8-bit RGB whatever they are stored as."""

import io
import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from worker.errors import SourceError
from worker.logs import get_logger
from worker.types import Image

MAX_PIXELS: Final = 200_000_000
_BATCH_PIXELS: Final = 64_000_000
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif"})

_T = TypeVar("_T")

# Pillow warns from this size on and refuses twice of it; the limit is made hard where a photo is opened.
Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS

_log = get_logger(__name__)
_END_OF_JPEG: Final = b"\xff\xd9"
_MORE_OF_JPEG: Final = tuple(bytes(pattern) * 16 for pattern in ([0x55], [0xAA], [0x00], [0x1B, 0xE4, 0x93, 0x6D]))
_DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error)


def read_photo(path: Path | str | BinaryIO) -> Image:
    """The photo in ``path``, or in an open file, as uint8 (H, W, 3) RGB, turned upright as its EXIF data say.

    Grey, palette, CMYK, 16-bit and floating-point pictures are converted; transparent parts become white; of an
    animation the first frame is taken. A JPEG that lacks nothing but its end marker is taken, and the log says so.

    Raises:
        SourceError: the file cannot be read, is no picture, is cut off, or has more than ``MAX_PIXELS``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged EXIF data
            with Pillow.open(path) as opened:
                return _upright_rgb(opened)
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
        raise SourceError(f"photo {path} has more than {MAX_PIXELS // 1_000_000} megapixels: scale it down") from None
    except Pillow.UnidentifiedImageError:
        raise SourceError(f"photo {path} is not a picture that can be decoded (JPEG, PNG, WebP, ...)") from None
    except MemoryError:
        raise SourceError(f"photo {path} does not fit into memory: scale it down") from None
    except _DECODE_ERRORS as error:
        if whole := _without_end_marker(path):
            _log.warning("a photo lacks its last bytes, which only say that it ends: it is taken", path=str(path))
            return read_photo(whole)
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


def complete_jpeg(data: bytes) -> bytes | None:
    """``data`` with the end marker that it lacks; None if it lacks more than that, or is no JPEG.

    If the picture is there to its last pixel, nothing that comes behind it can change it.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    body = data.removesuffix(_END_OF_JPEG[:1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended, *continued = (
                np.asarray(Pillow.open(io.BytesIO(body + more + _END_OF_JPEG))) for more in (b"", *_MORE_OF_JPEG)
            )
    except (*_DECODE_ERRORS, Pillow.DecompressionBombError, MemoryError):
        return None
    return body + _END_OF_JPEG if all(np.array_equal(ended, other) for other in continued) else None


def _without_end_marker(path: Path | str | BinaryIO) -> BinaryIO | None:
    """The photo with the end marker that is all it lacks."""
    if not isinstance(path, Path | str):
        return None
    try:
        whole = complete_jpeg(Path(path).read_bytes())
    except (OSError, MemoryError):
        return None
    return io.BytesIO(whole) if whole else None


def list_photos(path: Path | str) -> list[Path]:
    """The photos in a folder, at any depth, sorted; or the one photo that ``path`` is.

    Hidden files and folders are passed over, and so are files of other kinds.

    Raises:
        SourceError: ``path`` does not exist, cannot be listed, or holds no photos.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise SourceError(f"no photo or folder at {root}")
    found: list[Path] = []
    seen: set[str] = set()

    def stop(error: OSError) -> None:
        raise SourceError(f"folder {error.filename} cannot be listed: {error.strerror}") from None

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise SourceError(f"no photos in {root} (looked for {', '.join(sorted(SUFFIXES))})")
    return sorted(found)


def _upright_rgb(picture: Pillow.Image) -> Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return _rgb_of_deep_grey(np.asarray(_upright(picture)))
    if picture.has_transparency_data:
        # Transparent over white: the colours stored under transparent pixels are meaningless.
        layered = picture.convert("RGBA")
        base = Pillow.new("RGBA", layered.size, "white")
        rgb = Pillow.alpha_composite(base, layered).convert("RGB")
        return np.array(_upright(rgb, picture))
    return np.array(_upright(picture).convert("RGB"))


def _upright(picture: Pillow.Image, tagged: Pillow.Image | None = None) -> Pillow.Image:
    """``picture`` turned as the EXIF orientation of ``tagged`` (default: its own) says."""
    try:
        orientation = (tagged or picture).getexif().get(0x0112, 1)
    except _DECODE_ERRORS:
        return picture
    turn = _TURNS.get(orientation)
    return picture.transpose(turn) if turn is not None else picture


_TURNS: Final = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


def _rgb_of_deep_grey(values: NDArray[np.generic]) -> Image:
    """16-bit integers fill 0..65535; floats 0..1, or 0..255 where any is larger."""
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0)
    if np.issubdtype(values.dtype, np.floating):
        scale = 255.0 if grey.max(initial=0.0) <= 1.0 else 1.0
    else:
        scale = 255.0 / 65_535.0
    eight_bit = np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)
