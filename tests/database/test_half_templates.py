"""With the extension pgvector a search is quicker; it gives the same answers, and nothing stays behind in its table."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.past import MODEL, sighting
from tests.support.postgres import PostgresServer, postgres_programs, running_postgres, with_tables
from tests.support.repository import REPOSITORY
from worker.database.address import parse_database_url
from worker.database.backup import back_up, restore
from worker.database.database import open_postgres
from worker.database.half_templates import has_all
from worker.database.inspection import inspect
from worker.encryption import Keys, use
from worker.erased import Erased, Erasure, digest_of
from worker.gallery.database.gallery import DatabaseGallery
from worker.history.records import EmbedderId
from worker.history.store import History
from worker.people_keys import PeopleKeys

WEEK_S = 7 * 86_400.0
DIMENSION = 32
OTHER = EmbedderId("other", "digest")
ROLES = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """With pgvector on its disk; a database has it once it is asked for."""
    with running_postgres(carried=True) as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Of a database with the extension."""
    return with_extension(server, "vectors")


def with_extension(server: PostgresServer, name: str) -> str:
    made = server.new_database(name)
    server.execute("CREATE EXTENSION vector", database=name)
    return with_tables(made)


def face(seed: int, cosine: float | None = None) -> Any:
    """Somebody; or with this cosine to the first axis, which is looked for."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    if cosine is not None:
        vector[0] = 0.0
        vector *= np.sqrt(1.0 - cosine**2) / np.linalg.norm(vector)
        vector[0] = cosine
    return (vector / np.linalg.norm(vector)).astype(np.float32)


PROBE = np.eye(DIMENSION, dtype=np.float32)[0]


def found(past: History, threshold: float = 0.5, **narrowed: Any) -> list[tuple[str, float]]:
    return [(one.sighting_id, similarity) for one, similarity in past.similar(PROBE, MODEL, threshold, **narrowed)]


def write(past: History, *numbers: int, **changes: Any) -> None:
    past.write([sighting(n, face(n, 0.9), **changes) for n in numbers], keep_s=WEEK_S, remember_s=WEEK_S)


def halves(url: str) -> int:
    """How many templates stand in 16 bits, as ``database check`` says; -1 if there is no such table."""
    database = open_postgres(parse_database_url(url))
    found = inspect(database)
    database.close()
    assert found.problems == ()
    return found.rows.get("half_templates", -1)


def is_complete(url: str) -> bool:
    """Whether a search need not look for templates without a row."""
    database = open_postgres(parse_database_url(url))
    with database.reading() as connection:
        complete = has_all(connection)
    database.close()
    return complete


_COSINES = st.floats(-1.0, 1.0) | st.floats(0.495, 0.505) | st.sampled_from([0.5, 0.4999, 0.5001])
_TEMPLATES: st.SearchStrategy[Any] = st.one_of(
    st.builds(face, st.integers(0, 99), _COSINES),
    st.builds(lambda seed, scale: face(seed, 0.7) * np.float32(scale), st.integers(0, 9), st.floats(0, 3e5, width=32)),
    st.none(),
    st.just(np.full(DIMENSION, np.nan, np.float32)),
    st.just(np.full(DIMENSION, np.inf, np.float32)),
    st.just(PROBE[:8]),
    st.just(np.eye(2 * DIMENSION, dtype=np.float32)[0]),
    # No halfvec holds so many numbers.
    st.just(np.eye(1, 16_001, dtype=np.float32)[0]),
)
_CHANGES = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 7), _TEMPLATES, st.sampled_from(["", "u-1", "u-2"]), st.booleans()),
    st.tuples(st.just("forget"), st.sampled_from(["u-1", "u-2"])),
    st.tuples(st.just("correct"), st.integers(0, 7)),
    st.tuples(st.just("lose half"), st.integers(0, 7)),
    st.tuples(st.just("upgrade")),
)


# To make a failing example smaller would take minutes: each one writes to two servers.
@settings(max_examples=25, phases=[Phase.reuse, Phase.generate])
@given(st.lists(_CHANGES, max_size=25), st.sampled_from([0.5, -1.0, 0.999]), st.sampled_from([1, 3, 8192]))
def test_the_answers_are_those_of_a_server_without_the_extension(
    places: tuple[str, str, PostgresServer], changes: list[Any], threshold: float, chunk_rows: int
) -> None:
    with_it, without, server = places
    with History.open(with_it) as quick, History.open(without) as plain:
        for past in (quick, plain):
            past.prune(keep_s=-1.0)
        for kind, *what in changes:
            if kind == "lose half":
                server.execute(
                    f"DELETE FROM facestream.half_templates WHERE sighting_id = 'door_{what[0]}'", database="vectors"
                )
            elif kind == "upgrade":
                with_tables(with_it)
            else:
                for past in (quick, plain):
                    _change(past, kind, *what)
        same = [found(past, threshold, chunk_rows=chunk_rows) for past in (quick, plain)]
        assert same[0] == same[1]
        assert is_complete(with_it) or any(kind == "lose half" for kind, *_ in changes)
        with_tables(with_it)
        assert is_complete(with_it)
        assert found(quick, threshold, chunk_rows=chunk_rows) == same[1]
        assert quick.similar(face(3), OTHER, -1.0) == []
        long = [len(past.similar(PROBE * np.float32(1e6), MODEL, 0.5)) for past in (quick, plain)]
        assert long[0] == long[1]


@pytest.fixture(scope="module")
def places(server: PostgresServer) -> Iterator[tuple[str, str, PostgresServer]]:
    """A database with the extension, one of Debian's server without, and the first one's server."""
    with running_postgres() as other:
        yield with_extension(server, "vectors"), with_tables(other.new_database("plain")), server


def _change(past: History, kind: str, *what: Any) -> None:
    if kind == "forget":
        past.drop_unknown(what[0], sightings_too=True)
    elif kind == "correct":
        for one in past.sightings(sighting_id=f"door_{what[0]}"):
            past.give_name(one, "p-1", "Anna")
    else:
        number, template, unknown_id, twice = what
        row = sighting(number, template, unknown_id=unknown_id)
        past.write([row] * (1 + twice), keep_s=WEEK_S, remember_s=WEEK_S)


def test_a_template_in_16_bits_goes_with_its_sighting(url: str, server: PostgresServer, tmp_path: Path) -> None:
    with History.open(url) as past:
        write(past, 1, 2, 3, 4, unknown_id="u-1")
        write(past, 5, 6, identity_id="p-1")
        assert halves(url) == 6
        past.drop_unknown("u-1", sightings_too=True)
        assert halves(url) == 2
        assert [name for name, _ in found(past)] == ["door_5", "door_6"]
        past.erase(Erased([Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset({digest_of("p-1")}))]))
        assert halves(url) == 0
        write(past, 7)
        assert past.prune(keep_s=-1.0) >= 1
        assert halves(url) == 0
    needles = [face(number, 0.9).astype("<f2").tobytes()[:48] for number in range(1, 8)]
    server.execute("CHECKPOINT", database="vectors")
    assert server.files_with(*needles, below="base"), "VACUUM has not run"
    gallery = DatabaseGallery.create(url, "m", "digest", DIMENSION)
    assert gallery.rewrite_tables()
    gallery.close()
    assert server.files_with(*needles, below="base") == []


def test_what_was_written_before_there_was_the_extension_is_found_and_added(server: PostgresServer) -> None:
    url = with_tables(server.new_database("vectors"))
    with History.open(url) as past:
        write(past, 1, 2)
        server.execute("CREATE EXTENSION vector", database="vectors")
        before = found(past)
        assert halves(url) == -1
        with_tables(url)
        assert halves(url) == 2
        assert found(past) == before
        write(past, 3)  # by one who was there before the extension
        assert halves(url) == 3
        server.execute("DROP EXTENSION vector CASCADE", database="vectors")
        write(past, 4)
        assert [name for name, _ in found(past)] == ["door_1", "door_2", "door_3", "door_4"]
        server.execute("CREATE SCHEMA elsewhere", "CREATE EXTENSION vector SCHEMA elsewhere", database="vectors")
        with_tables(url)
        assert halves(url) == 4
        assert len(found(past)) == 4


def test_roles_need_no_more_rights_than_before(url: str, server: PostgresServer) -> None:
    owners_of = {"worker": 1, "operator": 2}
    server.execute(ROLES, database="vectors")
    for role, count in owners_of.items():
        server.execute(
            f"DROP USER IF EXISTS a_{role}", f"CREATE USER a_{role} IN ROLE facestream_{role}", database="vectors"
        )
        of_role = url.replace("postgres@", f"a_{role}@")
        with_tables(of_role)
        with History.open(of_role) as past:
            write(past, count)
            assert len(found(past)) == count
        assert halves(url) == count
    # Where an owner has forgotten to run the file of roles again.
    server.execute("REVOKE ALL ON facestream.half_templates FROM PUBLIC, facestream_worker", database="vectors")
    with History.open(url.replace("postgres@", "a_worker@")) as past:
        write(past, 3)
        assert [name for name, _ in found(past)] == ["door_1", "door_2", "door_3"]
        assert past.prune(keep_s=-1.0) >= 3
    assert halves(url) == 0


def test_what_is_sealed_by_a_key_does_not_stand_there_as_it_is(url: str, tmp_path: Path) -> None:
    (tmp_path / "people.key").write_text(base64.b64encode(os.urandom(32)).decode())
    with History.open(url) as past:
        write(past, 1, 2)
        before = found(past)
        use(Keys(people=PeopleKeys(tmp_path / "people.key")))
        write(past, 3)
        assert halves(url) == 2
        assert len(found(past)) == 3
        assert is_complete(url)
        past.seal_anew()
        assert halves(url) == 0
        assert is_complete(url)
        with_tables(url)
        assert halves(url) == 0
        assert found(past)[:2] == before
        use(Keys(people=PeopleKeys(tmp_path / "people.key", writing=False)))
        past.seal_anew()
        assert halves(url) == 3
        assert len(found(past)) == 3
        assert is_complete(url)


def test_a_table_of_the_version_before_keeps_what_it_has(url: str, server: PostgresServer) -> None:
    with History.open(url) as past:
        write(past, 1, 2)
        past.write([sighting(3, 2 * face(3, 0.9))], keep_s=WEEK_S, remember_s=WEEK_S)
        server.execute(
            "DELETE FROM facestream.half_templates WHERE sighting_id = 'door_3'",
            "ALTER TABLE facestream.half_templates ALTER COLUMN template SET NOT NULL", database="vectors",
        )  # fmt: skip
        before = server.execute("SELECT 'facestream.half_templates'::regclass::oid", database="vectors")
        assert len(found(past)) == 3
        write(past, 4)
        with_tables(url)
        assert server.execute("SELECT 'facestream.half_templates'::regclass::oid", database="vectors") == before
        assert (halves(url), is_complete(url)) == (3, True)
        assert [name for name, _ in found(past)] == ["door_3", "door_1", "door_2", "door_4"]


@pytest.mark.parametrize("extension", [True, False])
def test_a_backup_needs_no_extension(
    extension: bool, url: str, server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{postgres_programs(carried=True)}:{os.environ['PATH']}")
    address = parse_database_url(url)
    database = open_postgres(address)
    with History.open(url) as past:
        write(past, 1, 2)
        back_up(database, tmp_path / "backup", address)
        write(past, 3)
        restore(database, tmp_path / "backup", address)
        assert [name for name, _ in found(past)] == ["door_1", "door_2"]
    assert halves(url) == 2
    database.close()
    there = with_extension(server, "other") if extension else with_tables(server.new_database("other"))
    database = open_postgres(parse_database_url(there))
    restore(database, tmp_path / "backup", parse_database_url(there))
    database.close()
    assert halves(there) == (2 if extension else -1)
    with History.open(there) as past:
        assert len(found(past)) == 2
        past.erase(Erased([Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset({digest_of("door_1")}))]))
        past.seal_anew()
        assert [name for name, _ in found(past)] == ["door_2"]
