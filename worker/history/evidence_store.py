"""Where pictures of sightings are kept: a folder, or a bucket of an S3-compatible store; and what is found there."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from PIL import Image as Pillow

from worker.config import EvidenceConfig
from worker.encryption import is_as_wanted, seal, unseal
from worker.errors import ConfigError, EncryptionError, SinkError
from worker.files import private_folder, remove_drafts, replace_file
from worker.types import Image

_SUFFIXES: Final = (".face.jpg", ".frame.jpg")
_LEVELS: Final = 3
"""A picture lies in the folder of its camera and day."""
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_MERIT: Final = re.compile(rb"\xff\xd8\xff\xfe..facestream (\d\.\d{4})", re.DOTALL)
"""How a picture says how good it is, in a comment at its beginning: for the worker that goes on with the sighting."""
_MOST_PIXELS: Final = 36_000_000
"""Of a face: no frame of a camera is larger, unless it was allowed to be."""


class Seen(Protocol):
    """A sighting, by what names its pictures."""

    @property
    def sighting_id(self) -> str: ...

    @property
    def camera_id(self) -> str: ...

    @property
    def started_at(self) -> datetime: ...


class EvidenceStore(Protocol):
    """Keeps small files by their path, such as ``lobby/2026-01-31/NAME.face.jpg``."""

    def put(self, path: str, content: bytes) -> None:
        """Writes or replaces one.

        Raises:
            SinkError: it is not written.
        """

    def get(self, path: str) -> bytes | None:
        """What was written there; None if nothing is.

        Raises:
            SinkError: it cannot be read.
        """

    def remove(self, paths: Sequence[str]) -> int:
        """Removes these; returns how many there were.

        Raises:
            SinkError: not all could be removed.
        """

    def prune(self, before: float) -> int:
        """Removes those last written before this Unix time, and nothing else; returns how many.

        Raises:
            SinkError: not all could be removed.
        """


def open_store(config: EvidenceConfig) -> EvidenceStore:
    """The store that ``config.store`` names; it was checked that it can be written.

    Raises:
        ConfigError: it does not name a store, or the library for it is not installed.
        SinkError: it cannot be written.
    """
    text = str(config.store)
    if not text.startswith("s3://"):
        return FolderStore(Path(text))
    try:
        from worker.history.s3 import S3Store
    except ImportError:
        raise ConfigError("evidence.store: an S3 store needs the extra 's3': pip install 'facestream[s3]'") from None
    return S3Store(text, config, _SUFFIXES)


def about(path: str) -> str:
    """What a sealed picture is bound to."""
    return f"evidence/{path}"


class FolderStore:
    """A folder that only this user may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            # Cameras' folders; where there is anything else, other users may need what is there.
            private_folder(folder, ours=lambda name: (folder / name).is_dir())
        except OSError as error:
            raise self._unwritable(error) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"evidence.store {folder} cannot be written; check its permissions")

    def put(self, path: str, content: bytes) -> None:
        target = self._folder / path
        if ".." in target.parts or len(target.parts) != len(self._folder.parts) + _LEVELS:
            raise SinkError(f"evidence.store {self._folder}: {path!r} is not the name of a picture")
        try:
            for folder in (target.parent.parent, target.parent):
                private_folder(folder)
            replace_file(target, content)
        except OSError as error:
            raise self._unwritable(error) from None

    def get(self, path: str) -> bytes | None:
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SinkError(f"evidence.store {self._folder} cannot be read: {error.strerror or error}") from None

    def remove(self, paths: Sequence[str]) -> int:
        removed = 0
        try:
            for path in map(self._folder.joinpath, paths):
                if path.is_file():
                    path.unlink(missing_ok=True)
                    removed += 1
        except OSError as error:
            raise self._unwritable(error) from None
        return removed

    def rewrite(self) -> Iterator[Path]:
        """Writes each picture anew, sealed as the keys of this process say, if it is not so already; gives its path
        when this is done. It expires when it would have.

        Raises:
            SinkError: one is damaged, or cannot be written.
            EncryptionError: one is sealed with a key that is not among those of this process.
        """
        for path in sorted(self._folder.glob("*/*/*.jpg")):
            if not path.name.endswith(_SUFFIXES):
                continue
            try:
                content, status = path.read_bytes(), path.stat()
                if not is_as_wanted(content):
                    bound_to = about(path.relative_to(self._folder).as_posix())
                    replace_file(path, seal(bytes(unseal(content, bound_to, path)), bound_to))
                    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            except FileNotFoundError:  # it has expired meanwhile
                continue
            except ValueError as error:
                raise SinkError(f"picture {path} cannot be opened: {error}; remove it") from None
            except OSError as error:
                raise self._unwritable(error) from None
            yield path

    def prune(self, before: float) -> int:
        removed = 0
        remove_drafts(self._folder)
        try:
            for path in self._folder.glob("*/*/*.jpg"):
                if path.name.endswith(_SUFFIXES) and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    removed += 1
            for folder in [*self._folder.glob("*/*"), *self._folder.glob("*")]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise self._unwritable(error) from None
        return removed

    def _unwritable(self, error: OSError) -> SinkError:
        reason = error.strerror or error
        return SinkError(f"evidence.store {self._folder} cannot be written: {reason}; check permissions and space")


def paths_of(path: str) -> list[str]:
    """Both pictures of the sighting at ``path``, as :func:`picture_path` gives it."""
    return [f"{path}.face.jpg", f"{path}.frame.jpg"]


def picture_path(camera_id: str, started_at: datetime, sighting_id: str) -> str:
    """Where the pictures of a sighting are, without what tells the two apart."""
    return f"{camera_id}/{started_at:%Y-%m-%d}/{_NOT_IN_NAMES.sub('', sighting_id)}"


def path_of(sighting: Seen) -> str:
    # A sighting's id is made of a camera's id and a time; not every file system takes its colons. Whatever else is in
    # it, it names one file in the folder of its camera and day.
    return picture_path(sighting.camera_id, sighting.started_at, sighting.sighting_id)


def stored_face(store: EvidenceStore, sighting: Seen) -> Image | None:
    """The picture of the face in a sighting, uint8 RGB; None if none is kept that can be read.

    Raises:
        SinkError: the store cannot be read.
        EncryptionError: it is encrypted, and its key is not among those of this process.
    """
    return _stored(store, f"{path_of(sighting)}.face.jpg")


def stored_scene(store: EvidenceStore, sighting: Seen) -> Image | None:
    """The whole frame from which that face is, in the same form. Raises as :func:`stored_face` does."""
    return _stored(store, f"{path_of(sighting)}.frame.jpg")


def _stored(store: EvidenceStore, path: str) -> Image | None:
    content = store.get(path)
    if content is None:
        return None
    # The store is not trusted: a few bytes may declare a picture that takes all memory.
    try:
        content = bytes(unseal(content, about(path), f"picture {path}"))
        with Pillow.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            return None if opened.width * opened.height > _MOST_PIXELS else np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError):
        return None


def stored_merit(store: EvidenceStore, path: str) -> float:
    """How good the face is that is stored there; less than any if it cannot be told."""
    try:
        found = _MERIT.match(bytes(unseal(store.get(path) or b"", about(path), f"picture {path}")))
    except (ValueError, EncryptionError):
        return -1.0
    return -1.0 if found is None else float(found[1])


def with_merit(jpeg: bytes, merit: float) -> bytes:
    """``jpeg`` with a comment that says how good it is (0..1)."""
    text = f"facestream {merit:.4f}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + jpeg[2:]
