"""The unknown people of the past with what they are recognised by, kept in memory and brought up to date at each look:
only who has changed is read, and compared with the gallery, anew."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.gallery.gallery import Gallery
from worker.history.records import UnknownPerson
from worker.history.store import History
from worker.recognition.unknowns import made_with
from worker.types import Candidate, Embeddings

AT_ONCE: Final = 128
"""So many are compared with thousands of faces in a fraction of a second."""


@dataclass(slots=True)
class _Known:
    revision: int
    person: UnknownPerson
    nearest: Candidate | None = None


class Strangers:
    """Of one console. Safe to use from any thread."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._compared_with: object = None
        self._lock, self._working = threading.Lock(), threading.Lock()

    def forget(self) -> None:
        """Nothing is kept of anybody; what is needed is read anew."""
        with self._lock:
            self._known.clear()

    def look(self, history: History) -> list[UnknownPerson]:
        """Everybody who is remembered now, as far as ``history`` may be looked at.

        Raises:
            HistoryError: the history cannot be read.
        """
        with self._lock:
            # What is kept here is for all who look, whatever their cameras are.
            whole = history.of_cameras(None)
            now = whole.unknown_revisions()
            old = {key: known.revision for key, known in self._known.items()}
            stale = [key for key, (revision, _) in now.items() if old.get(key) != revision]
            for key in self._known.keys() - now.keys():
                del self._known[key]
            for person in whole.unknown_people(stale):
                if person.unknown_id in now:
                    self._known[person.unknown_id] = _Known(now[person.unknown_id][0], person)
            for key, known in self._known.items():
                if known.person.is_ignored != now[key][1]:
                    known.person = replace(known.person, is_ignored=now[key][1])
            people = [known.person for known in self._known.values()]
        return history.people_in_sight(people)

    def nearest(
        self, people: Sequence[UnknownPerson], gallery: Gallery, most: int | None = None
    ) -> tuple[dict[str, Candidate], bool]:
        """The nearest enrolled people of each of these, by unknown_id; of those alone who were seen by the model of the
        gallery. And whether that is all: with ``most``, no more than so many are compared now, and the others beside
        what the caller does, so that a look a moment later has them."""
        found, fresh = self._compared(people, gallery)
        if most is not None and self._working.locked():
            most = 0
        now, left = fresh[:most], fresh[len(fresh[:most]) :]
        found |= self._compare(now, gallery)
        if left and not self._working.locked():
            threading.Thread(target=self._work, args=(left, gallery), name="strangers", daemon=True).start()
        return found, not left

    def _work(self, people: Sequence[UnknownPerson], gallery: Gallery) -> None:
        with self._working:
            version = gallery.version
            for first in range(0, len(people), AT_ONCE):
                if gallery.version != version:
                    return
                self._compare(people[first : first + AT_ONCE], gallery)

    def _compared(
        self, people: Sequence[UnknownPerson], gallery: Gallery
    ) -> tuple[dict[str, Candidate], list[UnknownPerson]]:
        """What is known, and who has to be compared."""
        own, compared_with = made_with(gallery), (gallery.version, gallery.lapsed())
        found: dict[str, Candidate] = {}
        fresh: list[UnknownPerson] = []
        with self._lock:
            if compared_with != self._compared_with:
                self._compared_with = compared_with
                for known in self._known.values():
                    known.nearest = None
            for person in people if len(gallery) else ():
                kept = self._known.get(person.unknown_id)
                if kept is not None and kept.nearest is not None:
                    found[person.unknown_id] = kept.nearest
                elif person.template is not None and person.embedder == own:
                    fresh.append(person)
        return found, fresh

    def _compare(self, people: Sequence[UnknownPerson], gallery: Gallery) -> dict[str, Candidate]:
        templates = [person.template for person in people if person.template is not None]
        if not templates:
            return {}
        compared_with = gallery.version, gallery.lapsed()
        candidates = gallery.search(Embeddings(np.stack(templates), gallery.model_id))
        with self._lock:
            for person, candidate in zip(people, candidates, strict=True):
                kept = self._known.get(person.unknown_id)
                if (
                    kept is not None
                    and kept.person.template is person.template
                    and self._compared_with == compared_with
                ):
                    kept.nearest = candidate
        return {person.unknown_id: candidate for person, candidate in zip(people, candidates, strict=True)}
