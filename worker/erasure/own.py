"""A worker's own part: what it has of people who were erased, in its memory and in its files, goes.

It looks at the list of erased people several times a second, and says when it is done. One that was away does the same
before it begins to serve.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

from worker import encryption
from worker.background import BackgroundTask, Heartbeats
from worker.config import Config, default_state_dir, history_folder, history_place
from worker.erased import Erased, add_erasure, folders_of, read_erased, stamp_of
from worker.erasure.attendance import Presence
from worker.errors import FacestreamError, GalleryUnavailableError, SinkError
from worker.events.outbox import Outbox
from worker.files import remove_drafts, remove_scratch
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.gallery import Gallery
from worker.history.recorder import Recorder
from worker.logs import get_logger
from worker.recognition.pipeline import Pipeline
from worker.recognition.saved import without_erased
from worker.recognition.shadow import Shadow

EVERY_S: Final = 0.25
_WRITTEN_S: Final = 10.0
_SENDING_S: Final = 0.1
_FETCH_S: Final = 0.5
_MIND_S: Final = 86_400.0

_log = get_logger(__name__)


def erasure_folders(config: Config) -> list[Path]:
    """The folders of the list of erased people, for a worker with ``config``."""
    state = history_folder(config)
    if state is None and (config.fleet.enabled or isinstance(history_place(config), str)):
        state = default_state_dir()
    return folders_of(config.gallery, state)


def remove_abandoned(config: Config, *, pictures: bool = True) -> None:
    """Removes what processes that were killed have left half written, which bears nobody's name. Among many
    ``pictures`` that takes seconds: the thread that writes them does it as well."""
    remove_scratch()
    store = config.evidence.store if pictures else None
    kept = [] if store is None or "://" in store else [Path(store)]
    shadow = folders_of(config.shadow_gallery)
    for folder in dict.fromkeys([*erasure_folders(config), *shadow, *kept]):
        remove_drafts(folder)


def destroy_keys(erased: Erased) -> None:
    """Takes the keys of these people out of this process, and out of the file that this machine has of them.

    Raises:
        EncryptionError: the file cannot be written.
    """
    if (keys := encryption.keys().people) is not None:
        keys.destroy(erased.keys)


class OwnErasure:
    """``order`` has the thread of the pipeline do something between two batches. Parts that are not configured are
    None. The thread is ``erasure`` in ``heartbeats``."""

    def __init__(
        self,
        folders: Sequence[Path],
        worker_id: str,
        pipeline: Pipeline,
        outbox: Outbox,
        order: Callable[[Callable[[], None]], None],
        *,
        recorder: Recorder | None = None,
        shadow: Shadow | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._folders = folders
        self._pipeline = pipeline
        self._outbox = outbox
        self._order = order
        self._recorder = recorder
        self._shadow = shadow
        self._people = pipeline.gallery
        self._fetched = Erased()
        self._fetched_s = float("-inf")
        self._acknowledged = ""
        self._names: Mapping[str, str] = {}
        self._earlier: Mapping[str, str] = {}
        self._done = Erased()
        self._problem = ""
        self._minded_s = float("-inf")
        self._presence = Presence(folders, worker_id)
        self._stamp = stamp_of(folders)
        self._task = BackgroundTask("erasure", self._step, interval_s=EVERY_S, heartbeats=heartbeats)

    def catch_up(self) -> None:
        """What was erased while this worker was away; before it serves.

        Raises:
            FacestreamError: it cannot be erased now.
        """
        self._note_names()
        erased = self._read()
        if erased:
            self._hide(erased)
            self._pipeline.erase(erased)
            self._erase_files(erased)
        self._finish(erased)

    def start(self) -> None:
        self._task.start()

    def close(self) -> None:
        self._task.stop(EVERY_S + _WRITTEN_S)
        self._presence.leave()

    def _step(self) -> None:
        try:
            self._greet()
            stamp = stamp_of(self._folders)
            changed = stamp != self._stamp or self._problem
            erased = self._read() if changed else self._done.plus(self._fetch().erasures)
            if erased.ids != self._done.ids:
                self._take_up(erased)
            elif self._fetched.stamp != self._acknowledged:
                self._acknowledge()  # it had come by a folder before
            self._stamp = stamp
        except FacestreamError as error:
            self._note_problem(str(error))
        self._note_names()
        self._mind_consents()

    def _mind_consents(self) -> None:
        """Says once a day whose consent needs a look, in numbers."""
        people, now_s = self._pipeline.gallery, time.monotonic()
        if isinstance(people, Gallery) and now_s - self._minded_s >= _MIND_S:
            self._minded_s = now_s
            soon, over = people.consents_to_mind()
            if soon or over:
                _log.warning(
                    "consents end: 'facestream gallery list' shows whose, 'facestream database expire' erases those "
                    "that are over", ending_within_30_days=soon, over=over,
                )  # fmt: skip

    @property
    def _shared(self) -> DatabaseGallery | None:
        """The gallery in a database, which has a list too."""
        people = self._pipeline.gallery
        return people if isinstance(people, DatabaseGallery) else None

    def _greet(self) -> None:
        """After a switch of models, another gallery is searched: it passes over the same people."""
        if self._pipeline.gallery is not self._people:
            self._people = self._pipeline.gallery
            self._order(partial(self._hide, self._done))
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Says in the database that the list there is carried out."""
        if self._shared is not None:
            self._shared.acknowledge_erased(self._fetched)
            self._acknowledged = self._fetched.stamp

    def _take_up(self, erased: Erased) -> None:
        forgotten = Event()

        def forget() -> None:
            try:
                self._hide(erased)
                self._pipeline.erase(erased)
                if self._shadow is not None:
                    self._shadow.erase(erased)
            finally:
                forgotten.set()

        self._order(forget)
        if not self._wait(forgotten):
            raise SinkError("the pipeline does not get round to it")
        self._erase_files(erased)
        self._finish(erased)

    def _hide(self, erased: Erased) -> None:
        """The list may be here before the next version of the gallery."""
        people = self._pipeline.gallery
        if isinstance(people, Gallery):
            people.hide(erased)

    def _fetch(self) -> Erased:
        """The list in the database, asked for once in a while. It is noted in the folders as well: a database may be
        restored to a time before an erasure, and may be away when the worker starts."""
        now_s = time.monotonic()
        if self._shared is not None and now_s - self._fetched_s >= _FETCH_S:
            self._fetched_s = now_s
            try:
                self._fetched = self._shared.erased()
            except GalleryUnavailableError:
                return self._fetched  # the gallery says in the log that the database is away
            known = read_erased(self._folders).ids
            for erasure in self._fetched.erasures:
                if erasure.erasure_id not in known:
                    add_erasure(self._folders, erasure)
        return self._fetched

    def _erase_files(self, erased: Erased) -> None:
        written = None
        if self._recorder is not None:
            known = {**self._earlier, **self._names}
            names = [name for identity_id, name in known.items() if identity_id in erased]
            written = self._recorder.erase(erased, names)
        while self._outbox.erase(erased, partial(without_erased, erased=erased)):
            if self._task.pause(_SENDING_S):
                return
        if written is not None and not self._wait(written):
            raise SinkError("the history cannot be written now")

    def _finish(self, erased: Erased) -> None:
        destroy_keys(erased)
        self._done = erased
        self._earlier, self._names = {}, {}
        self._note_names()
        if erased:
            _log.info("people who were erased are forgotten here", erasures=len(erased.ids))
        self._problem = ""
        self._presence.tell(erased.ids)
        self._acknowledge()

    def _note_problem(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("somebody who was erased is not forgotten here yet", problem=problem)
            self._presence.tell(self._done.ids, problem)
        self._problem = problem

    def _read(self) -> Erased:
        fetched = self._fetch()
        return read_erased(self._folders).plus(fetched.erasures)

    def _wait(self, done: Event) -> bool:
        waited_s = 0.0
        while not done.wait(EVERY_S):
            waited_s += EVERY_S
            self._task.beat()
            if waited_s >= _WRITTEN_S:
                return False
        return True

    def _note_names(self) -> None:
        """Who is known, and was just before: what is told of others is found by the name, which no list holds."""
        people = self._pipeline.gallery
        if isinstance(people, Gallery) and people.contents.names is not self._names:
            self._earlier, self._names = self._names, people.contents.names
