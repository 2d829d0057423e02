"""What is remembered of past sightings, for a limited time: templates but no pixels.

Every row carries the time at which it expires. So a process that opens the history with another configuration keeps
what was promised when the row was written. What expires from a SQLite file is overwritten, not merely unlinked.
"""

import copy
import errno
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa

from worker.database import schema
from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres, open_sqlite
from worker.database.layout import require_newest, upgrade
from worker.database.owned import tag_for
from worker.erased import Erased, folders_of, read_erased
from worker.errors import (
    DatabaseError,
    DatabaseFullError,
    DatabaseUnavailableError,
    DatabaseValueError,
    ErasureError,
    HistoryDiskError,
    HistoryError,
    HistoryUnavailableError,
    HistoryValueError,
)
from worker.files import is_of_state, private_folder
from worker.history import (
    denials,
    erasing,
    glances,
    merging,
    namings,
    regrouping,
    reuniting,
    sealing,
    storing,
    strangers,
)
from worker.history.erasing import Someone
from worker.history.hours import Hour, by_hour
from worker.history.in_sight import Sight
from worker.history.likeness import like
from worker.history.records import (
    CounterExample,
    EmbedderId,
    Naming,
    PastMerger,
    PastSighting,
    Tally,
    UnknownPerson,
    Vector,
)
from worker.history.regrouped import Regrouped, ids_now, regrouped
from worker.history.retention import Retention, kept_s, read_retention, remove_expired, write_retention
from worker.history.rows import (
    batched,
    cleaned,
    hour_of,
    readable,
    sighting_of,
    sighting_row,
    tally_of,
)
from worker.logs import get_logger
from worker.names import clean_text
from worker.observer import Observer

FILE: Final = "history.sqlite3"
_DISK_ERRNOS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_POLL_S: Final = 0.05

_log = get_logger(__name__)


def _told_nobody(_sightings: Sequence[PastSighting], _unknown_id: str) -> None:
    """Nothing was published."""


class History:
    """The open history. For one thread at a time; others, and other processes, open their own."""

    def __init__(self, database: Database, path: Path | None = None) -> None:
        self.label = database.label
        self.erased_at_open: Counter[str] = Counter()
        """What was removed by the opening: rows that had come back of people who were erased."""
        self._database = database
        self._path = path
        self._inode = None if path is None else path.stat().st_ino
        self._sight = Sight()

    @classmethod
    def open(
        cls,
        place: Path | str,
        *,
        create: bool = False,
        busy_timeout_s: float = 5.0,
        observer: Observer | None = None,
    ) -> Self:
        """The history in the folder ``place``, in the newest layout, without what has expired; or, where ``place`` is
        the URL of a database, the one in it.

        ``busy_timeout_s``: how long one waits for another process that writes to the file. ``observer`` is told of
        the statements and connections of a database.

        Raises:
            ConfigError: a URL that is not the URL of a database.
            HistoryError: it does not exist (without ``create``), is damaged, of another layout, or not accessible.
            HistoryDiskError: the disk is full or fails.
        """
        if isinstance(place, str):
            database = open_postgres(parse_database_url(place), connections=1)
            if observer is not None:
                database.watch(observer)
            with _told(), _closed_on_error(database):
                require_newest(database)
            return cls(database)
        path = place / FILE
        if not create and not path.exists():
            raise HistoryError(
                f"no history in {place}: 'facestream run' writes one beside its gallery, or where state_dir says"
            )
        try:
            private_folder(place, is_of_state)
            with _told():
                database = open_sqlite(path, busy_timeout_s=busy_timeout_s)
        except OSError as error:
            kind = HistoryDiskError if error.errno in _DISK_ERRNOS else HistoryError
            raise kind(f"history {path} cannot be opened: {error.strerror or error}") from None
        with _closed_on_error(database):
            with _told():
                upgrade(database)
            history = cls(database, path)
            history.prune()
            history.erased_at_open = history.erase(_erased_beside(place))
        return history

    def close(self) -> None:
        self._database.close()

    def of_cameras(self, cameras: tuple[str, ...] | None) -> Self:
        """The same history for somebody who sees these cameras alone (None: all): sightings at others, and unknown
        people who were seen nowhere else, are not there; of steps (merges, splits, names), those without one of these
        sightings are not. What is then done to somebody who is there is done to all of them."""
        limited = copy.copy(self)
        limited._sight = Sight(cameras)
        return limited

    def is_in_place(self) -> bool:
        """Whether an open file and its log are still those that others find; rows written to a removed file are lost
        in silence."""
        if self._path is None:
            return True
        try:
            # SQLite's log exists from the first statement to the last close.
            return self._path.stat().st_ino == self._inode and Path(f"{self._path}-wal").exists()
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        sightings: Iterable[PastSighting] = (),
        unknowns: Iterable[UnknownPerson] = (),
        tallies: Iterable[Tally] = (),
        *,
        keep_s: float,
        remember_s: float,
        batch_id: str = "",
        tell: reuniting.Tell | None = None,
        threshold: float | None = None,
    ) -> None:
        """Stores or replaces, all or nothing; tallies are added up. A sighting that people have corrected stays as they
        left it. Texts are cleaned, see :func:`worker.names.clean_text`. It expires after ``keep_s`` and ``remember_s``,
        unless the database says otherwise, see :meth:`retention`. What bears a ``batch_id`` that was written
        before is not written again.

        ``tell`` is given the sightings whose person has another id than they say. With it, a database takes an unknown
        person of whom it was not asked before only with their first sighting, see :func:`reuniting.reunite`, which goes
        by ``threshold``.

        Raises:
            HistoryError: it cannot be written.
            HistoryValueError: a value can never be stored.
        """
        sightings, unknowns, now_s = list(sightings), list(unknowns), time.time()
        with _told(), self._database.writing() as connection, _values_checked(self.label):
            set_here = read_retention(connection)
            keep_s, remember_s = kept_s(set_here.sightings_days, keep_s), kept_s(set_here.unknowns_days, remember_s)
            if batch_id and not storing.is_new(self._database, connection, batch_id, now_s + keep_s):
                return
            times = {"recorded_s": now_s, "expires_s": now_s + keep_s}
            unheard: dict[str, PastSighting] = {}
            if tell is not None and not self._database.is_sqlite:
                unheard = reuniting.strangers(connection, sightings)
            if any(one.unknown_id for one in sightings):
                storing.settle(connection, alone=bool(unheard))
            whose = ids_now(connection, sightings)
            moved = [(one, whose[one.sighting_id]) for one in sightings if one.sighting_id in whose]
            if unheard:
                unheard = reuniting.strangers(connection, [one for one in sightings if one.sighting_id not in whose])
                written = schema.sightings.c.sighting_id.in_([one.sighting_id for one in sightings])
                storing.hold(connection, written, schema.sightings.c.unknown_id.in_(unheard))
            if sightings:
                now = [replace(one, unknown_id=whose.get(one.sighting_id, one.unknown_id)) for one in sightings]
                storing.store_sightings(self._database, connection, [cleaned(sighting_row(one)) | times for one in now])
            if unheard:
                moved += reuniting.reunite(
                    self._database, connection, unheard, threshold=threshold, now_s=now_s, remember_s=remember_s
                )
            if tell is not None and not self._database.is_sqlite:
                unknowns = reuniting.without_strangers(connection, unknowns)
            for person in unknowns:
                storing.meet(self._database, connection, person, now_s=now_s, remember_s=remember_s)
            storing.add_tallies(self._database, connection, tallies, now_s + keep_s)
            if tell is not None and moved:
                tell(moved)

    def sightings(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        camera_id: str | None = None,
        unknown_id: str | None = None,
        sighting_id: str | None = None,
    ) -> list[PastSighting]:
        """Those that were going on between ``since`` and ``until``, oldest first. A row that cannot be read is left
        out, and the log names it."""
        query = self._narrowed(sa.select(schema.sightings), since, until, camera_id)
        if unknown_id is not None:
            query = query.where(schema.sightings.c.unknown_id == clean_text(unknown_id))
        if sighting_id is not None:
            query = query.where(schema.sightings.c.sighting_id == clean_text(sighting_id))
        return self._read(query)

    def page(
        self,
        limit: int,
        *,
        before: tuple[float, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        camera_id: str | None = None,
        identity_id: str | None = None,
        unknown_id: str | None = None,
    ) -> list[PastSighting]:
        """The newest ``limit`` of these sightings, newest first; of those that come after ``before``, which is the Unix
        time at which a sighting started, and its id. A row that cannot be read is left out."""
        columns = schema.sightings.c
        query = self._narrowed(sa.select(schema.sightings), since, until, camera_id)
        for column, wanted in ((columns.identity_id, identity_id), (columns.unknown_id, unknown_id)):
            if wanted is not None:
                query = query.where(column == clean_text(wanted))
        if before is not None:
            query = query.where(sa.tuple_(columns.started_s, columns.sighting_id) < sa.tuple_(*before))
        query = query.order_by(None).order_by(columns.started_s.desc(), columns.sighting_id.desc()).limit(limit)
        return self._read(query)

    def seen_unknown(self, unknown_ids: Collection[str] | None = None) -> dict[str, dict[str, int]]:
        """How often each camera saw each of these unknown people (None: all), by ``unknown_id`` and ``camera_id``."""
        with _told(), self._database.reading() as connection:
            return glances.cameras(connection, unknown_ids, self._sight)

    def unknown_revisions(self) -> dict[str, tuple[int, bool]]:
        """Of each unknown person: the revision, another one after each change, and whether they are ignored."""
        with _told(), self._database.reading() as connection:
            return glances.revisions(connection)

    def unknown_people(self, unknown_ids: Collection[str]) -> list[UnknownPerson]:
        """These unknown people, as far as they are remembered."""
        with _told(), self._database.reading() as connection:
            return self._sight.people(connection, glances.people(connection, unknown_ids))

    def people_in_sight(self, people: Sequence[UnknownPerson]) -> list[UnknownPerson]:
        """Those of these unknown people whom the cameras of :meth:`of_cameras` have seen, with the times at which they
        did."""
        with _told(), self._database.reading() as connection:
            return self._sight.people(connection, people)

    def last_seen(self, identity_ids: Collection[str]) -> dict[str, glances.Glance]:
        """When and where each of these people was seen last, by identity_id."""
        with _told(), self._database.reading() as connection:
            return glances.last_seen(connection, identity_ids, self._sight)

    def similar(
        self,
        probe: Vector,
        embedder: EmbedderId,
        threshold: float,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        camera_id: str | None = None,
        limit: int | None = None,
        chunk_rows: int = 8192,
    ) -> list[tuple[PastSighting, float]]:
        """The sightings whose template has a cosine of at least ``threshold`` to ``probe`` (d,), most similar first.

        Those that another embedder made are passed over. ``chunk_rows`` templates are compared at a time.
        """
        columns = schema.sightings.c
        conditions = [
            *self._within(since, until, camera_id),
            columns.template.is_not(None),
            columns.model_id == embedder.model_id,
            columns.preprocessing == embedder.preprocessing_digest,
        ]
        with _told(), self._database.reading() as connection:
            found = like(self._database, connection, probe, threshold, conditions, chunk_rows)
        same: dict[str, PastSighting] = {}
        for ids in batched(sighting_id for _, sighting_id in found[:limit]):
            query = sa.select(schema.sightings).where(columns.sighting_id.in_(ids))
            same |= {sighting.sighting_id: sighting for sighting in self._read(query)}
        hits = ((same.get(sighting_id), similarity) for similarity, sighting_id in found[:limit])
        return [(sighting, similarity) for sighting, similarity in hits if sighting is not None]

    def newest_model(self) -> str | None:
        """The model of the latest sighting, None where there is none."""
        query = sa.select(schema.sightings.c.model_id).order_by(schema.sightings.c.started_s.desc()).limit(1)
        return next((str(row.model_id) for row in self._rows(query)), None)

    def unknowns(self, after_revision: int = 0) -> tuple[list[UnknownPerson], int]:
        """The unknown people that changed after ``after_revision``, and the newest revision. All of them, if the
        database has not come that far: it was restored from a backup, or a standby that lacks the last ones took over.

        People who are gone are among them, without a template, so that every worker learns of it; with 0, they are not.
        """
        with _told(), self._database.reading() as connection:
            return strangers.changed(connection, after_revision, self._sight)

    def claim(
        self,
        person: UnknownPerson,
        after_revision: int,
        choose: Callable[[list[UnknownPerson]], UnknownPerson | None],
        *,
        remember_s: float,
    ) -> UnknownPerson:
        """Stores ``person`` as somebody new, unless ``choose`` says who of those who changed after ``after_revision``
        it is; returns who it is. One worker at a time does this.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            return strangers.claim(self._database, connection, person, after_revision, choose, remember_s=remember_s)

    def unknown(self, unknown_id: str) -> UnknownPerson:
        """Raises HistoryError: no such person, or not any more."""
        with _told(), self._database.reading() as connection:
            return strangers.find(connection, unknown_id, self._sight, self.label)

    def tallies(
        self, *, since: datetime | None = None, until: datetime | None = None, camera_id: str | None = None
    ) -> list[Tally]:
        """Of the hours between ``since`` and ``until``, both included."""
        columns = schema.tallies.c
        query = sa.select(schema.tallies).where(columns.expires_s > time.time(), *self._sight.of(columns.camera_id))
        if since is not None:
            query = query.where(schema.tallies.c.hour >= hour_of(since))
        if until is not None:
            query = query.where(schema.tallies.c.hour <= hour_of(until))
        if camera_id is not None:
            query = query.where(schema.tallies.c.camera_id == clean_text(camera_id))
        query = query.order_by(schema.tallies.c.camera_id, schema.tallies.c.hour, schema.tallies.c.reason)
        return list(readable(self._rows(query), tally_of))

    def faces_by_hour(self, camera_id: str, since: datetime, reasons: Collection[str]) -> list[Hour]:
        """As :func:`worker.history.hours.by_hour`; none of a camera that is not in sight."""
        if not self._sight.sees(camera_id):
            return []
        with _told(), self._database.reading() as connection:
            return by_hour(connection, camera_id, since, reasons)

    def name_unknown(
        self,
        unknown_id: str,
        sighting_ids: Sequence[str],
        identity_id: str,
        identity_name: str,
        sample_ids: Sequence[str],
    ) -> str:
        """Notes who an unknown person is, with these sightings and samples; returns the id of this step, for
        :meth:`naming` and :meth:`take_name_back`.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            columns = schema.sightings.c
            storing.hold(connection, columns.unknown_id == unknown_id, columns.sighting_id.in_(sighting_ids))
            namings.name(connection, sighting_ids, identity_id, identity_name)
            # What was written of them while they were unknown is sealed by other keys.
            merged = regrouped(connection).merged
            theirs = {unknown_id, *(one for one, now in merged.items() if now == unknown_id)}
            sealing.spend(connection, (tag_for(one, connection.dialect) for one in theirs), identity_id)
            regrouping.drop(connection, unknown_id)
            step = namings.note(connection, unknown_id, identity_id, list(sighting_ids), list(sample_ids))
        self._vanish()
        return step

    def naming(self, step: str) -> Naming | None:
        """What was named in this step; None if it was something else, was undone, or has expired."""
        with _told(), self._database.reading() as connection:
            return next(iter(self._namings(connection, schema.regroupings.c.step == clean_text(step))), None)

    def namings_of(self, identity_id: str) -> list[Naming]:
        """The unknown people who became this person, the latest first, as far as that can still be undone."""
        with _told(), self._database.reading() as connection:
            return self._namings(connection, schema.regroupings.c.to_id == clean_text(identity_id))

    def _namings(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Naming]:
        found = namings.still_open(connection, condition)
        return [naming for naming in found if self._sight.any_of(connection, naming.sightings)]

    def take_name_back(self, naming: Naming, sighting_ids: Sequence[str]) -> None:
        """The person of ``naming`` is unknown again, with these sightings.

        Raises:
            HistoryError: it was undone meanwhile, or cannot be written.
        """
        with _told(), self._database.writing() as connection:
            namings.take_back(connection, naming, sighting_ids)
            sealing.take_back(connection, [tag_for(naming.unknown_id, connection.dialect)])

    def merge_people(
        self,
        merger: dict[str, Any],
        identity_name: str,
        sighting_ids: Sequence[str],
        tell: Callable[[], None],
        *,
        remember_s: float,
    ) -> str:
        """The enrolled person ``other_id`` of ``merger`` is ``identity_id``, called ``identity_name``, in these past
        sightings, in what was said of any, and in rules. Returns the id of this step, for :meth:`merger` and
        :meth:`part_people`; it expires after ``remember_s``, unless the database says otherwise. ``tell`` is called
        first; what it raises is raised, and nothing is changed.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            tell()
            expires_s = time.time() + kept_s(read_retention(connection).unknowns_days, remember_s)
            return merging.merge(connection, merger, identity_name, sighting_ids, expires_s)

    def merger(self, step: str) -> PastMerger | None:
        """Which two people became one in this step; None if it was something else, was undone, or has expired."""
        with _told(), self._database.reading() as connection:
            return next(iter(merging.mergers(connection, schema.regroupings.c.step == clean_text(step))), None)

    def mergers_of(self, identity_id: str) -> list[PastMerger]:
        """Who was made one with this person, the latest first, as far as that can still be undone; of the sightings,
        those in sight."""
        with _told(), self._database.reading() as connection:
            found = merging.mergers(connection, schema.regroupings.c.to_id == clean_text(identity_id))
            return [replace(past, sightings=tuple(self._sight.sightings(connection, past.sightings))) for past in found]

    def known_as(self, identity_ids: set[str]) -> tuple[set[str], set[str]]:
        """These people, with the ids that others had who were merged into them; and the names of those."""
        with _told(), self._database.reading() as connection:
            return merging.known_as(connection, identity_ids)

    def require_last(self, past: PastMerger) -> None:
        """Does nothing if neither of the two people was merged again.

        Raises:
            HistoryError: one was.
        """
        with _told(), self._database.reading() as connection:
            merging.require_last(connection, past)

    def part_people(self, past: PastMerger, sighting_ids: Sequence[str], tell: Callable[[], None]) -> None:
        """Takes a merger back; ``sighting_ids`` are those of its sightings that still name the person. ``tell`` as for
        :meth:`merge_people`.

        Raises:
            HistoryError: it was undone meanwhile, others came after it, or it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            tell()
            merging.undo(connection, past, sighting_ids)

    def count_of(self, identity_id: str) -> int:
        """How many past sightings name this person."""
        query = sa.select(sa.func.count()).where(*self._within(None, None, None))
        query = query.where(schema.sightings.c.identity_id == clean_text(identity_id))
        with _told(), self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def ignore_unknown(self, unknown_id: str, *, ignored: bool = True) -> None:
        """Notes whether people do not want to be asked about this unknown person.

        Raises:
            HistoryError: no such person, or it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            person = strangers.find(connection, unknown_id, self._sight, self.label)
            theirs = schema.unknowns.c.unknown_id == person.unknown_id
            connection.execute(schema.unknowns.update().where(theirs).values(ignored=int(ignored)))

    def deny(
        self,
        sighting: PastSighting,
        *,
        identity_id: str = "",
        identity_name: str = "",
        unknown_id: str = "",
        link: bool = True,
    ) -> None:
        """Notes that ``sighting`` shows this person, and not the one whom it names. Without ``link`` it is forgotten
        who that was, so that the sighting is no counter-example.

        Raises:
            HistoryError: the sighting was changed meanwhile, or it cannot be written.
        """
        verdict = clean_text(identity_id), clean_text(identity_name), unknown_id
        with _told(), self._database.writing() as connection:
            denials.revise(connection, sighting, verdict)
            denials.add(connection, sighting, verdict, time.time(), link=link)

    def give_name(self, sighting: PastSighting, identity_id: str, identity_name: str) -> None:
        """Notes who the person of ``sighting`` was, which named nobody.

        Raises:
            HistoryError: the sighting was changed meanwhile, or it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            denials.revise(connection, sighting, (identity_id, clean_text(identity_name), ""))

    def take_back(self, sighting: PastSighting, identity_name: str) -> None:
        """Undoes the last denial of ``sighting``: it shows the person whom it named before, called ``identity_name``.

        Raises:
            HistoryError: the sighting was changed meanwhile, or it cannot be written.
        """
        verdict = sighting.denials[-1].identity_id, clean_text(identity_name), ""
        with _told(), self._database.writing() as connection:
            denials.revise(connection, sighting, verdict)
            denials.remove_last(connection, sighting.sighting_id)

    def counter_examples(self, embedder: EmbedderId) -> list[CounterExample]:
        """The templates that show somebody else than the person whom their sighting named."""
        with _told(), self._database.reading() as connection:
            return denials.counter_examples(connection, embedder)

    def denied_people(self) -> set[tuple[str, str]]:
        """The unknown people who were said not to be somebody: ``unknown_id`` and ``identity_id``."""
        with _told(), self._database.reading() as connection:
            return denials.denied_people(connection)

    def denials_revision(self) -> int:
        """Another number after each change of :meth:`counter_examples`, unless they only expired."""
        with _told(), self._database.reading() as connection:
            return denials.revision(connection)

    def forget_denials_of(self, identity_id: str) -> None:
        """Forgets which sightings are known not to show this person, who has been removed, and who they once were.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            denials.forget_person(connection, identity_id)
            regrouping.forget(connection, identity_id)
        self._vanish()

    def drop_unknown(
        self, unknown_id: str, *, sightings_too: bool = False,
        require: Callable[[UnknownPerson], None] | None = None,
    ) -> None:  # fmt: skip
        """Forgets the template of an unknown person; a mark stays for a while, so that every worker learns of it.

        ``sightings_too``: also the templates of their sightings, whose times and verdicts stay. ``require`` is given
        the person first, while nobody else can change them; what it raises is raised, and nothing is changed.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.hold(connection, schema.sightings.c.unknown_id == unknown_id)
            if require is not None:
                storing.next_revision(connection)  # until the end, nobody else changes unknown people
                require(strangers.find(connection, unknown_id, self._sight, self.label))
            regrouping.drop(connection, unknown_id, sightings_too=sightings_too)
        self._vanish()

    def merge_unknowns(self, kept: str, other: str, tell: regrouping.Tell = _told_nobody) -> str:
        """Two ids are one unknown person: ``kept`` gets all sightings of ``other``, who is gone. Returns the id of this
        step, for :meth:`undo_regrouping`. ``tell`` is called before anything is written; what it raises is raised.

        Raises:
            HistoryError: no such person, they cannot be merged, or it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.settle(connection, alone=True)
            storing.hold(connection, schema.sightings.c.unknown_id.in_([clean_text(kept), clean_text(other)]))
            stays, goes = (strangers.find(connection, one, self._sight, self.label) for one in (kept, other))
            return regrouping.merge(connection, stays, goes, tell)

    def regrouped(self) -> Regrouped:
        """What became of the ids of unknown people."""
        with _told(), self._database.reading() as connection:
            return regrouped(connection)

    def split_unknown(
        self, unknown_id: str, sighting_ids: Sequence[str], tell: regrouping.Tell = _told_nobody
    ) -> tuple[str, str]:
        """These sightings of an unknown person are of somebody else: returns the id of that person, and of this step.
        ``tell`` as for :meth:`merge_unknowns`.

        Raises:
            HistoryError: no such person or sighting, nobody would be left, or it cannot be written.
        """
        new_id = f"u-{secrets.token_hex(6)}"
        with _told(), self._database.writing() as connection:
            storing.settle(connection, alone=True)
            storing.hold(connection, schema.sightings.c.unknown_id == clean_text(unknown_id))
            person = strangers.find(connection, unknown_id, self._sight, self.label)
            if hidden := set(sighting_ids) - self._sight.sightings(connection, set(sighting_ids)):
                raise regrouping.not_theirs(min(hidden), person.unknown_id)
            return new_id, regrouping.split(connection, person, sighting_ids, new_id, tell)

    def undo_regrouping(self, step: str, tell: regrouping.Tell = _told_nobody) -> tuple[str, str]:
        """Takes a merge or a split back; returns whose sightings went back to whom: ``(from, to)``. ``tell`` as for
        :meth:`merge_unknowns`.

        Raises:
            HistoryError: there is no such step, it was undone, others came after it, or it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.settle(connection, alone=True)
            if not self._sight.any_of(connection, regrouping.moved_in(connection, step)):
                raise regrouping.no_step(step)
            return regrouping.undo(connection, step, tell)

    def retention(self) -> Retention:
        """For how long things are kept, as far as that is set in this database."""
        with _told(), self._database.reading() as connection:
            return read_retention(connection)

    def keep(self, wanted: Retention, require: Callable[[Retention], None] = lambda _before: None) -> Retention:
        """Sets that, for all who use this database. What it makes too old goes with the next :meth:`prune`; what was
        recorded before is not kept longer than was promised then. Returns what was set before. ``require`` is given
        that first, while nobody else can change it; what it raises is raised, and nothing is changed.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.next_revision(connection)  # until the end, nobody else changes it
            before = read_retention(connection)
            require(before)
            write_retention(connection, wanted)
            return before

    def prune(self, *, keep_s: float | None = None, remember_s: float | None = None) -> int:
        """Removes what has expired, or was recorded longer ago than these, unless the database says otherwise; returns
        how many rows went.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            gone = remove_expired(connection, keep_s=keep_s, remember_s=remember_s)
        if gone:
            self._vanish()
        return gone

    def traces(self, wanted: erasing.Wanted) -> tuple[list[erasing.Trace], frozenset[str], frozenset[str]]:
        """The past sightings of somebody, their unknown ids, and the names that they had; see :class:`Wanted`."""
        with _told(), self._database.reading() as connection:
            return erasing.find(connection, wanted)

    def templates_of(self, sighting_ids: Collection[str], unknown_ids: Collection[str]) -> list[bytes]:
        """The templates of these sightings and unknown people, as they are stored."""
        with _told(), self._database.reading() as connection:
            return erasing.templates_of(connection, sighting_ids, unknown_ids)

    def tags_of(self, someone: Someone | None = None, staying: Collection[str] = ()) -> set[str]:
        """By which keys of people what is of ``someone`` (None: all) is sealed in a database, or was; "" is among them
        if something is not sealed, or by the key of somebody else who stays: ``staying`` are ids of people."""
        with _told(), self._database.reading() as connection:
            if someone is None:
                return sealing.tags_of(connection, None)
            rule_ids = erasing.rules_about(connection, someone.identity_ids, someone.names)
            steps = regrouping.steps_about(connection, someone.identity_ids)
            ids = someone.rows | {schema.rules: rule_ids, schema.regroupings: steps}
            tags = sealing.tags_of(connection, ids)
            tags |= sealing.spent(connection, {*someone.identity_ids, *someone.unknown_ids, *someone.sighting_ids})
            return sealing.without_others(connection, tags, staying, someone.unknown_ids)

    def part_from(self, tags: Collection[str], someone: Someone, erased: Erased) -> int:
        """Before the keys ``tags`` are destroyed: takes ``someone`` out of what is of others, and seals that anew;
        returns how many rows.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.hold(connection)
            # First, so that nothing of them is ever sealed by a key that stays.
            erasing.blank(connection, erased, someone.names)
            return sealing.part_from(connection, tags, someone.rows)

    def seal_anew(self) -> int:
        """Writes all rows as the keys of people say now; returns how many.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            storing.hold(connection)
            return sealing.seal_anew(connection)

    def beside(self, traces: Sequence[erasing.Trace]) -> list[tuple[str, str, float]]:
        """The sightings of others at the same camera and time: id, camera, and start (Unix time)."""
        with _told(), self._database.reading() as connection:
            return erasing.beside(connection, traces)

    def erase(self, erased: Erased, names: Collection[str] = (), *, again: bool = False) -> Counter[str]:
        """Removes all that bears an id of ``erased``, and the ``names`` from what is told of others; returns how many
        rows of which kind. What was erased here before is not looked for again, unless ``again``.

        Raises:
            HistoryError: it cannot be written.
        """
        if not erased:
            return Counter()
        with _told(), self._database.reading() as connection:
            done = erasing.known(connection).ids
        if not again and erased.ids <= done:
            return Counter()
        with _told(), self._database.writing() as connection:
            storing.hold(connection)
            gone = erasing.erase(connection, erased, names)
        self._vanish()
        return gone

    def erase_told(self, erased: Erased, names: Collection[str], *, answers: bool = True) -> None:
        """Removes what is of the console: alerts about people in this list, their part in rules, and all its
        ``answers``. A worker may not do that in a database.

        Raises:
            HistoryError: it cannot be written.
        """
        with _told(), self._database.writing() as connection:
            erasing.blank_told(connection, erased, names, answers=answers)

    def erased(self) -> Erased:
        """Who was erased here."""
        with _told(), self._database.reading() as connection:
            return erasing.known(connection)

    def vanish(self, wait_s: float) -> bool:
        """Takes deleted content out of a SQLite file and its log; returns whether nothing of it is left. For others who
        read or write at this moment it waits up to ``wait_s``."""
        if self._path is None:
            return False
        due_s = time.monotonic() + wait_s
        while True:
            with _told(), self._database.outside() as connection:
                connection.execute("PRAGMA incremental_vacuum").fetchall()
                ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if not busy or time.monotonic() >= due_s:
                return not busy
            time.sleep(_POLL_S)

    def _read(self, query: sa.Select[Any]) -> list[PastSighting]:
        """The sightings, with what people said of them."""
        found = list(readable(self._rows(query), sighting_of))
        if not any(sighting.corrections for sighting in found):
            return found
        with _told(), self._database.reading() as connection:
            denied = denials.by_sighting(connection)
        return [replace(sighting, denials=denied.get(sighting.sighting_id, ())) for sighting in found]

    def _narrowed(
        self, query: sa.Select[Any], since: datetime | None, until: datetime | None, camera_id: str | None
    ) -> sa.Select[Any]:
        ordered = schema.sightings.c.started_s, schema.sightings.c.sighting_id
        return query.where(*self._within(since, until, camera_id)).order_by(*ordered)

    def _within(
        self, since: datetime | None, until: datetime | None, camera_id: str | None
    ) -> list[sa.ColumnElement[bool]]:
        """Not expired, of this time and camera, and in sight."""
        columns = schema.sightings.c
        conditions = [columns.expires_s > time.time(), *self._sight.of(columns.camera_id)]
        if since is not None:
            conditions.append(columns.ended_s >= since.timestamp())
        if until is not None:
            conditions.append(columns.started_s <= until.timestamp())
        if camera_id is not None:
            conditions.append(columns.camera_id == clean_text(camera_id))
        return conditions

    def _rows(self, query: sa.Select[Any], chunk_rows: int = 1000) -> Iterator[Any]:
        with (
            _told(),
            self._database.reading() as connection,
            connection.execute(query.execution_options(yield_per=chunk_rows)) as rows,
        ):
            yield from rows

    def _vanish(self) -> None:
        """Takes deleted content out of SQLite's write-ahead log as well, and gives its space back."""
        self.vanish(0.0)


def _erased_beside(place: Path) -> Erased:
    try:
        return read_erased(folders_of(None, place))
    except ErasureError as error:
        raise HistoryError(str(error)) from None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DatabaseFullError as error:
        raise HistoryDiskError(f"history {error}") from None
    except DatabaseUnavailableError as error:
        raise HistoryUnavailableError(f"history {error}") from None
    except DatabaseValueError as error:
        raise HistoryValueError(f"history {error}") from None
    except DatabaseError as error:
        raise HistoryError(f"history {error}") from None


@contextmanager
def _closed_on_error(database: Database) -> Iterator[None]:
    try:
        yield
    except BaseException:
        database.close()
        raise


@contextmanager
def _values_checked(label: str) -> Iterator[None]:
    """Of a record that a caller made wrongly: it can never be stored."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise HistoryValueError(f"history {label} cannot store a value: {error}") from error
