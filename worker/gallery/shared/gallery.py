"""A gallery that a fleet shares: kept in Redis, searched in every worker's memory.

Redis is the meeting point, not the only copy: whoever has the gallery open keeps all of it, goes on when Redis is away,
and gives it back to a Redis that has lost it. What was removed stays removed: every copy knows the ids of removed
samples, and no merge of copies brings one of those back.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Self

import tenacity

from worker.config import RedisConfig
from worker.errors import GalleryError, GalleryExistsError, GalleryUnavailableError
from worker.gallery.contents import Contents, added_samples, removed_samples
from worker.gallery.gallery import Gallery, searchable
from worker.gallery.shared.follower import GalleryFollower
from worker.gallery.shared.replica import Copy, first_copy, merged, new_id, restored
from worker.gallery.shared.store import Follower, SharedStore
from worker.logs import get_logger
from worker.observer import Observer

LIVE_S: Final = 7.0
"""A worker that has been silent for longer counts as dead or cut off."""
_RETRY_S: Final = 0.5
_CONFLICTS: Final = 200
_CONFLICT_S: Final = 0.02
_POLL_S: Final = 0.05

_log = get_logger(__name__)


class SharedGallery(Gallery):
    """The gallery behind ``redis://...?gallery=NAME``, all of it in memory.

    Without :meth:`follow`, it is as new as its last change or :meth:`reload_if_changed`.
    """

    def __init__(self, store: SharedStore, copy: Copy) -> None:
        self.label = store.label
        self.problem: GalleryError | None = None
        self._store = store
        self._changing = threading.RLock()
        self._copy = copy
        self._live = self._seen = searchable(copy.state)
        self._follower: GalleryFollower | None = None

    @staticmethod
    def exists(url: str, redis: RedisConfig | None = None) -> bool:
        """Whether there is a gallery.

        Raises:
            GalleryError: Redis cannot be reached.
        """
        store = SharedStore.connect(url, redis)
        try:
            return store.exists()
        finally:
            store.close()

    @classmethod
    def create(
        cls, url: str, model_id: str, preprocessing_digest: str, dimension: int, *, redis: RedisConfig | None = None
    ) -> Self:
        """A new, empty gallery, for the vectors of one model.

        Raises:
            GalleryExistsError: there is one already.
            GalleryError: Redis cannot be reached.
        """
        store = SharedStore.connect(url, redis)
        copy = first_copy(model_id, preprocessing_digest, dimension)
        if not store.replace(None, copy):
            raise GalleryExistsError(f"gallery {store.label} exists already; open it, or choose another name")
        return cls(store, copy)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        model_id: str | None = None,
        preprocessing_digest: str | None = None,
        redis: RedisConfig | None = None,
    ) -> Self:
        """The gallery at ``url``; a model, where given, must be the one that it was made with.

        Raises:
            GalleryError: no gallery there, made with another model, or Redis cannot be reached.
        """
        store = SharedStore.connect(url, redis)
        copy, _ = store.fetch()
        if copy is None:
            raise GalleryError(
                f"no gallery at {store.label}: make one with 'facestream enroll --gallery {store.label} PHOTOS'"
            )
        gallery = cls(store, copy)
        gallery.require_model(model_id or gallery.model_id, preprocessing_digest)
        return gallery

    @property
    def followers(self) -> list[Follower]:
        """The workers that follow this gallery, or did within a day.

        Raises:
            GalleryError: Redis cannot be reached.
        """
        return self._store.followers()

    def follow(self, worker_id: str, observer: Observer | None = None) -> None:
        """Keeps the gallery current from now on, by a thread that says so under the name ``worker_id``."""
        if self._follower is None:
            self._follower = GalleryFollower(
                self._store, self.catch_up, lambda: self._copy, worker_id, observer or Observer()
            )
            self._follower.start()

    def close(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        self._store.close()

    def reload_if_changed(self) -> bool:
        """Takes up what others changed: where the gallery is followed that has happened, and this costs nothing.

        Raises:
            GalleryError: another model's gallery has taken its place; or, if not followed, Redis cannot be reached.
        """
        if self._follower is None:
            self.catch_up()
        if self.problem is not None:
            raise self.problem
        if self._live is self._seen:
            return False
        self._seen = self._live
        return True

    def catch_up(self) -> bool:
        """Takes up what Redis has newer, and gives Redis what it has lost.

        Returns whether the gallery is now the newest: not if another model's has taken its place, or if somebody else
        is giving Redis back what it has lost.

        Raises:
            GalleryUnavailableError: Redis cannot be reached.
        """
        with self._changing:
            for _ in range(_CONFLICTS):
                theirs, grew = self._store.fetch(self._copy)
                if theirs is self._copy:
                    return True
                if theirs is not None and not theirs.same_model(self._copy):
                    if grew or theirs.state.version > self.version:
                        self._refuse(theirs)
                        return False
                    ours = restored(self._copy)
                elif theirs is not None and grew:
                    self._adopt(theirs)
                    return True
                else:
                    ours = restored(self._copy) if theirs is None else merged(self._copy, theirs)
                claim = new_id()
                if not self._store.claim_restoring(claim):
                    return False  # somebody else writes the whole of it at this moment
                try:
                    is_restored = self._store.replace(theirs, ours)
                finally:
                    self._store.end_restoring(claim)
                if is_restored:
                    self._adopt(ours)
                    _log.warning(
                        "gallery restored in Redis",
                        gallery=self.label, version=ours.state.version, people=len(ours.state.names),
                        samples=ours.state.sample_count, found="nothing" if theirs is None else "an older copy",
                    )  # fmt: skip
                    return True
        raise GalleryUnavailableError(f"gallery {self.label} is being changed by many others; try again later")

    def wait_for_workers(self, wait_s: float) -> list[tuple[Follower, bool]]:
        """Waits, up to ``wait_s``, until every live worker searches this version or a later one.

        Returns the workers that were live or became so, and whether each has acknowledged. Who leaves, or falls silent,
        meanwhile is not waited for; the latter has not acknowledged.

        Raises:
            GalleryError: Redis cannot be reached.
        """
        wanted = self.version
        awaited: dict[str, Follower] = {}
        deadline = time.monotonic() + wait_s
        while True:
            known = {follower.worker_id: follower for follower in self._store.followers()}
            awaited = {key: known[key] for key in awaited if key in known}
            awaited |= {key: follower for key, follower in known.items() if follower.silent_s <= LIVE_S}
            done = all(who.version >= wanted or who.silent_s > LIVE_S for who in awaited.values())
            if done or time.monotonic() >= deadline:
                return [(follower, follower.version >= wanted) for _, follower in sorted(awaited.items())]
            time.sleep(_POLL_S)

    def beside(self, name: str) -> SharedStore:
        """The shared gallery called after this one with ``.name`` behind, which may not exist, on the same Redis."""
        return self._store.beside(name)

    def replace_with(self, state: Contents) -> None:
        """Holds what ``state`` holds from now on, another model's vectors perhaps, in place of the version in use.

        Raises:
            GalleryError: somebody else has changed the gallery meanwhile, or Redis cannot be reached.
        """
        with self._changing:
            next_ = restored(self._copy)
            new = replace(next_, state=replace(state, version=next_.state.version))
            if not self._store.replace(self._copy, new):
                raise GalleryError(f"gallery {self.label} was changed by somebody else meanwhile: try again")
            self._adopt(new)

    def _change(self, change: Callable[[Contents], Contents]) -> None:
        with self._changing:
            for _ in range(_CONFLICTS):
                is_newest = self.catch_up()
                if self.problem is not None:
                    raise self.problem
                if not is_newest:
                    time.sleep(_POLL_S)
                    continue
                after = change(self._copy.state)
                if after is self._copy.state:
                    return
                if copy := self._write(after):
                    self._adopt(copy)
                    self._seen = self._live
                    return
                time.sleep(random.uniform(0, _CONFLICT_S))  # noqa: S311 - spreads writers out, guards nothing
        raise GalleryUnavailableError(f"gallery {self.label} is being changed by many others; try again later")

    def _write(self, after: Contents) -> Copy | None:
        """Tries again where no reply came: the same change is not made twice."""
        change_id = new_id()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(GalleryUnavailableError),
            wait=tenacity.wait_fixed(_RETRY_S),
            stop=tenacity.stop_after_attempt(3),
            reraise=True,
        )
        return retrying(self._store.change, self._copy, after, _kind(self._copy.state, after), change_id)

    def _adopt(self, copy: Copy) -> None:
        self._live = searchable(copy.state, self._live if copy.same_model(self._copy) else None)
        self._copy = copy
        self.problem = None

    def _refuse(self, theirs: Copy) -> None:
        if self.problem is None:
            mine, other = self._copy.state, theirs.state
            self.problem = GalleryError(
                f"gallery {self.label} was replaced: it is now made with model {other.model_id} "
                f"(preprocessing {other.preprocessing_digest}), not {mine.model_id} ({mine.preprocessing_digest}); "
                "restart with the new model"
            )


def _kind(before: Contents, after: Contents) -> str:
    if removed_samples(before, after):
        return "removed"
    if added_samples(before, after):
        return "added"
    return "renamed" if before.names != after.names else "thresholds"
