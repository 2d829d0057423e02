"""A gallery that a fleet shares: kept in PostgreSQL, searched in every worker's memory."""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import tenacity

from worker.audit_log import note
from worker.background import Heartbeats
from worker.config import default_state_dir
from worker.database.address import DatabaseAddress, parse_database_url
from worker.erased import Erased
from worker.errors import GalleryError, GalleryExistsError, GalleryUnavailableError
from worker.gallery.contents import Contents, empty
from worker.gallery.database.follower import GalleryFollower
from worker.gallery.database.last_copy import LastCopy
from worker.gallery.database.store import Copy, Follower, GalleryStore, Listening, new_change_id
from worker.gallery.gallery import Gallery, searchable
from worker.logs import get_logger
from worker.observer import Observer

LIVE_S: Final = 7.0
"""A worker that has been silent for longer counts as dead or cut off."""
PREVIOUS: Final = "previous"
"""What the gallery is called, after its own name, that the last switch of models put aside."""
ALWAYS_NEWEST: Final = 2**62
"""The version of who looks anew whenever they are asked."""
_POLL_S: Final = 0.05

_log = get_logger(__name__)


class DatabaseGallery(Gallery):
    """The gallery behind ``postgresql://...?gallery=NAME``, all of it in memory.

    Without :meth:`follow`, it is as new as its last change or :meth:`reload_if_changed`. A change that did not go
    through is tried again after ``retry_s``.
    """

    def __init__(
        self,
        store: GalleryStore,
        address: DatabaseAddress,
        copy: Copy,
        *,
        last_copy: LastCopy | None = None,
        away: str = "",
        retry_s: float = 0.5,
    ) -> None:
        self.label = store.label
        self.problem: GalleryError | None = None
        self._store = store
        self._address = address
        self._away = away
        self._retry_s = retry_s
        self._changing = threading.RLock()
        self._copy = copy
        self._last_copy = last_copy
        self._hidden = Erased()
        self._live = self._seen = searchable(copy.contents)
        self._follower: GalleryFollower | None = None

    @staticmethod
    def exists(url: str) -> bool:
        """Whether there is a gallery.

        Raises:
            ConfigError: the URL is not that of a database.
            GalleryError: the database cannot be used.
        """
        store = GalleryStore.connect(parse_database_url(url))
        store.require_layout()
        return store.exists()

    @classmethod
    def create(cls, url: str, model_id: str, preprocessing_digest: str, dimension: int) -> Self:
        """A new, empty gallery, for the vectors of one model.

        Raises:
            ConfigError: the URL is not that of a database.
            GalleryExistsError: there is one already.
            GalleryError: the database cannot be used.
        """
        address = parse_database_url(url)
        store = GalleryStore.connect(address)
        store.require_layout()
        copy = store.create(empty(model_id, preprocessing_digest, dimension))
        if copy is None:
            raise GalleryExistsError(f"gallery {store.label} exists already; open it, or choose another name")
        return cls(store, address, copy)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        model_id: str | None = None,
        preprocessing_digest: str | None = None,
        copies: Path | None = None,
    ) -> Self:
        """The gallery at ``url``; a model, where given, must be the one that it was made with.

        With ``copies``, a folder, the last copy of the gallery lies there: only what changed since then is read, and
        if the database cannot be reached, the copy is used as it is.

        Raises:
            ConfigError: the URL is not that of a database.
            GalleryError: no gallery there, made with another model, or the database cannot be used.
        """
        address = parse_database_url(url)
        store = GalleryStore.connect(address)
        last_copy = None if copies is None else LastCopy(copies)
        known = None if last_copy is None else last_copy.read()
        away = ""
        try:
            store.require_layout()
            copy = store.fetch(known)
        except GalleryUnavailableError as error:
            if known is None:
                raise
            copy, away = known, str(error)
            _log.warning(
                "starting with the last copy of the gallery", version=known.contents.version, problem=away
            )  # fmt: skip
        if copy is None:
            raise GalleryError(
                f"no gallery at {store.label}: make one with 'facestream enroll --gallery {store.label} PHOTOS'"
            )
        gallery = cls(store, address, copy, last_copy=last_copy, away=away)
        gallery.require_model(model_id or gallery.model_id, preprocessing_digest)
        return gallery

    @classmethod
    def all_in(cls, url: str) -> "list[DatabaseGallery]":
        """Every gallery in the database at ``url``, also those that a switch has put aside.

        Raises:
            ConfigError: the URL is not that of a database.
            GalleryError: the database cannot be used.
        """
        address = parse_database_url(url)
        store = GalleryStore.connect(address)
        stores = [store.called(name) for name in store.names()]
        copies = [(each, each.fetch()) for each in stores]
        return [cls(each, address, copy) for each, copy in copies if copy is not None]

    @property
    def name(self) -> str:
        """What the gallery is called in its database."""
        return self._store.name

    @property
    def audit_folder(self) -> Path:
        return default_state_dir()

    @property
    def away(self) -> str:
        """Why the database cannot be asked now, as far as is known; "" if it can."""
        return self._away if self._follower is None else self._follower.away

    @property
    def followers(self) -> list[Follower]:
        """The workers that follow this gallery, or did within a day.

        Raises:
            GalleryError: the database cannot be reached.
        """
        return self._store.followers()

    def follow(self, worker_id: str, observer: Observer | None = None, *, heartbeats: Heartbeats | None = None) -> None:
        """Keeps the gallery current from now on, by a thread that says so under the name ``worker_id``."""
        if self._follower is None:
            self._store = GalleryStore.connect(self._address, connections=2, observer=observer)
            self._follower = GalleryFollower(
                self._store,
                self.catch_up,
                lambda: self._copy,
                worker_id,
                observer or Observer(),
                heartbeats,
            )
            self._follower.start(self._away)

    def close(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
            if self._last_copy is not None:
                self._last_copy.write(self._copy, at_once=True)
        self._store.close()

    def reload_if_changed(self) -> bool:
        """Takes up what others changed: where the gallery is followed that has happened, and this costs nothing.

        Raises:
            GalleryError: another model's gallery has taken its place; or, if not followed, the database cannot be
                reached.
        """
        if self._follower is None:
            self.catch_up()
        if self.problem is not None:
            raise self.problem
        if self._live is self._seen:
            return False
        self._seen = self._live
        return True

    def catch_up(self, listening: Listening | None = None) -> None:
        """Takes up what the database has newer, over that connection if one is given.

        Raises:
            GalleryError: the database cannot be reached, or has no such gallery any more.
        """
        with self._changing:
            newest = self._store.fetch(self._copy, listening)
            if newest is None:
                raise GalleryUnavailableError(f"gallery {self.label} is gone: restore the database, or enroll again")
            self._take(newest)
        if self._last_copy is not None and self._follower is not None:
            self._last_copy.write(newest)

    def wait_for_workers(self, wait_s: float) -> list[tuple[Follower, bool]]:
        """Waits, up to ``wait_s``, until every live worker searches this version or a later one.

        Returns the workers that were live or became so, and whether each has acknowledged. Who leaves, or falls silent,
        meanwhile is not waited for; the latter has not acknowledged.

        Raises:
            GalleryError: the database cannot be reached.
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

    def erased(self) -> Erased:
        """Who was erased from the database.

        Raises:
            GalleryError: the database cannot be reached.
        """
        return self._store.erased()

    def acknowledge_erased(self, erased: Erased) -> None:
        """This worker has forgotten everybody in the list ``erased``, as :meth:`erased` gave it."""
        if self._follower is not None:
            self._follower.tell_erased(erased.stamp)

    def attend(self, name: str, erased: Erased) -> None:
        """Says that the process ``name``, which looks anew whenever it is asked, has carried out this list; to be said
        every few seconds, or others take it for dead.

        Raises:
            GalleryError: the database cannot be reached.
        """
        self._store.acknowledge(name, ALWAYS_NEWEST, erased.stamp)

    def leave(self, name: str) -> None:
        """The process that has said so is not there any more. Who cannot be told learns it in a few seconds."""
        with suppress(GalleryError):
            self._store.leave(name)

    def wait_for_erasure(self, wait_s: float) -> list[tuple[Follower, bool]]:
        """Waits, up to ``wait_s``, until every live worker has carried out the list of erased people; returns those
        that are live, and whether each has.

        Raises:
            GalleryError: the database cannot be reached.
        """
        deadline = time.monotonic() + wait_s
        while True:
            wanted = self._store.erased().stamp
            live = [follower for follower in self._store.followers() if follower.silent_s <= LIVE_S]
            if all(follower.erased == wanted for follower in live) or time.monotonic() >= deadline:
                return [(follower, follower.erased == wanted) for follower in live]
            time.sleep(_POLL_S)

    def tags_of(self, identity_ids: Collection[str] | None = None) -> set[str]:
        """By which keys of people the rows of these (None: of all) are sealed; "" is among them if something is not.

        Raises:
            GalleryError: the database cannot be reached.
        """
        return self._store.tags_of(identity_ids)

    def seal_anew(self) -> int:
        """Writes all rows as the keys of people say now; returns of how many samples.

        Raises:
            GalleryError: the database cannot be reached.
        """
        return self._store.seal_anew()

    def rewrite_tables(self) -> bool:
        """Takes what was deleted out of the files of the database's tables; returns whether this user may do that.

        Raises:
            GalleryError: the database cannot be reached.
        """
        return self._store.rewrite()

    def hide(self, erased: Erased) -> None:
        with self._changing:
            self._hidden = erased
            self._live = searchable(self._copy.contents.without(erased), self._live)

    def previous(self) -> "DatabaseGallery | None":
        """The gallery that the last switch put aside; None if there was no switch.

        Raises:
            GalleryError: the database cannot be reached.
        """
        store = self._store.beside(PREVIOUS)
        copy = store.fetch()
        return None if copy is None else DatabaseGallery(store, self._address, copy)

    def replace_with(self, contents: Contents) -> None:
        """Holds what ``contents`` holds from now on, another model's vectors perhaps; what was there is put aside.

        Raises:
            GalleryError: somebody else has changed the gallery meanwhile, or the database cannot be reached.
        """
        with self._changing:
            made = self._store.replace(self._copy, contents, self._store.beside(PREVIOUS))
            self._live = self._seen = searchable(made.contents.without(self._hidden))
            self._copy = made
        note(self.audit_folder, "switched", people=len(contents.names), version=made.contents.version)

    def _change(self, change: Callable[[Contents], Contents]) -> None:
        """Tries again where no reply came: the same change is not made twice."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(GalleryUnavailableError),
            wait=tenacity.wait_fixed(self._retry_s),
            stop=tenacity.stop_after_attempt(3),
            reraise=True,
        )
        with self._changing:
            self._take(retrying(self._store.change, self._copy, change, new_change_id()))
            if self.problem is not None:
                raise self.problem
            self._seen = self._live

    def _take(self, newest: Copy) -> None:
        """Makes ``newest`` the version that is searched, unless it is another model's."""
        if newest is self._copy:
            self.problem = None
        elif newest.same_model(self._copy):
            if newest.contents.version < self.version:
                _log.warning(
                    "the gallery went back: the database was restored, or lost its last changes",
                    gallery=self.label, version=newest.contents.version, before=self.version,
                )  # fmt: skip
            self._live = searchable(newest.contents.without(self._hidden, self._live.contents), self._live)
            self._copy = newest
            self.problem = None
        elif self.problem is None:
            mine, other = self._copy.contents, newest.contents
            self.problem = GalleryError(
                f"gallery {self.label} was replaced: it is now made with model {other.model_id} "
                f"(preprocessing {other.preprocessing_digest}), not {mine.model_id} ({mine.preprocessing_digest}); "
                "restart with the new model"
            )
