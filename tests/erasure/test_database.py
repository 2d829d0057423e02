"""A person is forgotten in a database that a fleet shares: rows, tables, and every worker."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.past import sighting, unknown
from tests.support.postgres import PostgresServer
from tests.support.remembered import ANNA, ANNAS, BEN, DIMENSION, MODEL, face, sample
from tests.support.stand_ins import StandInDetector, StandInEmbedder, detector_of, embedder_of
from worker.cli import run_command_line
from worker.config import Config, OutboxConfig, default_state_dir
from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres
from worker.database.layout import upgrade
from worker.encryption import new_key, parse_keys, use
from worker.erased import FILE as ERASED
from worker.erasure.own import OwnErasure, erasure_folders
from worker.events.outbox import Outbox
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.database.last_copy import LastCopy
from worker.gallery.database.store import Copy
from worker.history.records import Account
from worker.history.store import History
from worker.history.waiting import Waiting
from worker.recognition.pipeline import Pipeline

WEEK_S = 7 * 86_400.0
TABLES = ("people", "samples", "sightings", "unknowns", "denials")


@pytest.fixture
def database(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """With Anna and Ben in two versions of a gallery, and their past."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    opened = open_postgres(parse_database_url(postgres_url))
    upgrade(opened)
    gallery = DatabaseGallery.create(postgres_url, MODEL.model_id, MODEL.preprocessing_digest, DIMENSION)
    gallery.add([sample(ANNA, ANNAS[0]), sample(ANNA, ANNAS[1]), sample(BEN, face(10, 1))])
    gallery.replace_with(gallery.contents)
    anna = gallery.person(ANNA).identity_id
    past = [
        sighting(1, ANNAS[0], embedder=MODEL, identity_id=anna, identity_name=ANNA),
        sighting(2, ANNAS[2], embedder=MODEL, unknown_id="u-1"),
        sighting(5, face(20, 5), embedder=MODEL, unknown_id="u-2"),
    ]
    with History.open(postgres_url) as history:
        history.write(past, [unknown("u-1", ANNAS[2], embedder=MODEL)], keep_s=WEEK_S, remember_s=WEEK_S)
    yield opened
    opened.close()


def rows(database: Database) -> str:
    with database.reading() as connection:
        tables = [*TABLES, "changes", "removed", "regroupings"]
        return "".join(str(connection.execute(sa.text(f"SELECT * FROM facestream.{name}")).all()) for name in tables)


def forget(url: str, receipt: Path, *more: str) -> int:
    given = ["--gallery", url, "--yes", "--no-events", "--receipt", str(receipt)]
    return run_command_line(["forget", ANNA, *given, *more])


def test_rows_and_the_files_of_the_tables_hold_nothing_of_the_person(
    database: Database, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    vectors = [vector.tobytes()[:64] for vector in ANNAS]
    with database.outside() as connection:
        connection.autocommit = True
        connection.execute("CHECKPOINT")
    assert postgres.files_with(ANNA.encode(), *vectors, below="base")
    assert forget(postgres_url, tmp_path / "receipt.json") == 0
    assert ANNA not in rows(database)
    assert not any(repr(vector)[2:-1] in rows(database) for vector in vectors)
    assert BEN in rows(database)
    assert postgres.files_with(ANNA.encode(), *vectors, below="base") == []
    remains = " ".join(one["what"] for one in json.loads((tmp_path / "receipt.json").read_text())["remains"])
    assert "write-ahead log" in remains, "which outlives a DELETE"


@pytest.mark.parametrize("beside", [False, True], ids=["elsewhere", "beside the command"])
def test_every_worker_of_the_fleet_says_that_it_is_done(
    database: Database, postgres_url: str, tmp_path: Path, beside: bool
) -> None:
    del database
    state = default_state_dir() if beside else tmp_path / "elsewhere"
    state.mkdir(parents=True, exist_ok=True)
    gallery = DatabaseGallery.open(postgres_url)
    config = Config(gallery=postgres_url, worker_id="w", state_dir=state)
    embedder = StandInEmbedder(MODEL.model_id)
    pipeline = Pipeline(config, detector_of(StandInDetector()), embedder_of(embedder), gallery)
    outbox = Outbox(OutboxConfig(), path=state / "outbox-w.sqlite3")
    folders = erasure_folders(config)
    assert folders == [state]
    own = OwnErasure(folders, "w", pipeline, outbox, lambda action: action())
    gallery.follow("w")
    own.catch_up()
    own.start()
    try:
        assert forget(postgres_url, tmp_path / "receipt.json") == 0
    finally:
        own.close()
        gallery.close()
        outbox.close()
    workers = json.loads((tmp_path / "receipt.json").read_text())["workers"]
    assert [one["worker"][:2] for one in workers] == (["w-"] if beside else []) + ["w/"]
    assert all(one["done"] for one in workers)
    assert [person.name for person in gallery.people()] == [BEN]
    assert (state / ERASED).exists(), "it remembers this where the database does not reach"


@pytest.mark.parametrize("key", ["", new_key()], ids=["in clear", "encrypted"])
def test_what_a_worker_that_is_gone_for_good_has_left_on_the_disk_goes(
    database: Database, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if key:
        monkeypatch.setenv("FACESTREAM_ENCRYPTION__KEY", key)
        use(parse_keys(key))
    state = default_state_dir()
    gallery = DatabaseGallery.open(postgres_url)
    LastCopy(state / "galleries" / "0123").write(Copy(gallery.contents, "change"), at_once=True)
    anna = gallery.person(ANNA).identity_id
    named = {"embedder": MODEL, "identity_id": anna, "identity_name": ANNA}
    told = Account(nearest=BEN, similarity=0.8, runner_up=ANNA, runner_up_similarity=0.4)
    past = [sighting(1, ANNAS[0], **named), sighting(6, face(11, 1), embedder=MODEL, account=told)]
    waiting = Waiting(state / "waiting-gone")
    waiting.keep(past, [], [], keep_s=WEEK_S, remember_s=WEEK_S)

    def left() -> list[Path]:
        needles = [ANNA.encode(), json.dumps(ANNA)[1:-1].encode(), *(one.tobytes()[:64] for one in ANNAS)]
        files = [path for path in state.rglob("*") if path.is_file()]
        return [path for path in files if any(needle in path.read_bytes() for needle in needles)]

    assert bool(left()) == (key == "")
    assert forget(postgres_url, tmp_path / "receipt.json") == 0
    assert left() == []
    with History.open(state / "waiting-gone" / "now") as history:
        (other,) = history.sightings()
    assert (other.sighting_id, other.account.nearest, other.account.runner_up) == ("door_6", BEN, "")
    assert not [path for path in (state / "galleries").rglob("*") if path.is_file() and path.name != "lock"]


def test_a_worker_that_does_not_carry_it_out_is_named(database: Database, postgres_url: str, tmp_path: Path) -> None:
    del database
    gallery = DatabaseGallery.open(postgres_url)
    gallery.follow("busy")
    try:
        assert forget(postgres_url, tmp_path / "receipt.json", "--wait-s", "0.2") == 1
    finally:
        gallery.close()
    (worker,) = json.loads((tmp_path / "receipt.json").read_text())["workers"]
    assert (worker["worker"].split("/")[0], worker["done"]) == ("busy", False)


def test_a_restored_database_brings_nobody_back(
    database: Database, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = tmp_path / "site.backup"
    if run_command_line(["database", "backup", "--gallery", postgres_url, "--output", str(backup)]):
        pytest.skip(f"no pg_dump that fits: {capsys.readouterr().err}")
    assert forget(postgres_url, tmp_path / "receipt.json") == 0
    restore = ["database", "restore", str(backup), "--gallery", postgres_url, "--replace"]
    assert run_command_line(restore) == 0
    assert "removed again who was forgotten since" in capsys.readouterr().out
    assert ANNA not in rows(database)
    assert (default_state_dir() / ERASED).exists()
