"""Crops kept at enrolment: enough of each photo to embed its face with another model; encrypted if there is a key.

Layout below the gallery's folder::

    crops/settings.json                   format, whether encrypted, fingerprint of the key
    crops/<sample id>-<sha256>.crop       the digest of the file itself

A file is a marker, and after it JSON (box, landmarks, score) and a JPEG. Both are plain, or they are encrypted with
AES-256-GCM and the key for crops, which binds them to their sample. All of it may be sealed once more with the key of
the whole installation, see :mod:`worker.encryption`: a worker needs that one, and no key for crops.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.encryption import is_as_wanted, seal, unseal
from worker.errors import GalleryError
from worker.files import private_folder, replace_file, why_unwritable
from worker.gallery.contents import Sample
from worker.types import Detections, Image

CROPS: Final = "crops"
"""The folder of crops inside a gallery's folder."""
_NAME: Final = re.compile(r"^([0-9a-f]{32})-([0-9a-f]{64})\.crop$")
FORMAT: Final = "facestream.crops.v1"
CONTEXT: Final = 2.0
"""The side of a crop, in sides of the face's box: there is room for the alignment of every model and a tilted head."""
LARGEST_PX: Final = 512
_JPEG_QUALITY: Final = 95
_EXPORTED_PX: Final = 224
_NONCE_BYTES: Final = 12
_PLAIN, _SEALED = b"FSCROP1P", b"FSCROP1S"


@dataclass(frozen=True, slots=True)
class Crop:
    """A face with its surroundings: ``image`` uint8 (h, w, 3) RGB, and the one detection in it, in px of ``image``."""

    image: Image
    detections: Detections


class CropStore:
    """The crops of the gallery in ``folder``. There is nothing on disk until :meth:`open_for_writing` is called."""

    def __init__(self, folder: Path | str, key: bytes | None = None) -> None:
        self._folder = Path(folder) / CROPS
        self._key = key

    @property
    def exists(self) -> bool:
        """Whether the gallery keeps crops."""
        return (self._folder / "settings.json").is_file()

    def open_for_writing(self) -> None:
        """Begins to keep crops, encrypted if there is a key. If crops are kept already, checks that the key is theirs.

        Raises:
            GalleryError: the crops need a key or another key, or the folder cannot be written.
        """
        if self.exists:
            self._check_key()
            return
        settings = {"format": FORMAT, "encrypted": self._key is not None, "key_fingerprint": _fingerprint(self._key)}
        try:
            private_folder(self._folder)
            replace_file(self._folder / "settings.json", json.dumps(settings, indent=1).encode())
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def add(self, sample_id: str, crop: Crop) -> None:
        """Keeps the crop of a sample.

        Raises:
            GalleryError: the folder cannot be written.
        """
        self._keep(sample_id, _encode(crop))

    def copy(self, sample_id: str, target: "CropStore", new_id: str) -> None:
        """Keeps the crop of a sample, if there is one, in ``target`` as the crop of ``new_id``, bit for bit.

        Raises:
            GalleryError: it is damaged, the key is missing or is not the right one, or the folder cannot be written.
        """
        if plain := self._read(sample_id):
            target._keep(new_id, plain)

    def copy_files(self, target: "CropStore") -> None:
        """Keeps all crops in ``target`` as well, as they are. No key is needed.

        Raises:
            GalleryError: the two stores have different keys, or ``target`` cannot be written.
        """
        if target.exists and target._settings() != self._settings():
            raise GalleryError(
                f"the crops {self._folder} and {target._folder} have different keys: "
                "re-embed with the key of the gallery, or without crops"
            )
        try:
            private_folder(target._folder)
            for path in [*_crop_files(self._folder).values(), self._folder / "settings.json"]:
                replace_file(target._folder / path.name, path.read_bytes())
        except OSError as error:
            raise _unwritable(target._folder, error) from None

    def _keep(self, sample_id: str, plain: bytes) -> None:
        if self._key is None:
            content = _PLAIN + plain
        else:
            nonce = os.urandom(_NONCE_BYTES)
            content = _SEALED + nonce + AESGCM(self._key).encrypt(nonce, plain, sample_id.encode())
        try:
            _write(self._folder, sample_id, seal(content, _about(sample_id)))
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def sample_ids(self) -> set[str]:
        """The samples that have a crop."""
        return set(_crop_files(self._folder))

    def read(self, sample_id: str) -> Crop | None:
        """The crop of a sample; None if no crop was kept.

        Raises:
            GalleryError: it is damaged, or the key is missing or is not the right one.
        """
        plain = self._read(sample_id)
        try:
            return _decode(plain) if plain else None
        except (ValueError, KeyError) as error:
            raise GalleryError(f"the crop of sample {sample_id} in {self._folder} cannot be read: {error}") from None

    def faces(self, samples: Sequence[Sample]) -> Image:
        """The kept faces of ``samples``: uint8 (n, 224, 224, 3) RGB, black for a sample without a crop.

        Raises:
            GalleryError: a crop is damaged or cannot be decrypted.
        """
        faces = np.zeros((len(samples), _EXPORTED_PX, _EXPORTED_PX, 3), np.uint8)
        for face, sample in zip(faces, samples, strict=True):
            if crop := self.read(sample.sample_id):
                face[:] = _squared(crop)
        return faces

    def face(self, sample_id: str) -> Image | None:
        """One of :meth:`faces`, of the sample of this id; None if no crop was kept. Raises as :meth:`faces`."""
        crop = self.read(sample_id)
        return None if crop is None else _squared(crop)

    def _read(self, sample_id: str) -> bytes | None:
        path = _crop_files(self._folder).get(sample_id)
        if path is None:
            return None
        self._check_key()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise GalleryError(f"crop {path} cannot be read: {error.strerror or error}") from None
        if hashlib.sha256(content).hexdigest() != path.stem.split("-", 1)[1]:
            raise GalleryError(f"crop {path} does not match its digest: restore it from a backup, or remove it")
        try:
            return self._opened(bytes(unseal(content, _about(sample_id), f"crop {path}")), sample_id)
        except (InvalidTag, ValueError) as error:
            raise GalleryError(f"crop {path} cannot be opened: {str(error) or 'not sealed with this key'}") from None

    def prune(self, kept: Collection[str]) -> int:
        """Removes the crops of all samples except ``kept``; returns how many.

        Raises:
            GalleryError: a crop cannot be removed.
        """
        return remove_crops(self._folder, self.sample_ids() - set(kept))

    def _settings(self) -> dict[str, Any]:
        path = self._folder / "settings.json"
        try:
            settings: dict[str, Any] = json.loads(path.read_text())
            found = settings["format"], {name: settings[name] for name in ("encrypted", "key_fingerprint")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GalleryError(f"crops of gallery {self._folder.parent}: {path.name} cannot be read: {error}") from None
        if found[0] != FORMAT:
            raise GalleryError(f"crops {self._folder} have format {found[0]!r}, this version reads {FORMAT}; upgrade")
        return found[1]

    def _check_key(self) -> None:
        settings = self._settings()
        if not settings["encrypted"]:
            self._key = None
        elif self._key is None:
            raise GalleryError(
                f"the crops of gallery {self._folder.parent} are encrypted: "
                "give their key as FACESTREAM_GALLERY_KEY or FACESTREAM_GALLERY_KEY_FILE"
            )
        elif _fingerprint(self._key) != settings["key_fingerprint"]:
            raise GalleryError(f"the crops of gallery {self._folder.parent} were encrypted with another key")

    def _opened(self, content: bytes, sample_id: str) -> bytes:
        marker, rest = content[: len(_PLAIN)], content[len(_PLAIN) :]
        if marker == _PLAIN and self._key is None:
            return rest
        if marker == _SEALED and self._key is not None:
            return AESGCM(self._key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], sample_id.encode())
        raise ValueError("it is not encrypted as settings.json says")


def rewrite_crops(folder: Path) -> Iterator[str]:
    """Writes each crop in the folder of crops ``folder`` anew, sealed as the keys of this process say, if it is not so
    already; gives the id of each sample when this is done. No key for crops is needed.

    Raises:
        GalleryError: a crop is damaged, or cannot be written.
        EncryptionError: one is sealed with a key that is not among those of this process.
    """
    for sample_id, path in _crop_files(folder).items():
        try:
            content = path.read_bytes()
            if not is_as_wanted(content):
                plain = bytes(unseal(content, _about(sample_id), f"crop {path}"))
                _write(folder, sample_id, seal(plain, _about(sample_id)))
                path.unlink()
        except ValueError as error:
            raise GalleryError(f"crop {path} cannot be opened: {error}") from None
        except OSError as error:
            raise _unwritable(folder, error) from None
        yield sample_id


def _write(folder: Path, sample_id: str, content: bytes) -> None:
    replace_file(folder / f"{sample_id}-{hashlib.sha256(content).hexdigest()}.crop", content)


def _about(sample_id: str) -> str:
    return f"crop/{sample_id}"


def _squared(crop: Crop) -> Image:
    """The middle of the crop around the face, as uint8 (224, 224, 3)."""
    x1, y1, x2, y2 = crop.detections.boxes[0].astype(float)
    reach = max(x2 - x1, y2 - y1) * 0.65
    scale = _EXPORTED_PX / (2 * reach)
    matrix = np.array(
        [[scale, 0, _EXPORTED_PX / 2 - scale * (x1 + x2) / 2], [0, scale, _EXPORTED_PX / 2 - scale * (y1 + y2) / 2]]
    )
    size = (_EXPORTED_PX, _EXPORTED_PX)
    return np.asarray(cv2.warpAffine(crop.image, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def remove_crops(folder: Path, sample_ids: Iterable[str]) -> int:
    """Removes the crops of these samples from the folder of crops ``folder``; returns how many there were.

    Raises:
        GalleryError: a crop cannot be removed.
    """
    files = _crop_files(folder)
    gone = [files[sample_id] for sample_id in sample_ids if sample_id in files]
    for path in gone:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None
    return len(gone)


def cut_crop(image: Image, detections: Detections) -> Crop:
    """The one face of ``detections`` in ``image`` with its surroundings, at most ``LARGEST_PX`` a side."""
    x1, y1, x2, y2 = detections.boxes[0].astype(float)
    reach = max(x2 - x1, y2 - y1) * CONTEXT / 2
    height, width = image.shape[:2]
    left, right = _span((x1 + x2) / 2, reach, width)
    top, bottom = _span((y1 + y2) / 2, reach, height)
    part = image[top:bottom, left:right]
    scale = min(1.0, LARGEST_PX / max(part.shape[:2]))
    if scale < 1:
        size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([part.shape[1] / (right - left), part.shape[0] / (bottom - top)], np.float32)
    offset = np.array([left, top], np.float32)
    boxes = (detections.boxes[:1] - np.tile(offset, 2)) * np.tile(ratio, 2)
    landmarks = (detections.landmarks[:1] - offset) * ratio
    return Crop(np.ascontiguousarray(part), Detections(boxes, detections.scores[:1], landmarks))


def _span(centre: float, reach: float, length: int) -> tuple[int, int]:
    first = int(np.clip(np.floor(centre - reach), 0, length - 1))
    return first, int(np.clip(np.ceil(centre + reach), first + 1, length))


def _encode(crop: Crop) -> bytes:
    found = crop.detections
    head = {
        "box": found.boxes[0].tolist(),
        "landmarks": found.landmarks[0].tolist(),
        "score": float(found.scores[0]),
    }
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, picture = cv2.imencode(".jpg", cv2.cvtColor(crop.image, cv2.COLOR_RGB2BGR), quality)
    return json.dumps(head).encode() + b"\n" + picture.tobytes()


def _decode(plain: bytes) -> Crop:
    head, _, picture = plain.partition(b"\n")
    fields = json.loads(head)
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("its picture cannot be decoded")
    found = Detections(
        np.array([fields["box"]], np.float32),
        np.array([fields["score"]], np.float32),
        np.array([fields["landmarks"]], np.float32),
    )
    return Crop(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8), found)


def _fingerprint(key: bytes | None) -> str:
    return hashlib.sha256(b"facestream.crops:" + key).hexdigest()[:16] if key else ""


def _crop_files(folder: Path) -> dict[str, Path]:
    """The files in the folder of crops ``folder``, by the id of their sample; empty if there is no such folder."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return {}
    return {match[1]: path for path in entries if (match := _NAME.match(path.name))}


def _unwritable(folder: Path, error: OSError) -> GalleryError:
    return GalleryError(f"crops {folder} cannot be written: {why_unwritable(error)}")
