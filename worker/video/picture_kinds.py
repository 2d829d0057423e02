"""What kind of picture a file holds, told by its first bytes: the name of a file may say anything."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.files import open_regular

HEAD_BYTES: Final = 512
SUFFIXES: Final = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".pgm",
    ".ppm", ".pbm", ".pnm", ".gif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".tga", ".pcx", ".qoi", ".psd", ".sgi",
    ".heic", ".heif", ".hif",
})  # fmt: skip
"""Files of these names are photos, also damaged ones. Other files are photos if their first bytes say so."""


@dataclass(frozen=True, slots=True)
class PictureKind:
    """``reader``: Pillow's name for the format; "" for pictures that cannot be decoded here, with ``problem``."""

    reader: str
    problem: str = ""


_TO_JPEG: Final = "cannot be decoded here: convert it to JPEG or PNG"
_HEIC: Final = PictureKind("HEIF")
_RAW: Final = PictureKind("", f"is a camera's raw file, which {_TO_JPEG}")

_MAGIC: Final[tuple[tuple[bytes, PictureKind], ...]] = (
    (rb"\xff\xd8\xff", PictureKind("JPEG")),
    (rb"\x89PNG\r\n\x1a\n", PictureKind("PNG")),
    (rb"GIF8[79]a", PictureKind("GIF")),
    (rb"RIFF....WEBP", PictureKind("WEBP")),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", PictureKind("BMP")),
    (rb"(?:II|MM).{6}CR\x02", _RAW),
    (rb"II[*+]\0|MM\0[*+]", PictureKind("TIFF")),
    (rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s", PictureKind("PPM")),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", PictureKind("JPEG2000")),
    (rb"qoif", PictureKind("QOI")),
    (rb"8BPS\0\x01", PictureKind("PSD")),
    (rb"\x01\xda[\0\x01][\x01\x02]", PictureKind("SGI")),
    (rb"....ftypcrx |FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|....HEAPCCDR|FOVb|\0MRM", _RAW),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", PictureKind("", f"is a JPEG XL photo, which {_TO_JPEG}")),
    (rb"II\xbc\x01", PictureKind("", f"is a JPEG XR photo, which {_TO_JPEG}")),
    (rb"v/1\x01|#\?R(?:ADIANCE|GBE)", PictureKind("", f"is a picture of high dynamic range, which {_TO_JPEG}")),
    (rb".{128}DICM", PictureKind("", f"is a DICOM picture, which {_TO_JPEG}")),
    (rb"gimp xcf|BPG\xfb|FLIF|8BPS\0\x02|DDS ", PictureKind("", f"is of a format that {_TO_JPEG}")),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in _MAGIC)
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_RAW_SUFFIXES: Final = frozenset(
    {".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw",
     ".3fr", ".erf", ".kdc", ".mrw", ".x3f", ".iiq", ".rwl"}
)  # fmt: skip
_VIDEO_SUFFIXES: Final = frozenset({".mjpg", ".mjpeg", ".mjp"})
"""A recording that is one JPEG after the other begins as a photo does."""
_BY_SUFFIX: Final = {".tga": PictureKind("TGA"), ".pcx": PictureKind("PCX")}
"""Formats whose first bytes look like anything."""


def kind_of(head: bytes, path: Path) -> PictureKind | None:
    """The kind of picture that begins with ``head`` (``HEAD_BYTES`` or the whole file); None if it is no picture.

    The name of ``path`` matters only where the bytes are not enough: a camera's raw file looks like a TIFF.
    """
    suffix = path.suffix.lower()
    if head[4:8] == b"ftyp" and (kind := _kind_of_container(head)):
        return kind
    found = next((kind for pattern, kind in _COMPILED if pattern.match(head)), None)
    if found and found.reader == "TIFF" and suffix in _RAW_SUFFIXES:
        return _RAW
    return found or (_BY_SUFFIX.get(suffix) if head else None)


def is_photo(path: Path) -> bool:
    """Whether ``path`` is meant as a photo, by its name or its first bytes; also one that cannot be decoded.

    A file that cannot be read counts if its name says so: who reads it learns why.
    """
    if path.exists() and not path.is_file():
        return False  # a pipe would be waited for
    if path.suffix.lower() in SUFFIXES | _VIDEO_SUFFIXES:
        return path.suffix.lower() in SUFFIXES
    try:
        with open_regular(path) as file:
            return kind_of(file.read(HEAD_BYTES), path) is not None
    except OSError:
        return False


def _kind_of_container(head: bytes) -> PictureKind | None:
    """AVIF and HEIC lie in the container that videos lie in too; its list of brands says which it is."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, min(size, len(head)), 4))]
    if b"avif" in brands or b"avis" in brands:
        return PictureKind("AVIF")
    return _HEIC if brands[0] in _HEIF_BRANDS else None
