"""The models that facestream knows, by their manifests.

A manifest is a YAML file that says what a network needs and gives: its files with their SHA-256, how a face is cut out
and prepared for it, how long its vectors are, from which similarity two faces are one person. Manifests ship with the
package; weights never do. A file is used only if its digest is that of the manifest.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from worker.config import expand_user
from worker.config.document import parse_yaml
from worker.errors import ModelError
from worker.faces.weights import MODEL_ID, DetectorManifest, Part, WeightSet
from worker.files import open_regular
from worker.redaction import first_problem

ARCFACE_TEMPLATE: Final = (
    (38.2946 / 112, 51.6963 / 112),
    (73.5318 / 112, 51.5014 / 112),
    (56.0252 / 112, 71.7366 / 112),
    (41.5493 / 112, 92.3655 / 112),
    (70.7299 / 112, 92.2041 / 112),
)
"""The five points to which ArcFace models are aligned (112 px), as fractions of the chip's side."""

_PREPROCESSING_VERSION: Final = 1
_MOST_BYTES: Final = 1 << 20
_Kind = TypeVar("_Kind", bound=WeightSet)
Point = tuple[Annotated[float, Field(ge=-1, le=2)], Annotated[float, Field(ge=-1, le=2)]]


class Input(Part):
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


class BoxAlignment(Part):
    """The box enlarged, its shorter side brought to ``shorter_side`` px, and the centre cut out of that."""

    kind: Literal["box"]
    enlarge: float = Field(1.3, ge=0.5, le=4)
    shorter_side: int = Field(256, ge=16, le=2048)


class FivePointAlignment(Part):
    """The similarity that brings the detector's five landmarks nearest to ``template`` (fractions of the side)."""

    kind: Literal["five_point"]
    template: tuple[Point, Point, Point, Point, Point] = ARCFACE_TEMPLATE


class DlibAlignment(Part):
    """dlib's own landmarks inside the detector's box, and dlib's own chip around them."""

    kind: Literal["dlib"]
    predictor: str = Field(description="name of the file with dlib's shape predictor")
    padding: float = Field(0.25, ge=0, le=2)


Alignment = Annotated[BoxAlignment | FivePointAlignment | DlibAlignment, Field(discriminator="kind")]


class Impostors(Part):
    """How similar faces of different people are: the mean of their cosines, the standard deviation, and two points of
    the tail: ``one_percent`` is reached by 1 % of the pairs of people, ``threshold`` by the share ``at_threshold``."""

    mean: float = Field(ge=-1, le=1)
    sd: float = Field(gt=0, le=1)
    one_percent: float = Field(ge=-1, le=1)
    threshold: float = Field(ge=-1, le=1)
    at_threshold: float = Field(gt=0, lt=1)

    def rate_at(self, threshold: float) -> float:
        """The share of pairs of different people that reach ``threshold``: on the line through both points of the
        tail, in logarithms."""
        apart = self.threshold - self.one_percent
        if abs(apart) < 1e-6:
            return min(self.at_threshold, 0.01)
        slope = (math.log(self.at_threshold) - math.log(0.01)) / apart
        return min(math.exp(math.log(0.01) + slope * (threshold - self.one_percent)), 1.0)


class Manifest(WeightSet):
    """A model: its files, what goes in, what comes out."""

    network: str | None = Field(None, description="for h5: which network definition the arrays belong to")
    input: Input
    alignment: Alignment
    dimension: int = Field(ge=2, le=16_384, description="length of an embedding")
    threshold: float = Field(gt=-1, lt=1, description="cosine from which two faces count as one person")
    threshold_fitted_on: str = Field(description="the data behind the threshold")
    impostors: Impostors | None = Field(None, description="similarities of different people in those data, if measured")

    @model_validator(mode="after")
    def _fits_its_format(self) -> "Manifest":
        if (self.network is None) == (self.format == "h5"):
            raise ValueError(
                "format h5 needs 'network', the definition to which its arrays belong; no other format may have it"
            )
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
            "files": self.digests,
            "network": self.network,
            "input": self.input.model_dump(exclude={"max_batch"}),
            "alignment": self.alignment.model_dump(),
            "dimension": self.dimension,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

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
    try:
        path = expand_user(Path(id_or_path))
        is_path = path.suffix in {".yaml", ".yml"} or path.is_file()
    except (ValueError, OSError) as error:
        raise ModelError(f"no manifest can be at '{id_or_path}': {getattr(error, 'strerror', None) or error}") from None
    if is_path:
        return _read_manifest(path).of_folder(path.resolve().parent)
    shipped = _shipped_folder() / f"{id_or_path}.yaml"
    if id_or_path in _detector_ids():
        raise ModelError(f"{id_or_path} finds faces and embeds none: choose it with --detector {id_or_path}")
    if not MODEL_ID.match(id_or_path) or not shipped.is_file():
        known = ", ".join(manifest.id for manifest in list_manifests())
        raise ModelError(
            f"no model is called '{id_or_path}': take one of {known}, or give the path of a manifest of your own"
        )
    return _read_manifest(shipped)


def load_detector_manifest(detector_id: str) -> DetectorManifest:
    """The files of a face detector that ships with facestream.

    Raises:
        ModelError: no such detector.
    """
    if detector_id not in _detector_ids():
        raise ModelError(f"no detector with files is called '{detector_id}': take one of {', '.join(_detector_ids())}")
    return _validated(DetectorManifest, _shipped_folder() / "detectors" / f"{detector_id}.yaml")


def list_weights() -> list[WeightSet]:
    """Everything that ships with a manifest: models, then detectors."""
    return [*list_manifests(), *(load_detector_manifest(name) for name in _detector_ids())]


def load_weight_set(id_or_path: str) -> WeightSet:
    """The manifest of a model or of a detector; see :func:`load_manifest`."""
    return load_detector_manifest(id_or_path) if id_or_path in _detector_ids() else load_manifest(id_or_path)


def _detector_ids() -> list[str]:
    return sorted(path.stem for path in (_shipped_folder() / "detectors").glob("*.yaml"))


def _shipped_folder() -> Path:
    """``worker/manifests`` of an installed wheel, ``models`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "manifests"
    return installed if installed.is_dir() else package.parent / "models"


def _read_manifest(path: Path) -> Manifest:
    return _validated(Manifest, path)


def _validated(kind: type[_Kind], path: Path) -> _Kind:
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ModelError(f"manifest {path} is larger than {_MOST_BYTES} bytes: a manifest has a few lines")
        _, document = parse_yaml(content.decode())
    except OSError as error:
        raise ModelError(f"manifest {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"manifest {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ModelError(f"manifest {path}: the top level must be a mapping of fields; see models/README.md")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ModelError(f"manifest {path}: {first_problem(error)}; see models/README.md") from None
