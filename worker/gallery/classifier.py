"""A classifier that was trained on one's own people: written to a folder, read from it, and searched like a gallery."""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import ClassifierError
from worker.files import file_stamp, replace_file
from worker.logs import get_logger
from worker.types import Candidate, Embeddings, Vectors

_log = get_logger(__name__)

DESCRIPTION_FILE: Final = "classifier.json"
"""The file that is read first and replaced last. It names the other files of the folder, with their digests."""
_MOST_BYTES: Final = 1 << 30

Kind = Literal["svm", "cnn"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Head:
    """From unit vectors to probabilities: a linear score for each person, then its calibration.

    ``coefficients`` (r, d) and ``intercepts`` (r,) give the scores. r is the number of people k; but for two people it
    may be 1, and the score is then the second person's.

    ``sigmoid`` (Platt, 1999): each score goes through a curve of its own, given by ``slopes`` and ``offsets`` (r,), and
    the results are divided by their sum. ``softmax``: the softmax of all scores times ``slopes`` (1,).
    """

    calibration: Literal["sigmoid", "softmax"]
    coefficients: Floats
    intercepts: Floats
    slopes: Floats
    offsets: Floats

    def probabilities(self, vectors: Vectors) -> Floats:
        """(n, k), each row with sum 1, of unit vectors (n, d)."""
        from scipy.special import expit, softmax  # a worker with a gallery does without it

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
    """Writes a classifier into the folder ``path``. A reader sees the old one or the new one, never a mixture.

    ``references`` float32 (m, d) are unit vectors, ``owners`` int64 (m,) the person of each; ``described`` is the rest
    of :class:`Description`.

    Raises:
        ClassifierError: the folder cannot be written.
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
        replace_file(path / description.arrays, content)
        replace_file(path / DESCRIPTION_FILE, f"{description.model_dump_json(indent=2)}\n".encode())
        for old in path.glob("arrays-*.npz"):
            if old.name != description.arrays:
                old.unlink()
    except OSError as error:
        raise ClassifierError(f"classifier {path} cannot be written: {error.strerror or error}") from None
    return description


def _last_version(path: Path) -> int:
    try:
        return int(json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def stamp(path: Path) -> tuple[int, int, int] | None:
    """A value that changes with every training into the folder ``path``; None if there is no classifier."""
    return file_stamp(path / DESCRIPTION_FILE)


def read_classifier(path: Path) -> tuple[Description, Head, Vectors, NDArray[np.int64]]:
    """What :func:`write_classifier` wrote to the folder ``path``: description, head, references and their owners.

    Raises:
        ClassifierError: it cannot be read or is damaged.
    """
    try:
        text = (path / DESCRIPTION_FILE).read_text(encoding="utf-8")
        description = Description.model_validate_json(text)
        content = (path / description.arrays).read_bytes()
    except (ValidationError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ClassifierError(f"classifier {path} is damaged: {DESCRIPTION_FILE}: {problem}; train it anew") from None
    except OSError as error:
        raise ClassifierError(
            f"classifier {path} cannot be read: {error.filename}: {error.strerror or error}"
        ) from None
    if hashlib.sha256(content).hexdigest() != description.arrays_sha256:
        raise ClassifierError(f"classifier {path} is damaged: {description.arrays} has another digest; train it anew")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(part.file_size for part in packed.infolist()) > _MOST_BYTES:
                raise ClassifierError(f"classifier {path}: {description.arrays} unpacks to more than 1 GiB")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            head = Head(
                description.calibration,
                *(arrays[name] for name in ("coefficients", "intercepts", "slopes", "offsets")),
            )
            references, owners = arrays["references"], arrays["owners"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = " ".join(str(error).split())[:200]
        raise ClassifierError(f"classifier {path} is damaged: {description.arrays}: {problem}; train it anew") from None
    rows = 1 if len(description.people) == 2 and description.calibration == "sigmoid" else len(description.people)
    fits = head.coefficients.shape == (rows, description.dimension) and references.shape[1:] == (description.dimension,)
    if not fits or set(owners.tolist()) != set(range(len(description.people))):
        raise ClassifierError(f"classifier {path} is damaged: its arrays do not fit its description; train it anew")
    return description, head, references, owners


def identity_id_of(name: str) -> str:
    """The id of a person of a classifier. It follows from the name alone, so it is the same after each training."""
    return hashlib.sha256(b"facestream.classifier\0" + name.encode()).hexdigest()[:32]


class _Live:
    """The result of one training; immutable."""

    def __init__(self, description: Description, head: Head, references: Vectors, owners: NDArray[np.int64]) -> None:
        self.description = description
        self.head = head
        # By person, so that one reduction finds everybody's nearest reference.
        order = np.argsort(owners, kind="stable")
        self.references, owners = references[order], owners[order]
        self.starts = np.searchsorted(owners, np.arange(len(description.people)))
        self.ids = tuple(map(identity_id_of, description.people))


class Classifier:
    """An open classifier, which the pipeline can search in place of a gallery.

    The most probable person is proposed. The person is named only if two values are large enough: the probability, and
    the cosine to the nearest of the person's references, which are the faces of the training. Probability alone is not
    enough, since a linear classifier is sure of strangers too.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._stamp = stamp(self.path)
        self._live = _Live(*read_classifier(self.path))

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a classifier, intact or not, in the folder ``path``."""
        return (Path(path) / DESCRIPTION_FILE).is_file()

    @classmethod
    def open(cls, path: Path | str) -> "Classifier":
        """The classifier in the folder ``path``.

        Raises:
            ClassifierError: there is no classifier, or it is damaged.
        """
        if not cls.exists(path):
            raise ClassifierError(
                f"no classifier at {path}: train one with 'facestream train svm --data DIR --output {path}'"
            )
        return cls(path)

    @property
    def version(self) -> int:
        return self._live.description.version

    @property
    def model_id(self) -> str:
        return self._live.description.model_id

    @property
    def preprocessing_digest(self) -> str:
        return self._live.description.preprocessing_digest

    @property
    def model(self) -> str:
        """The model that embeds faces for it: the path of a manifest in the folder, or the id of a model."""
        own = self._live.description.embedder
        return str(self.path / own) if own else self.model_id

    @property
    def threshold(self) -> float:
        """The least cosine to the nearest reference with which a person may be named."""
        return self._live.description.threshold

    @property
    def least_probability(self) -> float:
        """The least probability with which a person may be named."""
        return self._live.description.least_probability

    @property
    def people(self) -> tuple[str, ...]:
        """Names, in the order of :meth:`probabilities`."""
        return self._live.description.people

    def threshold_of(self, camera_id: str) -> float:  # noqa: ARG002 - a gallery may have one for each camera
        """The same for every camera."""
        return self.threshold

    def lapsed(self) -> frozenset[str]:
        """A classifier knows no consents."""
        return frozenset()

    def __len__(self) -> int:
        """The number of people."""
        return len(self.people)

    @property
    def sample_count(self) -> int:
        """The number of references."""
        return len(self._live.references)

    def require_model(self, model_id: str, preprocessing_digest: str) -> None:
        """Raises ClassifierError unless the classifier was trained on vectors of this model and preprocessing."""
        if (model_id, preprocessing_digest) != (self.model_id, self.preprocessing_digest):
            raise ClassifierError(
                f"classifier {self.path} was trained with model {self.model_id} (preprocessing "
                f"{self.preprocessing_digest}), not {model_id} ({preprocessing_digest}): "
                f"use --model {self.model_id}, or train it anew"
            )

    def probabilities(self, vectors: Vectors) -> Floats:
        """(n, people), each row with sum 1, of unit vectors (n, d)."""
        return self._live.head.probabilities(vectors)

    def knows(self, identity_id: str) -> bool:
        """Whether a person has this id."""
        return identity_id in self._live.ids

    def search(self, embeddings: Embeddings, without: Collection[str] = ()) -> list[Candidate]:
        """The most probable person and the next one for each vector, the people ``without`` (ids) passed over;
        similarities are cosines to their references.

        Raises:
            ClassifierError: the embeddings are another model's.
        """
        live = self._live
        if embeddings.model_id != live.description.model_id:
            raise ClassifierError(
                f"classifier {self.path} was trained with model {live.description.model_id}, not {embeddings.model_id}"
            )
        if not len(embeddings):
            return []
        probabilities = live.head.probabilities(embeddings.vectors)
        cosines = np.maximum.reduceat(embeddings.vectors @ live.references.T, live.starts, axis=1).clip(-1, 1)
        absent = [number for number, identity_id in enumerate(live.ids) if identity_id in without]
        probabilities[:, absent], cosines[:, absent] = -1.0, -1.0
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        # Nobody takes the place of a person who is passed over where there is no other.
        names, ids = list(live.description.people), list(live.ids)
        for number in absent:
            names[number] = ids[number] = ""
        return [
            Candidate(
                ids[best] or None, names[best], float(cosines[row, best]), float(cosines[row, other]), ids[other],
                names[other], probability=max(0.0, float(probabilities[row, best])),
                least_probability=live.description.least_probability,
            )
            for row, (best, other) in enumerate(order.tolist())
        ]  # fmt: skip

    def reload_if_changed(self) -> bool:
        """Takes up a newer training in the folder; returns whether there was one. Without one it costs one ``stat``.

        A folder that cannot be read is reported in the log once, and what is in memory stays in use.

        Raises:
            ClassifierError: the folder now holds a classifier of another model.
        """
        now = stamp(self.path)
        if now == self._stamp:
            return False
        self._stamp = now
        try:
            live = _Live(*read_classifier(self.path))
        except ClassifierError as error:
            _log.warning("classifier_not_reloaded", classifier=str(self.path), problem=str(error))
            return False
        if live.description.preprocessing_digest != self.preprocessing_digest:
            raise ClassifierError(
                f"classifier {self.path} was replaced: it now has the model {live.description.model_id}, "
                f"not {self.model_id}; restart with the new one"
            )
        self._live = live
        return True

    def close(self) -> None:
        """Nothing is held open."""
