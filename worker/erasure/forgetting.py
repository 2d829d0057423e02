"""A plan carried out, place by place; what was done and when goes into the receipt.

The order: first the list of erased people, so that nothing which is read from now on brings them back. Then the stores,
then the workers, then the consumers, and at the end the search for what is left.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker import encryption
from worker.config import Config, history_place
from worker.erased import FILE, Erased, Erasure, add_erasure
from worker.erasure import search
from worker.erasure.attendance import attendants
from worker.erasure.own import destroy_keys
from worker.erasure.plan import Plan, counted, galleries_of, has_past
from worker.errors import FacestreamError
from worker.events.outbox import Outbox
from worker.events.spool import InUseError
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.opening import gallery_exists, open_gallery
from worker.gallery.snapshots import SnapshotStore
from worker.history.evidence_store import open_store, paths_of, picture_path
from worker.history.store import History
from worker.history.waiting import Waiting
from worker.recognition.saved import without_erased
from worker.wire import now_rfc3339

_POLL_S: Final = 0.05
_VANISH_S: Final = 4.0

Document = dict[str, Any]


@dataclass(slots=True)
class Place:
    """What was removed at one place, when it could not be found any more, and when its bytes were gone."""

    place: str
    where: str
    removed: str = "nothing"
    logical_at: str | None = None
    physical_at: str | None = None
    problem: str = ""

    def document(self) -> Document:
        return asdict(self)


@dataclass(slots=True)
class Outcome:
    """``places`` and ``workers`` as JSON values; ``remains``: what is out of reach, and what to do about it."""

    erasure: Erasure
    places: list[Place] = field(default_factory=list)
    workers: list[Document] = field(default_factory=list)
    remains: list[Document] = field(default_factory=list)
    searched: Document = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether all that is within reach is gone, and each worker has said so."""
        return not any(place.problem for place in self.places) and all(worker["done"] for worker in self.workers)


class Forgetting:
    """Carries out ``plan`` for a worker with ``config``; ``folders`` are those of the list of erased people.

    ``tell`` is called with a line for each step.
    """

    def __init__(
        self,
        plan: Plan,
        erasure: Erasure,
        galleries: Sequence[Gallery],
        config: Config,
        folders: Sequence[Path],
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.outcome = Outcome(erasure)
        self._plan = plan
        self._galleries = galleries
        self._config = config
        self._folders = list(folders)
        self._tell = tell
        self._erased = Erased([erasure])

    def begin(self) -> None:
        """From now on, nothing that is read anew brings the person back.

        Raises:
            ErasureError: the list cannot be written; nothing was changed.
            HistoryError: what is of others cannot be parted from the person.
        """
        past = history_place(self._config)
        if isinstance(past, str) and self._plan.tags - {""}:
            # While all have the keys: what was written of the person may be of somebody else by now.
            with History.open(past) as history:
                history.part_from(self._plan.tags - {""}, self._plan.someone, self._erased)
        whole = add_erasure(self._folders, self.outcome.erasure)
        place = Place("list of erased people", ", ".join(str(folder / FILE) for folder in self._folders))
        place.removed, place.logical_at = f"{len(whole.ids)} erasures noted, as digests of ids", now_rfc3339()
        self.outcome.places.append(place)

    def stores(self) -> None:
        """Galleries with all their versions, the past, pictures, and events that wait."""
        # What lies inside a gallery goes before it.
        for gallery in reversed(self._galleries):
            self._at("gallery", gallery.label, partial(self._gallery, gallery))
        place = history_place(self._config)
        if place is not None and has_past(place):
            self._at("past sightings", _shown(place), partial(self._history, place))
        for path in sorted({path for folder in self._folders for path in folder.glob("outbox-*.sqlite3")}):
            self._at("events that wait", str(path), partial(self._outbox, path))
        for folder in self._folders:
            # Of workers of a fleet, which may never start again.
            for waiting in sorted(folder.glob("waiting-*")):
                self._at("past sightings that wait for the database", str(waiting), partial(self._waiting, waiting))
            for copy in sorted(folder.glob("galleries/*")):
                self._at("last copy of a gallery", str(copy), partial(self._copy, copy))
        if self._config.evidence.store is not None:
            self._at("pictures of sightings", str(self._config.evidence.store), self._pictures)

    def at(self, place: str, where: str, action: Callable[[], str]) -> None:
        """One more place, such as the cache of calibrations; ``action`` says what was removed."""
        self._at(place, where, action)

    def wait_for_workers(self, wait_s: float) -> None:
        """Until each worker that runs has erased the person from its memory and its files, or the time is over."""
        wanted, due_s = self.outcome.erasure.erasure_id, time.monotonic() + wait_s
        while True:
            present = attendants(self._folders)
            if all(wanted in worker.done for worker in present) or time.monotonic() >= due_s:
                break
            time.sleep(_POLL_S)
        at = now_rfc3339()
        for worker in present:
            done = wanted in worker.done
            self.outcome.workers.append(
                {"worker": worker.name, "done": done, "at": at if done else None, "problem": worker.problem}
            )
        for gallery in self._galleries:
            if isinstance(gallery, DatabaseGallery):
                self._wait_for_followers(gallery, max(0.0, due_s - time.monotonic()))
        for told in self.outcome.workers:
            self._tell(f"worker {told['worker']}: {'done' if told['done'] else 'NOT done ' + told['problem']}")

    def _wait_for_followers(self, gallery: DatabaseGallery, wait_s: float) -> None:
        for follower, done in gallery.wait_for_erasure(wait_s):
            at = now_rfc3339() if done else None
            self.outcome.workers.append({"worker": follower.worker_id, "done": done, "at": at, "problem": ""})

    def empty_databases(self) -> None:
        """Destroys the keys by which databases have sealed what they had of the person, so that nothing which is left
        in their files, their logs or their backups can be opened. Where something was not sealed, takes it out of the
        tables as far as the user of the database may do that; nobody can say from here that its bytes are gone."""
        keys = encryption.keys().people
        if keys is not None and self._plan.tags:
            self._at("keys of people", str(keys.path), self._destroy_keys)
            self.remains(
                f"copies of {keys.path} from before this erasure, and what databases and their logs held in clear "
                "before 'facestream encryption apply'",
                "delete such copies and such logs, archives and backups: with a copy, what is left can be opened",
            )
        if self._plan.is_sealed:
            gone_at = now_rfc3339() if self.outcome.is_whole else None
            for place in self.outcome.places:
                if place.where.startswith("postgres") and place.logical_at is not None:
                    place.physical_at = gone_at
            return
        self._rewrite_tables()

    def _destroy_keys(self) -> str:
        destroy_keys(self._erased)
        return f"{len(self._erased.keys)} keys destroyed; each worker does the same with its own file"

    def _rewrite_tables(self) -> None:
        for gallery in self._galleries:
            if isinstance(gallery, DatabaseGallery):
                whole = gallery.rewrite_tables()
                self._tell(f"tables of {gallery.label}: {'written anew' if whole else 'NOT written anew: no right to'}")
                self.remains(
                    f"the write-ahead log of {gallery.label}, its archives and standbys"
                    + ("" if whole else ", and its tables"),
                    ("" if whole else "VACUUM FULL the tables as their owner, and CHECKPOINT; ")
                    + "let archives expire; standbys follow",
                    "the server uses the files of its log again",
                )
                return

    def search(self, folders: Sequence[Path], wait_s: float = 5.0) -> None:
        """Looks for the bytes in every file below the folders of the list and ``folders``, until none has them or the
        time is over: what another process has open may take a moment. No database may be open in this process."""
        below = list(dict.fromkeys([*self._folders, *folders]))
        due_s = time.monotonic() + wait_s
        while True:
            found, files, size_bytes = search.files_with(self._plan.needles, below)
            if not found or time.monotonic() >= due_s:
                break
            time.sleep(_POLL_S)
        at = now_rfc3339()
        self.outcome.searched = {
            "folders": [str(folder) for folder in below], "files": files, "bytes": size_bytes,
            "byte_strings": len(self._plan.needles), "names_not_looked_for": len(self._plan.unsearched),
            "found_in": [str(path) for path in found], "at": at,
        }  # fmt: skip
        for place in self.outcome.places:
            if place.logical_at is None or "://" in place.where:
                continue
            held = [
                path for path in found if any(Path(where) in [path, *path.parents] for where in place.where.split(", "))
            ]
            place.physical_at = None if held else at
        for path in found:
            self.outcome.places.append(Place("file", str(path), problem="it still holds a name or a vector"))
        clean = sum(place.physical_at is not None for place in self.outcome.places)
        self._tell(
            f"searched {files} files ({size_bytes / 1e6:.0f} MB): {len(found)} hold a name or a vector; "
            f"gone from {clean} places"
        )

    def remains(self, what: str, to_do: str, until: str = "") -> None:
        """Something that this program cannot reach."""
        self.outcome.remains.append({"what": what, "until": until, "to_do": to_do})

    def _at(self, name: str, where: str, action: Callable[[], str]) -> None:
        place = Place(name, where)
        try:
            place.removed = action()
            place.logical_at = now_rfc3339()
        except InUseError:
            place.removed, place.logical_at = "what its worker says", now_rfc3339()
        except FacestreamError as error:
            place.problem = str(error)
        self.outcome.places.append(place)
        self._tell(f"{name}, {where}: {place.problem or place.removed}")

    def _gallery(self, gallery: Gallery) -> str:
        identity_ids = self._plan.identity_ids & gallery.contents.names.keys()
        samples = sum(sample.identity_id in identity_ids for sample in gallery.contents.samples)
        count = Counter({"people": len(identity_ids), "samples": samples})
        if isinstance(gallery, FolderGallery):
            versions = len(gallery.past_contents())
            gallery.purge()
            return f"{counted(+count)}; {versions} earlier versions removed"
        for identity_id in sorted(identity_ids):
            gallery.remove(identity_id)
        return counted(+count)

    def _history(self, place: Path | str) -> str:
        with History.open(place) as history:
            gone = history.erased_at_open + history.erase(self._erased, self._plan.names, again=True)
            history.vanish(_VANISH_S)
        return counted(gone)

    def _outbox(self, path: Path) -> str:
        if path.name.endswith(".damaged.sqlite3"):
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").unlink()
            return "a damaged file, which was set aside, is deleted"
        outbox = Outbox(self._config.outbox, path=path)
        try:
            before = len(outbox)
            outbox.erase(self._erased, partial(without_erased, erased=self._erased))
            return counted(+Counter({"events": before - len(outbox)}))
        finally:
            outbox.close()

    def _waiting(self, folder: Path) -> str:
        Waiting(folder).erase(self._erased, self._plan.names)
        return "what it had of them"

    def _copy(self, folder: Path) -> str:
        store = SnapshotStore(folder)
        with store.locked():
            store.clear()
        return "the whole copy; the worker makes it anew"

    def _pictures(self) -> str:
        store = open_store(self._config.evidence)
        mine = [
            path
            for seen in self._plan.seen()
            for path in paths_of(picture_path(seen.camera_id, seen.started_at, seen.sighting_id))
        ]
        frames = [
            paths_of(picture_path(camera_id, datetime.fromtimestamp(started_s, UTC), sighting_id))[1]
            for sighting_id, camera_id, started_s in self._plan.beside
        ]
        count = Counter({"pictures": store.remove(mine), "frames of others": store.remove(frames)})
        return counted(+count)


def open_galleries(config: Config, *, may_lack: bool = False) -> list[Gallery]:
    """Those that a worker with ``config`` uses, each with the one that a switch of models has put aside.

    ``may_lack``: one that is named and not there is passed over, since unknown people are seen before anybody is
    enrolled.

    Raises:
        GalleryError: one is not there, is damaged, or its database cannot be used.
    """
    opened: list[Gallery] = []
    try:
        for path in filter(None, (config.gallery, config.shadow_gallery)):
            if not may_lack or gallery_exists(path):
                opened.append(gallery := open_gallery(path))
                opened += galleries_of(gallery)[1:]
    except FacestreamError:
        for gallery in opened:
            gallery.close()
        raise
    return opened


def remove_erased(url: str, erased: Erased) -> Counter[str]:
    """Removes everybody who was erased from all galleries in the database at ``url``, which was restored; returns how
    many people and samples.

    Raises:
        GalleryError: the database cannot be used.
    """
    count: Counter[str] = Counter()
    for gallery in DatabaseGallery.all_in(url):
        left = gallery.contents.without(erased)
        gone = gallery.contents.names.keys() - left.names.keys()
        for identity_id in sorted(gone):
            gallery.remove(identity_id)
        count += Counter({"people": len(gone)})
        kept = {sample.sample_id for sample in left.samples}
        for sample in gallery.contents.samples:
            if sample.sample_id not in kept:
                gallery.remove_sample(sample.sample_id)
                count["samples"] += 1
    return +count


def _shown(place: Path | str) -> str:
    from worker.database.address import parse_database_url

    return parse_database_url(place).server if isinstance(place, str) else str(place)
