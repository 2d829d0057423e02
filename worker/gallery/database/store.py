"""A gallery in PostgreSQL: read, changed and replaced, each in one transaction."""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import sqlalchemy as sa

from worker import encryption
from worker.database import half_templates, schema
from worker.database.address import DatabaseAddress
from worker.database.database import Database, open_postgres
from worker.database.errors import translated
from worker.database.layout import require_newest
from worker.database.owned import tag_for
from worker.erased import Erased, Erasure
from worker.errors import ConfigError, DatabaseError, DatabaseUnavailableError, GalleryError, GalleryUnavailableError
from worker.gallery.consents import Consent, consents_of
from worker.gallery.contents import BLOCK_SAMPLES, Block, Contents, Sample, changes_between
from worker.gallery.database.rows import (
    GONE,
    Photo,
    SampleRow,
    contents_of,
    digest_of,
    meta_row,
    names_of,
    person_row,
    photo_or_problem,
    sample_of,
    sample_row,
    sample_row_of_copy,
)
from worker.history.rows import batched
from worker.history.sealing import spend, take_back
from worker.logs import get_logger
from worker.names import clean_text
from worker.observer import Observer
from worker.people_keys import BYTES_HEAD, TEXT_HEAD, tag_in
from worker.types import Vectors
from worker.wire import parse_rfc3339

CHANNEL: Final = "facestream_gallery"
"""Where each change is announced, with the name of the gallery."""
KEPT_CHANGES: Final = 10_000
"""Who is more versions behind reads everything, except the vectors that they have."""
_PRUNE_EVERY: Final = 100
_AT_ONCE: Final = 5000
_UNIT: Final = 1e-3
_WITH_PEOPLE: Final = (
    "people", "samples", "sightings", "unknowns", "denials", "console_alerts", "console_rules", "console_replies",
    half_templates.TABLE,
)  # fmt: skip
_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError)
_LONG_AGO: Final = "1970-01-01T00:00:00Z"
_FORGET_S: Final = 24 * 3600

Listening = sa.Connection
"""A connection that hears of changes, see :meth:`GalleryStore.listen`."""

_galleries, _people, _samples = schema.galleries, schema.people, schema.samples
_removed, _changes, _followers = schema.removed, schema.changes, schema.followers

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Copy:
    """The contents of a version, and the id of the change that made it."""

    contents: Contents
    change_id: str

    def same_model(self, other: "Copy") -> bool:
        """Whether the vectors of both can be compared."""
        mine, theirs = self.contents, other.contents
        return (mine.model_id, mine.preprocessing_digest) == (theirs.model_id, theirs.preprocessing_digest)


@dataclass(frozen=True, slots=True)
class Follower:
    """A worker that follows the gallery: the version it searches, since when it has been silent, and the stamp of the
    list of erased people that it has carried out."""

    worker_id: str
    version: int
    silent_s: float
    erased: str = ""


class GalleryStore:
    """The gallery called ``name`` in a database. Nothing of it is kept here.

    All methods raise GalleryError, and GalleryUnavailableError where the database cannot be reached or used now.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.label = database.label
        self.name = name
        self._database = database
        self._mine = {"gallery": name}
        self._damaged: set[str] = set()

    @classmethod
    def connect(cls, address: DatabaseAddress, *, connections: int = 0, observer: Observer | None = None) -> Self:
        """The gallery at ``address``, which need not exist; ``connections`` as for :func:`open_postgres`. ``observer``
        is told of statements and connections.

        Raises:
            ConfigError: the address has options that libpq does not know.
        """
        database = open_postgres(address, connections=connections, label=address.label)
        if observer is not None:
            database.watch(observer)
        return cls(database, address.gallery)

    def beside(self, name: str) -> "GalleryStore":
        """The gallery whose name is this one's with ``.name`` behind, over the same connections."""
        return self.called(f"{self.name}.{name}")

    def called(self, name: str) -> "GalleryStore":
        """The gallery of this name, over the same connections."""
        return GalleryStore(self._database, name)

    def names(self) -> list[str]:
        """Of all galleries in the database."""
        with self._told(), self._database.reading() as connection:
            return list(connection.execute(sa.select(_galleries.c.gallery)).scalars())

    def close(self) -> None:
        self._database.close()

    def require_layout(self) -> None:
        """Does nothing if the database has the newest layout.

        Raises:
            GalleryError: it has not; the message says what to do.
        """
        with self._told():
            require_newest(self._database)

    def exists(self) -> bool:
        """Whether there is a gallery of this name."""
        with self._told(), self._database.reading() as connection:
            return self._row(connection) is not None

    def create(self, contents: Contents) -> Copy | None:
        """Makes the gallery, with these contents, which hold nobody; None if there is one already."""
        copy = Copy(replace(contents, version=1), new_change_id())
        with self._told(), self._database.writing() as connection:
            insert = self._database.insert(_galleries).values(self._mine | meta_row(copy.contents, copy.change_id))
            made = insert.on_conflict_do_nothing().returning(_galleries.c.gallery)
            if connection.execute(made).first() is None:
                return None
            self._note(connection, copy)
        return copy

    def listen(self) -> Listening:
        """A connection for :meth:`fetch` and :meth:`acknowledge` that hears of changes; the caller closes it."""
        with self._told():
            connection = self._database.standing()
            try:
                connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            except BaseException:
                connection.close()
                raise
        return connection

    def is_told(self, listening: Listening, wait_s: float) -> bool:
        """Whether a change of this gallery was announced since the last call; waits for that."""
        driver: Any = listening.connection.driver_connection
        with self._told():
            return any(notice.payload == self.name for notice in driver.notifies(timeout=wait_s, stop_after=1))

    def fetch(self, known: Copy | None = None, listening: Listening | None = None) -> Copy | None:
        """The newest version; ``known`` itself if that is it, and None if there is no gallery.

        Only what changed since ``known`` is read. Blocks that did not change are the same objects. Over ``listening``
        that takes half of the journeys to the server.
        """
        with self._told():
            if listening is not None:
                newest = self._newest(listening, known)
                # No transaction has held it still: if it has changed meanwhile, parts are of another version.
                if newest is None or newest is known or self._is_still(listening, newest):
                    return newest
            with self._database.reading() as connection:
                return self._newest(connection, known)

    def change(self, known: Copy, change: Callable[[Contents], Contents], change_id: str) -> Copy:
        """Makes what ``change`` returns for the newest contents the next version, and returns that version.

        If ``change`` returns the contents that it got, no version is made. If a change of this id was made before,
        which happens if the reply was lost, it is not made again. If another model's gallery has taken the place of
        ``known``, that one is returned as it is.
        """
        with self._told(), self._database.writing() as connection:
            self._lock(connection)
            newest = self._newest(connection, known)
            if newest is None:
                raise GalleryError(f"gallery {self.label} is gone: restore the database, or enroll the photos again")
            if self._is_made(connection, change_id) or not newest.same_model(known):
                return newest
            after = change(newest.contents)
            if after is newest.contents:
                return newest
            made = Copy(replace(after, version=newest.contents.version + 1), change_id)
            self._write(connection, newest.contents, made.contents)
            self._note(connection, made)
        return made

    def replace(self, known: Copy, new: Contents, aside: "GalleryStore") -> Copy:
        """Puts the rows of the gallery aside, and lets it hold what ``new`` holds.

        Raises:
            GalleryError: somebody has changed the gallery since ``known``.
        """
        with self._told(), self._database.writing() as connection:
            row = self._lock(connection)
            if row is None or row.change_id != known.change_id:
                raise GalleryError(f"gallery {self.label} was changed by somebody else meanwhile: try again")
            self._put_aside(connection, aside)
            made = Copy(replace(new, version=row.version + 1), new_change_id())
            for table in (_samples, _people, _removed, _changes):
                connection.execute(table.delete().where(table.c.gallery == self.name))
            nobody = replace(new, names={}, blocks=(Block((), np.empty((0, new.dimension), np.float32)),))
            self._write(connection, nobody, made.contents)
            self._note(connection, made)
        return made

    def followers(self) -> list[Follower]:
        """The workers that follow the gallery, or did within a day."""
        silent_s = sa.extract("epoch", sa.func.clock_timestamp() - _followers.c.seen_at)
        query = (
            sa.select(_followers.c.worker_id, _followers.c.version, _followers.c.erased, silent_s.label("silent_s"))
            .where(_followers.c.gallery == self.name, silent_s < _FORGET_S)
            .order_by(_followers.c.worker_id)
        )
        with self._told(), self._database.reading() as connection:
            return [
                Follower(row.worker_id, row.version, float(row.silent_s), row.erased)
                for row in connection.execute(query)
            ]

    def erased(self) -> Erased:
        """Who was erased from the database."""
        with self._told(), self._database.reading() as connection:
            rows = connection.execute(sa.select(schema.erasures))
            return Erased(Erasure(row.erasure_id, row.made_at, frozenset(json.loads(row.digests))) for row in rows)

    def rewrite(self) -> bool:
        """Writes the tables that hold vectors and names anew, without what was deleted, and begins another file of the
        write-ahead log; returns whether this user may do all of it."""
        with self._told():
            return self._database.rewrite(_WITH_PEOPLE)

    def tags_of(self, identity_ids: Collection[str] | None = None) -> set[str]:
        """By which keys the rows of these people (None: of all) are sealed; "" is among them if something is not."""
        heads = (sa.func.substr(sa.type_coerce(_people.c.name, sa.Text), 1, TEXT_HEAD), _people), (
            sa.func.substr(sa.type_coerce(_samples.c.vector, sa.LargeBinary), 1, BYTES_HEAD), _samples
        )  # fmt: skip
        with self._told(), self._database.reading() as connection:
            return {
                tag_in(head)
                for column, table in heads
                for head in connection.execute(
                    sa.select(column).where(
                        table.c.gallery == self.name,
                        *([] if identity_ids is None else [table.c.identity_id.in_(identity_ids)]),
                    )
                ).scalars()
            }

    def seal_anew(self) -> int:
        """Writes all rows as the keys of people say now; returns of how many samples."""
        with self._told(), self._database.writing() as connection:
            self._lock(connection)
            copy = self._newest(connection, None)
            if copy is None:
                return 0
            contents = copy.contents
            mine = (_people.c.gallery == self.name) & (_people.c.identity_id == sa.bindparam("of_id"))
            rows = [{"of_id": key} | person_row(contents, key) for key in contents.names]
            if rows:
                connection.execute(_people.update().where(mine), rows)
            mine = (_samples.c.gallery == self.name) & (_samples.c.sample_id == sa.bindparam("of_id"))
            for block in contents.blocks:
                pairs = zip(block.samples, block.vectors, strict=True)
                rows = [{"of_id": sample.sample_id} | sample_row(sample, vector) for sample, vector in pairs]
                if rows:
                    connection.execute(_samples.update().where(mine), rows)
        return len(contents.samples)

    def acknowledge(self, worker_id: str, version: int, erased: str = "", listening: Listening | None = None) -> None:
        """The worker is alive, searches this version, and has carried out this list of erased people (its stamp)."""
        seen = {"version": version, "seen_at": sa.func.clock_timestamp(), "erased": erased}
        values = self._mine | {"worker_id": worker_id} | seen
        # It is said again in a moment, so it need not wait for the disk: twenty workers say it at once. The setting is
        # that of this statement's transaction alone.
        at_once = sa.func.set_config("synchronous_commit", "off", True) == "off"
        row = sa.select(*(sa.type_coerce(value, _followers.c[name].type) for name, value in values.items()))
        insert = self._database.insert(_followers).from_select([*values], row.where(at_once))
        said = insert.on_conflict_do_update(index_elements=["gallery", "worker_id"], set_=seen)
        with self._told():
            if listening is not None:
                listening.execute(said)
                return
            with self._database.writing() as connection:
                connection.execute(said)

    def leave(self, worker_id: str) -> None:
        """The worker follows the gallery no more; who has been silent for a day is forgotten as well."""
        long_ago = _followers.c.seen_at < sa.func.clock_timestamp() - sa.text(f"interval '{_FORGET_S} seconds'")
        gone = sa.or_(_followers.c.worker_id == worker_id, long_ago)
        with self._told(), self._database.writing() as connection:
            connection.execute(_followers.delete().where(_followers.c.gallery == self.name, gone))

    # What follows is done within a transaction.

    def _row(self, connection: sa.Connection, known: Copy | None = None) -> Any:
        """The row of the gallery; its ``change_of_known`` is the change that made the version of ``known``, and
        ``some_removed`` says whether samples were taken out since."""
        version = 0 if known is None else known.contents.version
        change = sa.select(_changes.c.change_id).where(_changes.c.gallery == self.name, _changes.c.version == version)
        gone = sa.exists().where(_removed.c.gallery == self.name, _removed.c.changed > version)
        query = sa.select(_galleries, change.scalar_subquery().label("change_of_known"), gone.label("some_removed"))
        return connection.execute(query.where(_galleries.c.gallery == self.name)).one_or_none()

    def _is_still(self, connection: sa.Connection, copy: Copy) -> bool:
        """Whether that is still the newest version."""
        query = sa.select(_galleries.c.version, _galleries.c.change_id).where(_galleries.c.gallery == self.name)
        row = connection.execute(query).one_or_none()
        return row is not None and (row.version, row.change_id) == (copy.contents.version, copy.change_id)

    def _lock(self, connection: sa.Connection) -> Any:
        """Keeps every other change waiting until the end of the transaction."""
        query = sa.select(_galleries).where(_galleries.c.gallery == self.name).with_for_update()
        return connection.execute(query).one_or_none()

    def _is_made(self, connection: sa.Connection, change_id: str) -> bool:
        query = sa.select(_changes.c.version).where(_changes.c.gallery == self.name, _changes.c.change_id == change_id)
        return connection.execute(query).first() is not None

    def _newest(self, connection: sa.Connection, known: Copy | None) -> Copy | None:
        row = self._row(connection, known)
        if row is None:
            return None
        if known is not None and (row.version, row.change_id) == (known.contents.version, known.change_id):
            return known
        try:
            meta = contents_of(row)
        except _UNREADABLE:
            raise GalleryError(
                f"gallery {self.label}: its row in the table galleries is damaged; restore it from a backup"
            ) from None
        if known is None or not known.same_model(Copy(meta, row.change_id)):
            return Copy(self._whole(connection, meta, {}), row.change_id)
        if row.change_of_known == known.change_id:  # what came later is all known
            return Copy(self._grown(connection, meta, known.contents, row.some_removed), row.change_id)
        _log.warning(
            "the gallery has another past than this copy: it is read whole",
            gallery=self.label, version=row.version, copy=known.contents.version,
        )  # fmt: skip
        return Copy(self._whole(connection, meta, _vectors_by_id(known.contents)), row.change_id)

    def _grown(self, connection: sa.Connection, meta: Contents, before: Contents, some_removed: bool) -> Contents:
        left, lost = before, set[str]()
        if some_removed:
            gone = self._column(connection, _removed.c.sample_id, _removed.c.changed > before.version)
            left, lost = before.cut(set(gone))
        people = self._people(connection, _people.c.changed > before.version)
        rows = self._sample_rows(connection, _samples.c.changed > before.version)
        contents = self._filled(_with_meta(left, meta), rows, {**before.names, **names_of(people)})
        if lost:  # all samples that are known here; they may have got others in between
            lost -= {sample.identity_id for sample in contents.samples[left.sample_count :]}
        return self._noted(contents, before, people).forgetting(lost)

    def _whole(self, connection: sa.Connection, meta: Contents, known: dict[str, Any]) -> Contents:
        """Everything, except the vectors in ``known`` (by sample_id) whose digest is still right."""
        people = self._people(connection)
        names, meta = names_of(people), self._noted(meta, meta, people)
        if not known or encryption.keys().people is not None:
            return self._filled(meta, self._sample_rows(connection), names)
        digests = self._digests(connection)
        kept = {key for key, vector in known.items() if key in digests and digest_of(vector.tobytes()) == digests[key]}
        missing = [key for key in digests if key not in kept]
        vectors = {key: known[key].tobytes() for key in kept}
        for ids in batched(missing, _AT_ONCE):
            some = _samples.c.sample_id.in_(ids)
            vectors |= {row.sample_id: row.vector for row in self._sample_rows(connection, some)}
        columns = [_samples.c[field.name] for field in fields(SampleRow) if field.name != "vector"]
        query = sa.select(*columns).where(_samples.c.gallery == self.name).order_by(_samples.c.number)
        plain = connection.execute(query).mappings()
        return self._filled(meta, (SampleRow(**row, vector=vectors[row["sample_id"]]) for row in plain), names)

    def _digests(self, connection: sa.Connection) -> dict[str, str]:
        query = sa.select(_samples.c.sample_id, _samples.c.digest).where(_samples.c.gallery == self.name)
        return {row.sample_id: row.digest for row in connection.execute(query)}

    def _people(self, connection: sa.Connection, *conditions: Any) -> Sequence[Any]:
        columns = _people.c.identity_id, _people.c.name, _people.c.consent, _people.c.groups
        return connection.execute(sa.select(*columns).where(_people.c.gallery == self.name, *conditions)).all()

    def _noted(self, contents: Contents, before: Contents, people: Sequence[Any]) -> Contents:
        """``contents`` with the consents and groups of ``before``, and what the rows of ``people`` say."""
        contents = replace(contents, consents=before.consents, memberships=before.memberships)
        consents = {row.identity_id: self._consent(row) if row.consent else None for row in people}
        groups = {row.identity_id: self._groups(row) if row.groups else () for row in people}
        return contents.consenting(consents).grouped(groups)

    def _consent(self, row: Any) -> Consent:
        """That of a row of people. One that cannot be read allows nothing: nobody finds the person."""
        try:
            consent = consents_of({"": json.loads(row.consent)})[""]
            for bound in filter(None, (consent.since, consent.until)):
                parse_rfc3339(bound)
        except _UNREADABLE:
            self._tell_damaged_person(row, "its consent cannot be read: nobody finds the person")
            return Consent(until=_LONG_AGO, note="the consent that was stored cannot be read")
        return consent

    def _groups(self, row: Any) -> tuple[str, ...]:
        """Those of a row of people; none where they cannot be read."""
        try:
            return tuple(map(str, json.loads(row.groups)))
        except _UNREADABLE:
            self._tell_damaged_person(row, "its groups cannot be read: the person is in none")
            return ()

    def _tell_damaged_person(self, row: Any, problem: str) -> None:
        _log.warning("gallery_person_damaged", gallery=self.label, person=row.identity_id, problem=problem,
                     advice="set it again, or restore the database from a backup")  # fmt: skip

    def _column(self, connection: sa.Connection, column: Any, *conditions: Any) -> Sequence[Any]:
        query = sa.select(column).where(column.table.c.gallery == self.name, *conditions)
        return connection.execute(query).scalars().all()

    def _sample_rows(self, connection: sa.Connection, *conditions: Any) -> Iterator[Any]:
        columns = [_samples.c[field.name] for field in fields(SampleRow)]
        query = sa.select(*columns).where(_samples.c.gallery == self.name, *conditions).order_by(_samples.c.number)
        if conditions:
            with connection.execute(query) as rows:
                yield from rows
        else:  # everything: by COPY, which spares both sides to write and read each byte as two digits
            yield from map(sample_row_of_copy, self._database.copied(connection, query))

    def _filled(self, contents: Contents, rows: Iterable[Any], names: dict[str, str]) -> Contents:
        """With the samples in ``rows``. A damaged one is named in the log and left out; all others are used."""
        contents = replace(contents, names=names)
        length = 4 * contents.dimension
        for chunk in batched(rows, BLOCK_SAMPLES):
            whole: list[tuple[Any, Photo]] = []
            for row in chunk:
                found = photo_or_problem(row, length)
                if not isinstance(found, str):
                    whole.append((row, found))
                elif found is not GONE:
                    self._tell_damaged(row, names, found)
            raw = b"".join([row.vector[:length] for row, _ in whole])
            vectors = np.frombuffer(raw, "<f4").reshape(-1, contents.dimension)
            are_unit = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < _UNIT
            sound: list[Sample] = []
            for (row, photo), is_unit in zip(whole, are_unit.tolist(), strict=True):
                if is_unit:
                    sound.append(sample_of(row, photo))
                else:
                    self._tell_damaged(row, names, "its vector is not finite and of unit length")
            contents = contents.plus(sound, vectors if len(sound) == len(whole) else vectors[are_unit], names)
        return contents

    def _tell_damaged(self, row: Any, names: dict[str, str], problem: str) -> None:
        _log.warning(
            "gallery_sample_damaged",
            gallery=self.label, sample=row.sample_id, person=names.get(row.identity_id, row.identity_id),
            photo=clean_text(row.photo), problem=problem,
            advice="enroll its photo again",
        )  # fmt: skip
        self._damaged.add(row.sample_id)

    def _write(self, connection: sa.Connection, before: Contents, after: Contents) -> None:
        """The rows in which ``after``, the next version, differs from ``before``."""
        gone, added = changes_between(before, after)
        changed = {"changed": after.version}
        if moved := gone & added.keys():
            merged = {one.identity_id: added[one.sample_id][0].identity_id
                      for one in before.samples if one.sample_id in moved}  # fmt: skip
            self._spend(connection, {gone: now for gone, now in merged.items() if gone not in after.names})
            # Those who were merged, and are there again.
            again = [tag_for(now, connection.dialect) for now in merged.values() if now not in before.names]
            take_back(connection, again)
        for ids in batched(sorted(gone), _AT_ONCE):
            connection.execute(_samples.delete().where(_samples.c.gallery == self.name, _samples.c.sample_id.in_(ids)))
            marks = [self._mine | {"sample_id": sample_id} | changed for sample_id in ids]
            mark = self._database.insert(_removed)
            connection.execute(mark.on_conflict_do_update(index_elements=["gallery", "sample_id"], set_=changed), marks)
        named = {key for key, name in after.names.items() if before.names.get(key) != name}
        for old, new in ((before.consents, after.consents), (before.memberships, after.memberships)):
            noted = () if old is new else (old.keys() | new.keys()) & after.names.keys()
            named |= {key for key in noted if old.get(key) != new.get(key)}
        if named:
            person = self._database.insert(_people)
            renamed = {name: person.excluded[name] for name in ("name", "consent", "groups")} | changed
            connection.execute(
                person.on_conflict_do_update(index_elements=["gallery", "identity_id"], set_=renamed),
                [self._mine | person_row(after, key) | changed for key in sorted(named)],
            )
        self._replace_damaged(connection, [sample for sample, _ in added.values()])
        for some in batched(added.values(), _AT_ONCE):
            rows = [self._mine | sample_row(sample, vector) | changed for sample, vector in some]
            connection.execute(_samples.insert(), rows)
        for ids in batched((key for key in before.names if key not in after.names), _AT_ONCE):
            # Damaged samples, which no contents hold, go with their person.
            for table in (_samples, _people):
                connection.execute(table.delete().where(table.c.gallery == self.name, table.c.identity_id.in_(ids)))

    def _spend(self, connection: sa.Connection, merged: Mapping[str, str]) -> None:
        """Of people who are others now: what was written of them before was sealed by keys of their own."""
        for before, now in merged.items():
            if before != now:
                mine = schema.spent_keys.c.owner == before
                connection.execute(schema.spent_keys.update().where(mine).values(owner=now))
                spend(connection, [tag_for(before, connection.dialect)], now)

    def _replace_damaged(self, connection: sa.Connection, samples: Sequence[Sample]) -> None:
        """Takes out the damaged samples of the photos of ``samples``, which are enrolled again."""
        if not self._damaged or not samples:
            return
        keys = encryption.keys().people
        photos = {sample.photo_sha256 for sample in samples}
        if keys is not None:
            photos |= {keys.mark(sample.identity_id, sample.photo_sha256) for sample in samples} - {""}
        for ids in batched(self._damaged, _AT_ONCE):
            connection.execute(
                _samples.delete().where(
                    _samples.c.gallery == self.name, _samples.c.sample_id.in_(ids), _samples.c.photo_sha256.in_(photos)
                )
            )

    def _note(self, connection: sa.Connection, made: Copy) -> None:
        """Makes ``made`` the version of the gallery, and announces it; it is seen when the transaction ends."""
        version = made.contents.version
        connection.execute(
            _galleries.update().where(_galleries.c.gallery == self.name).values(meta_row(made.contents, made.change_id))
        )
        row = {"version": version, "change_id": made.change_id, "made_s": time.time()}
        connection.execute(_changes.insert().values(self._mine | row))
        if version % _PRUNE_EVERY == 0:
            for table, column in ((_changes, _changes.c.version), (_removed, _removed.c.changed)):
                connection.execute(table.delete().where(table.c.gallery == self.name, column <= version - KEPT_CHANGES))
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, self.name)))

    def _put_aside(self, connection: sa.Connection, aside: "GalleryStore") -> None:
        """Copies the rows as they are, in the database, to the gallery ``aside``, which may exist."""
        connection.execute(_galleries.delete().where(_galleries.c.gallery == aside.name))
        for table in (_galleries, _people, _samples):
            columns = [column for column in table.c if column.name not in {"gallery", "number"}]
            rows = sa.select(sa.literal(aside.name), *columns).where(table.c.gallery == self.name)
            if table is _samples:
                rows = rows.order_by(_samples.c.number)
            connection.execute(table.insert().from_select(["gallery", *(column.name for column in columns)], rows))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with translated(self.label):
                yield
        except DatabaseUnavailableError as error:
            raise GalleryUnavailableError(f"gallery {error}") from None
        except DatabaseError as error:
            raise GalleryError(f"gallery {error}") from None


def new_change_id() -> str:
    """An id that no change has."""
    return uuid.uuid4().hex


def _with_meta(contents: Contents, meta: Contents) -> Contents:
    return replace(meta, names=contents.names, blocks=contents.blocks)


def _vectors_by_id(contents: Contents) -> dict[str, Vectors]:
    return {
        sample.sample_id: vector
        for block in contents.blocks
        for sample, vector in zip(block.samples, block.vectors, strict=True)
    }
