"""The roles of ``deploy/postgres/roles.sql``: each may do what it needs, and nothing else."""

from collections.abc import Callable

import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.past import AXES, sighting, unknown
from tests.support.postgres import PostgresServer, with_tables
from tests.support.repository import REPOSITORY
from tests.support.waiting import PATIENCE_S
from worker.alerts.book import Book
from worker.alerts.rules import Rule
from worker.database.address import parse_database_url
from worker.database.database import open_postgres
from worker.erased import Erased, Erasure, digest_of
from worker.errors import GalleryError, HistoryError
from worker.gallery.database.gallery import DatabaseGallery
from worker.history.records import Account
from worker.history.reuniting import Moved
from worker.history.shared import SharedDatabase
from worker.history.store import History

ROLES = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text()


@pytest.fixture
def url_of(postgres: PostgresServer, postgres_url: str) -> Callable[[str], str]:
    """The URL for a user of a role; "" for the owner."""
    with_tables(postgres_url)
    for _ in range(2):  # it may be run again
        postgres.execute(ROLES, database="test")
    for role in ("reader", "worker", "operator"):
        postgres.execute(
            f"DROP USER IF EXISTS a_{role}", f"CREATE USER a_{role} IN ROLE facestream_{role}", database="test"
        )
    return lambda role: postgres_url.replace("postgres@", f"a_{role}@") if role else postgres_url


def remember(url: str) -> None:
    with History.open(url) as past:
        past.write([sighting(1, unknown_id="u-1")], [unknown("u-1"), unknown("u-2", AXES[1])], keep_s=60, remember_s=60)


def test_a_worker_remembers_and_follows_and_changes_nobody(
    postgres: PostgresServer, url_of: Callable[[str], str]
) -> None:
    owner = DatabaseGallery.create(url_of(""), MODEL, DIGEST, DIMENSION)
    owner.add([sample("a", 1)])
    worker = DatabaseGallery.open(url_of("worker"))
    worker.follow("worker")
    owner.add([sample("b", 2)])
    assert [done for _, done in owner.wait_for_workers(PATIENCE_S)] == [True]
    worker.close()
    remember(url_of("worker"))
    with History.open(url_of("worker")) as past:
        assert past.prune(keep_s=0.0) == 1
        moved: Moved = []
        for number, unknown_id in enumerate(("u-3", "u-4", "u-5")):
            seen = sighting(10 + number, AXES[2], unknown_id=unknown_id, account=Account(threshold=0.5))
            if unknown_id == "u-5":
                # As after an upgrade, before the roles are made again: two ids, and nothing else fails.
                postgres.execute("REVOKE INSERT ON facestream.regroupings FROM facestream_worker", database="test")
            past.write([seen], keep_s=60, remember_s=60, tell=moved.extend)
        assert [(one.unknown_id, who) for one, who in moved] == [("u-4", "u-3")]
        assert {one.unknown_id for one in past.sightings()} == {"u-3", "u-5"}
        with pytest.raises(HistoryError, match="grant this user the role"):
            past.merge_unknowns("u-1", "u-2")
    alone = DatabaseGallery.open(url_of("worker"))
    for change in (lambda: alone.add([sample("c", 3)]), lambda: alone.remove("a"), lambda: alone.rename("a", "z")):
        with pytest.raises(GalleryError, match=r"permission denied.*facestream_operator"):
            change()
    assert [person.name for person in DatabaseGallery.open(url_of("")).people()] == ["a", "b"]


def test_a_worker_and_an_operator_erase_as_far_as_each_may(url_of: Callable[[str], str]) -> None:
    remember(url_of(""))
    shared = SharedDatabase.open(url_of(""))
    book, hook = Book(shared), {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}
    book.add(Rule.model_validate({"name": "she is here", "people": ["p-1"], **hook}))
    erased = Erased([Erasure("e", "2026-03-01T08:30:00.000Z", frozenset(map(digest_of, ("p-1", "u-1"))))])
    with History.open(url_of("worker")) as past:
        assert past.erase(erased)["unknown people"] == 1
        assert past.sightings() == []
    assert [stored.rule.people for stored in book.rules()] == [("p-1",)], "which is not for the eyes of a worker"
    with History.open(url_of("operator")) as past:
        assert past.erase(erased, again=True)["rules"] == 1
    assert [stored.rule.people for stored in book.rules()] == [()]
    shared.close()


def test_a_reader_only_reads(url_of: Callable[[str], str]) -> None:
    DatabaseGallery.create(url_of(""), MODEL, DIGEST, DIMENSION).add([sample("a", 1)])
    remember(url_of(""))
    assert len(DatabaseGallery.open(url_of("reader"))) == 1
    with History.open(url_of("reader")) as past:
        assert len(past.sightings()) == 1
        assert len(past.unknowns()[0]) == 2
        for change in (lambda: past.drop_unknown("u-1"), past.prune):
            with pytest.raises(HistoryError, match="permission denied"):
                change()
    with pytest.raises(HistoryError, match="permission denied"):
        remember(url_of("reader"))


def test_an_operator_changes_people_and_no_tables(url_of: Callable[[str], str]) -> None:
    gallery = DatabaseGallery.create(url_of("operator"), MODEL, DIGEST, DIMENSION)
    gallery.add([sample("a", 1), sample("b", 2)])
    gallery.merge("a", "b")
    gallery.remove("a")
    remember(url_of("operator"))
    with History.open(url_of("operator")) as past:
        past.undo_regrouping(past.merge_unknowns("u-1", "u-2"))
        past.drop_unknown("u-1", sightings_too=True)
    database = open_postgres(parse_database_url(url_of("operator")))
    for statement in ("DROP TABLE facestream.samples", "UPDATE facestream.facestream_layout SET version_num = '0'",
                      "CREATE TABLE facestream.mine (a int)"):  # fmt: skip
        with pytest.raises(Exception, match=r"permission denied|must be owner"), database.writing() as connection:
            connection.exec_driver_sql(statement)
