"""Photos from disk, as upright 8-bit RGB whatever they are stored as."""

import functools
import io
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from worker.errors import SourceError
from worker.logs import get_logger
from worker.types import Image
from worker.video.folders import files_below
from worker.video.picture_kinds import HEAD_BYTES, is_photo, kind_of

MAX_PIXELS: Final = 200_000_000
_BATCH_PIXELS: Final = 64_000_000
_NAMED: Final = 5
_END_OF_JPEG: Final = b"\xff\xd9"
_LAST_ROWS: Final = 18
"""The lowest rows of a JPEG, which one row of its blocks covers; their colours reach into two rows more."""
_ROWS_TO_SPARE: Final = 96
"""A photo of fewer rows must be whole."""
_FILLING: Final = 4096

_log = get_logger(__name__)

_T = TypeVar("_T")

# Pillow warns from this size on and refuses twice of it; the limit is made hard where a photo is opened.
Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS

_DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError, OverflowError, RuntimeError, struct.error)


def read_photo(path: Path | str) -> Image:
    """The photo in ``path`` as uint8 (H, W, 3) RGB, turned upright as its EXIF data say.

    Grey, palette, CMYK, 16-bit and floating-point pictures are converted; transparent parts become white; of an
    animation the first frame is taken.

    What format it is, its first bytes say, not its name. Only formats of photos are tried: no file starts another
    program, as PostScript would. A JPEG that lacks its end, but no more of its picture than its lowest rows, is taken,
    and the log says so.

    Raises:
        SourceError: the file cannot be read, is no picture, is cut off, or has more than ``MAX_PIXELS``.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged EXIF data
            return _read(path)
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
        raise SourceError(f"photo {path} has more than {MAX_PIXELS // 1_000_000} megapixels: scale it down") from None
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


def _read(path: Path) -> Image:
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES), path)
        if kind is None:
            raise Pillow.UnidentifiedImageError
        if not kind.reader:
            raise SourceError(f"photo {path} {kind.problem}")
        if kind.reader == "HEIF":
            _learn_heif(path)
        file.seek(0)
        try:
            with Pillow.open(file, formats=[kind.reader]) as opened:
                return _upright_rgb(opened)
        except OSError:
            if kind.reader != "JPEG" or (image := read_cut_jpeg(path.read_bytes())) is None:
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


def read_cut_jpeg(content: bytes) -> Image | None:
    """The picture of a JPEG that lacks its end; None where more of the picture is missing than its lowest rows.

    The decoder invents what is missing from whatever follows. Where two endings make no difference, nothing is missing.
    """
    # Zeros behind the picture may be padding, or its last byte.
    for body in dict.fromkeys((content.removesuffix(b"\xff"), content.rstrip(b"\0").removesuffix(b"\xff"))):
        with suppress(*_DECODE_ERRORS):
            if (image := _whole_jpeg(body)) is not None:
                return image
    return None


def _whole_jpeg(content: bytes) -> Image | None:
    def decoded(ending: bytes) -> tuple[Image, Image]:
        with Pillow.open(io.BytesIO(content + ending + _END_OF_JPEG), formats=["JPEG"]) as opened:
            return np.array(opened.convert("RGB")), _upright_rgb(opened)

    stored, upright = decoded(b"")
    invented = np.zeros(len(stored), bool)
    for filling in (b"\x00", b"\xa5"):
        invented |= (decoded(filling * _FILLING)[0] != stored).any(axis=(1, 2))
    allowed = _LAST_ROWS if len(stored) >= _ROWS_TO_SPARE else 0
    return None if invented[: len(stored) - allowed].any() else upright


def list_photos(path: Path | str) -> list[Path]:
    """The photos in a folder, at any depth, sorted; or the one photo that ``path`` is.

    What is a photo is told by a file's name or by its first bytes; a photo of a format that cannot be decoded is listed
    too, and :func:`read_photo` says why. What is left out is said in the log, once: files that are no pictures, what
    systems make by themselves, and links to folders. Hidden files and folders are passed over.

    Raises:
        SourceError: ``path`` does not exist, cannot be listed, or holds no photos.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise SourceError(f"no photo or folder at {root}")
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
    picture.load()  # a TIFF is turned by this, and forgets its orientation
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
