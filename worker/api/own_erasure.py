"""A console's own part in an erasure: it forgets as each worker does, and says so.

It shows people, their past, and what the stream still holds of them. So it looks at the list of erased people several
times a second, and one that was away carries it out before it serves.
"""

import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from worker.api.parts import Parts
from worker.background import BackgroundTask, Heartbeats
from worker.erased import Erased, add_erasure, read_erased, stamp_of
from worker.erasure.attendance import Presence
from worker.erasure.own import EVERY_S, destroy_keys, erasure_folders
from worker.errors import FacestreamError, GalleryError
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.gallery import Gallery
from worker.logs import get_logger

_FETCH_S: Final = 0.5
_BEAT_S: Final = 2.0
_STOP_S: Final = 5.0

_log = get_logger(__name__)


class ConsoleErasure:
    """``forgotten`` is called once ``parts`` shows nobody any more who was erased. The thread is ``erasure`` in
    ``heartbeats``."""

    def __init__(self, parts: Parts, forgotten: Callable[[], None], heartbeats: Heartbeats | None = None) -> None:
        self._parts = parts
        self._forgotten = forgotten
        self._folders = erasure_folders(parts.config)
        # Two consoles of one machine are two: one must not answer for the other.
        host = f"console-{socket.gethostname()}"
        self._name = f"{host}/{secrets.token_hex(4)}"
        self._presence = Presence(self._folders, host)
        self._stamp = stamp_of(self._folders)
        self._fetched = Erased()
        self._fetched_s = self._beaten_s = float("-inf")
        self._names: Mapping[str, str] = {}
        self._earlier: Mapping[str, str] = {}
        self._problem = ""
        self._followed: DatabaseGallery | None = None
        self._task = BackgroundTask("erasure", self._step, interval_s=EVERY_S, heartbeats=heartbeats)

    def catch_up(self) -> None:
        """What was erased while this console was away; before it serves.

        Raises:
            FacestreamError: it cannot be erased now.
        """
        self._note_names()
        self._carry_out(self._read(), answers=False)

    def start(self) -> None:
        self._task.start()

    def close(self) -> None:
        self._task.stop(_STOP_S)
        self._presence.leave()
        if self._followed is not None:
            self._followed.leave(self._name)

    def _step(self) -> None:
        try:
            stamp = stamp_of(self._folders)
            changed = stamp != self._stamp or bool(self._problem)
            erased = self._read() if changed else self._parts.erased.plus(self._fetch().erasures)
            if changed or erased.ids != self._parts.erased.ids:
                self._carry_out(erased)
            self._stamp = stamp
            self._attend()
        except FacestreamError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("somebody who was erased is not forgotten here yet", problem=self._problem)
                self._presence.tell(self._done, self._problem)
        self._note_names()

    @property
    def _done(self) -> frozenset[str]:
        return frozenset() if self._problem else self._parts.erased.ids

    def _read(self) -> Erased:
        return read_erased(self._folders).plus(self._fetch().erasures)

    def _fetch(self) -> Erased:
        """The list in the database, asked for once in a while, and noted in the folders too: a database may be restored
        to a time before an erasure."""
        now_s = time.monotonic()
        if self._parts.is_shared and now_s - self._fetched_s >= _FETCH_S:
            self._fetched_s = now_s
            with self._parts.history() as history:
                self._fetched = history.erased()
            known = read_erased(self._folders).ids
            for erasure in self._fetched.erasures:
                if erasure.erasure_id not in known:
                    add_erasure(self._folders, erasure)
        return self._fetched

    def _carry_out(self, erased: Erased, *, answers: bool = True) -> None:
        self._parts.forget(erased)
        self._forgotten()
        if erased:
            known = {**self._earlier, **self._names}
            names = [name for identity_id, name in known.items() if identity_id in erased]
            with self._parts.history() as history:
                history.erase(erased, names)
                history.erase_told(erased, names, answers=answers)
            _log.info("people who were erased are forgotten here", erasures=len(erased.ids))
        destroy_keys(erased)
        self._problem = ""
        self._earlier, self._names = {}, {}
        self._note_names()
        self._presence.tell(self._done)
        self._beaten_s = float("-inf")
        self._attend()

    def _attend(self) -> None:
        """Says in a gallery that a fleet shares what was carried out: others have no folder in common with us."""
        now_s = time.monotonic()
        if not self._parts.is_shared or now_s - self._beaten_s < _BEAT_S:
            return
        self._beaten_s = now_s
        with suppress(GalleryError):  # the database is away: who waits for this console does so until it is back
            gallery = self._parts.gallery()
            if isinstance(gallery, DatabaseGallery):
                # Of other databases, the folders may know more.
                done = Erased(each for each in self._fetched.erasures if each.erasure_id in self._parts.erased.ids)
                gallery.attend(self._name, done)
                self._followed = gallery

    def _note_names(self) -> None:
        """Who is known, and was just before: what is told of others is found by the name, which no list holds."""
        gallery = self._parts.gallery_in_use
        if isinstance(gallery, Gallery) and gallery.contents.names is not self._names:
            self._earlier, self._names = self._names, gallery.contents.names
