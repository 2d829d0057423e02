"""Faces of which people have said whom they do not show, and how this changes a search.

Each is the template of a past sighting that named the wrong person. A face that is at least as similar to it as to the
named person's own samples is not that person. Why this rule: docs/decisions/corrections.md.
"""

import time
from dataclasses import replace
from typing import Protocol

import numpy as np

from worker.errors import HistoryError
from worker.history.recorder import Recorder
from worker.history.records import CounterExample, EmbedderId, Vector
from worker.logs import get_logger
from worker.recognition.matching import People
from worker.types import Candidate, Embeddings, Vectors

_log = get_logger(__name__)


class Said(Protocol):
    """What people said of past sightings: of one machine, or of a fleet."""

    def denials_revision(self) -> int:
        """Another number after each change of :meth:`counter_examples`, unless they only expired."""

    def counter_examples(self, embedder: EmbedderId) -> list[CounterExample]:
        """Those that ``embedder`` made."""


class CounterExamples:
    """Those that ``embedder`` made and ``history`` holds. For one thread at a time, that of ``history``.

    ``recorder`` is told of people who are removed while this looks on; None: nobody is.
    """

    def __init__(self, embedder: EmbedderId, history: Said, *, recorder: Recorder | None = None) -> None:
        self._embedder = embedder
        self._history = history
        self._recorder = recorder
        self._revision = -1
        self._examples: list[CounterExample] = []
        self._templates: dict[str, Vectors] = {}
        self._known: set[str] = set()
        self._failed = False

    def refresh(self, people: People) -> bool:
        """Takes up what was said since, and what has expired; returns whether it may change a verdict."""
        changed = self._read()
        if changed or self._known:
            known = {identity_id for identity_id in self._templates if people.knows(identity_id)}
            if self._recorder is not None:
                for identity_id in self._known - known:
                    if not people.knows(identity_id):
                        self._recorder.removed(identity_id)
            self._known = known
        return changed

    def search(self, embeddings: Embeddings, people: People) -> list[Candidate]:
        """What ``people`` answer for each vector, as if those whom it does not show were not there.

        Raises:
            GalleryError, ClassifierError: as ``people`` do.
        """
        candidates = people.search(embeddings)
        if not self._templates:
            return candidates
        return [
            self._allowed(embeddings.vectors[row], candidate, embeddings.model_id, people)
            for row, candidate in enumerate(candidates)
        ]

    def _allowed(self, vector: Vector, first: Candidate, model_id: str, people: People) -> Candidate:
        denied: set[str] = set()
        candidate = first
        while newly := {
            identity_id
            for identity_id, similarity in (
                (candidate.identity_id, candidate.similarity), (candidate.runner_up_id, candidate.runner_up),
            )
            if identity_id and self._denies(vector, identity_id, similarity)
        }:  # fmt: skip
            denied |= newly
            (candidate,) = people.search(Embeddings(vector[None], model_id), denied)
        if first.identity_id in denied:
            return replace(candidate, denied_name=first.identity_name, denied_similarity=first.similarity)
        return candidate

    def _denies(self, vector: Vector, identity_id: str, similarity: float) -> bool:
        templates = self._templates.get(identity_id)
        return templates is not None and float((templates @ vector).max()) >= similarity

    def _read(self) -> bool:
        """Whether the counter-examples are others now."""
        now_s = time.time()
        try:
            revision = self._history.denials_revision()
            if revision == self._revision and all(example.expires_s > now_s for example in self._examples):
                return False
            examples = self._history.counter_examples(self._embedder)
        except HistoryError as error:
            if not self._failed:
                _log.warning("what people say of past sightings is not taken up", reason=str(error))
            self._failed = True
            return False
        self._failed = False
        had_none = not self._examples
        self._revision, self._examples = revision, examples
        by_person: dict[str, list[Vector]] = {}
        for example in examples:
            by_person.setdefault(example.identity_id, []).append(example.template)
        self._templates = {identity_id: np.stack(templates) for identity_id, templates in by_person.items()}
        return bool(examples) or not had_none
