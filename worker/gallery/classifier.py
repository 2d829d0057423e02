"""Who it is, by a classifier that was trained on one's own people: read from a folder, searched like a gallery."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.errors import GalleryError
from worker.gallery.classifier_store import (
    DESCRIPTION_FILE,
    Description,
    Floats,
    Head,
    Kind,
    Vectors,
    read_classifier,
    stamp,
)
from worker.logs import get_logger
from worker.types import Candidate, Embeddings

_log = get_logger(__name__)


def identity_id_of(name: str) -> str:
    """The id of a person of a classifier: the same for the same name, whatever was trained."""
    return hashlib.sha256(b"facestream.classifier\0" + name.encode()).hexdigest()[:32]


class _Live:
    """One training's result, immutable."""

    def __init__(self, description: Description, head: Head, references: Vectors, owners: NDArray[np.int64]) -> None:
        self.description = description
        self.head = head
        # By person, so that one reduction finds everybody's nearest reference.
        order = np.argsort(owners, kind="stable")
        self.references, owners = references[order], owners[order]
        self.starts = np.searchsorted(owners, np.arange(len(description.people)))
        self.ids = tuple(map(identity_id_of, description.people))


class Classifier:
    """An open classifier folder; the pipeline searches it in a gallery's place.

    A person is proposed by probability, and named if that probability and the cosine to the nearest of the person's
    references (faces they were trained with) are both large enough: a linear classifier alone is sure of everybody,
    strangers too.
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
            GalleryError: none there, or damaged.
        """
        if not cls.exists(path):
            raise GalleryError(
                f"no classifier at {path}: train one with 'facestream train svm --data DIR --output {path}'"
            )
        return cls(path)

    @property
    def version(self) -> int:
        return self._live.description.version

    @property
    def kind(self) -> Kind:
        return self._live.description.kind

    @property
    def model_id(self) -> str:
        return self._live.description.model_id

    @property
    def preprocessing_digest(self) -> str:
        return self._live.description.preprocessing_digest

    @property
    def embedder(self) -> str:
        """What loads the embedder: the path of the manifest in the folder, or the id of a model."""
        own = self._live.description.embedder
        return str(self.path / own) if own else self.model_id

    @property
    def threshold(self) -> float:
        """Cosine to the nearest reference from which a person may be named."""
        return self._live.description.threshold

    @property
    def least_probability(self) -> float:
        """Probability from which a person may be named."""
        return self._live.description.least_probability

    @property
    def people(self) -> tuple[str, ...]:
        """Names, in the order of :meth:`probabilities`."""
        return self._live.description.people

    def threshold_of(self, camera_id: str) -> float:  # noqa: ARG002 - a gallery has thresholds of single cameras
        """The same for every camera."""
        return self.threshold

    def __len__(self) -> int:
        """The number of people."""
        return len(self.people)

    @property
    def sample_count(self) -> int:
        """The number of references."""
        return len(self._live.references)

    def require_model(self, model_id: str, preprocessing_digest: str) -> None:
        """Raises GalleryError unless the classifier was trained on vectors of this model and preprocessing."""
        if (model_id, preprocessing_digest) != (self.model_id, self.preprocessing_digest):
            raise GalleryError(
                f"classifier {self.path} was trained with model {self.model_id} (preprocessing "
                f"{self.preprocessing_digest}), not {model_id} ({preprocessing_digest}): "
                f"use --model {self.model_id}, or train it anew"
            )

    def probabilities(self, vectors: Vectors) -> Floats:
        """(n, people), each row with sum 1, of unit vectors (n, d)."""
        return self._live.head.probabilities(vectors)

    def search(self, embeddings: Embeddings) -> list[Candidate]:
        """The most probable person and the next one for each vector; similarities are cosines to their references.

        Raises:
            GalleryError: the embeddings are another model's.
        """
        live = self._live
        if embeddings.model_id != live.description.model_id:
            raise GalleryError(
                f"classifier {self.path} was trained with model {live.description.model_id}, not {embeddings.model_id}"
            )
        if not len(embeddings):
            return []
        probabilities = live.head.probabilities(embeddings.vectors)
        cosines = np.maximum.reduceat(embeddings.vectors @ live.references.T, live.starts, axis=1).clip(-1, 1)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        names, ids = live.description.people, live.ids
        return [
            Candidate(
                ids[best], names[best], float(cosines[row, best]), float(cosines[row, other]), ids[other], names[other],
                probability=float(probabilities[row, best]), least_probability=live.description.least_probability,
            )
            for row, (best, other) in enumerate(order.tolist())
        ]  # fmt: skip

    def reload_if_changed(self) -> bool:
        """Takes up what was trained into the folder meanwhile; costs one ``stat`` where nothing was.

        A folder that cannot be read is reported in the log once, and what is in memory stays in use.

        Raises:
            GalleryError: the folder now holds a classifier of another model.
        """
        now = stamp(self.path)
        if now == self._stamp:
            return False
        self._stamp = now
        try:
            live = _Live(*read_classifier(self.path))
        except GalleryError as error:
            _log.warning("classifier_not_reloaded", classifier=str(self.path), problem=str(error))
            return False
        if live.description.preprocessing_digest != self.preprocessing_digest:
            raise GalleryError(
                f"classifier {self.path} was replaced: it now has the model {live.description.model_id}, "
                f"not {self.model_id}; restart with the new one"
            )
        self._live = live
        return True

    def close(self) -> None:
        """Nothing is held open."""
