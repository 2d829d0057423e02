"""A classifier on disk: numbers in one ``.npz``, everything else in one JSON file, nothing that has to be unpickled."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import expit, softmax

from worker.errors import GalleryError

DESCRIPTION_FILE: Final = "classifier.json"
"""What is read first; it names all other files of the folder with their digests, and is replaced last."""

Kind = Literal["svm", "cnn"]
Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """From unit vectors to probabilities: a linear score for each person, then its calibration.

    ``coefficients`` (r, d) and ``intercepts`` (r,) give the scores; r is the number of people k, or 1 where k is 2 and
    the score is the second person's. ``sigmoid`` (Platt, 1999): each score goes through a curve of its own, of
    ``slopes`` and ``offsets`` (r,), and what comes out is divided by its sum. ``softmax``: all scores times
    ``slopes`` (1,).
    """

    calibration: Literal["sigmoid", "softmax"]
    coefficients: Floats
    intercepts: Floats
    slopes: Floats
    offsets: Floats

    def probabilities(self, vectors: Vectors) -> Floats:
        """(n, k), each row with sum 1, of unit vectors (n, d)."""
        scores = vectors.astype(np.float64) @ self.coefficients.T + self.intercepts
        if self.calibration == "softmax":
            shared: Floats = softmax(scores * self.slopes, axis=1)
            return shared
        single: Floats = expit(-(self.slopes * scores + self.offsets))
        if single.shape[1] == 1:
            return np.hstack([1 - single, single])
        total = single.sum(axis=1, keepdims=True)
        even = np.full_like(single, 1 / single.shape[1])
        divided: Floats = np.divide(single, total, out=even, where=total > 0)
        return divided


class Description(BaseModel):
    """``classifier.json``: what a classifier is and which files belong to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["facestream.classifier.v1"] = "facestream.classifier.v1"
    kind: Kind
    version: int = Field(ge=1, description="counts the trainings into this folder")
    created_at: str
    model_id: str
    preprocessing_digest: str
    dimension: int = Field(ge=2)
    people: tuple[str, ...] = Field(min_length=2, description="names, in the order of the coefficients")
    calibration: Literal["sigmoid", "softmax"]
    threshold: float = Field(ge=-1, le=1, description="cosine to the person's nearest reference")
    least_probability: float = Field(ge=0, le=1.01)  # above 1: nobody is named
    arrays: str = Field(pattern=r"^[a-z0-9.-]+$")
    arrays_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    embedder: str | None = Field(
        None, pattern=r"^[a-z0-9.-]+$", description="manifest in the folder, of its own network"
    )
    fitted: dict[str, Any] = Field(default_factory=dict, description="how the two thresholds were found")


def write_classifier(
    path: Path, head: Head, references: Vectors, owners: NDArray[np.int64], **described: Any
) -> Description:
    """Writes a classifier into the folder ``path``; whoever has it open takes it up whole.

    ``references`` float32 (m, d) are unit vectors, ``owners`` int64 (m,) the person of each; ``described`` is the rest
    of :class:`Description`.

    Raises:
        GalleryError: the folder cannot be written.
    """
    held = io.BytesIO()
    np.savez(
        held,
        coefficients=head.coefficients,
        intercepts=head.intercepts,
        slopes=head.slopes,
        offsets=head.offsets,
        references=references.astype(np.float32),
        owners=owners.astype(np.int64),
    )
    content = held.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    description = Description(
        calibration=head.calibration,
        arrays=f"arrays-{digest[:12]}.npz",
        arrays_sha256=digest,
        version=_last_version(path) + 1,
        **described,
    )
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / description.arrays).write_bytes(content)
        draft = path / f"{DESCRIPTION_FILE}.draft"
        draft.write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path / DESCRIPTION_FILE)
        for old in path.glob("arrays-*.npz"):
            if old.name != description.arrays:
                old.unlink()
    except OSError as error:
        raise GalleryError(f"classifier {path} cannot be written: {error.strerror or error}") from None
    return description


def _last_version(path: Path) -> int:
    try:
        return int(json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def stamp(path: Path) -> tuple[int, ...]:
    """Changes with every training into the folder ``path``; empty where there is no classifier."""
    try:
        found = (path / DESCRIPTION_FILE).stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_classifier(path: Path) -> tuple[Description, Head, Vectors, NDArray[np.int64]]:
    """What :func:`write_classifier` wrote to the folder ``path``: description, head, references and their owners.

    Raises:
        GalleryError: it cannot be read, or is damaged.
    """
    try:
        text = (path / DESCRIPTION_FILE).read_text(encoding="utf-8")
        description = Description.model_validate_json(text)
        content = (path / description.arrays).read_bytes()
    except (ValidationError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise GalleryError(f"classifier {path} is damaged: {DESCRIPTION_FILE}: {problem}; train it anew") from None
    except OSError as error:
        raise GalleryError(f"classifier {path} cannot be read: {error.filename}: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != description.arrays_sha256:
        raise GalleryError(f"classifier {path} is damaged: {description.arrays} has another digest; train it anew")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        head = Head(
            description.calibration,
            *(arrays[name] for name in ("coefficients", "intercepts", "slopes", "offsets")),
        )
        references, owners = arrays["references"], arrays["owners"]
    rows = 1 if len(description.people) == 2 and description.calibration == "sigmoid" else len(description.people)
    fits = head.coefficients.shape == (rows, description.dimension) and references.shape[1:] == (description.dimension,)
    if not fits or set(owners.tolist()) != set(range(len(description.people))):
        raise GalleryError(f"classifier {path} is damaged: its arrays do not fit its description; train it anew")
    return description, head, references, owners
