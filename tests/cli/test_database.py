"""``facestream database``, for a SQLite file and for a server: looked at, made, saved, put back, emptied."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.command_line import Ended
from tests.support.past import sighting
from tests.support.postgres import PostgresServer
from worker.cli import run_command_line
from worker.database.schema import LAYOUT
from worker.history.retention import Retention
from worker.history.store import FILE, History

DAY_S = 86_400.0


@pytest.fixture
def facestream(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Ended:
        code = run_command_line([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "people") if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def place_of(where: str) -> Path | str:
    return where if "://" in where else Path(f"{where}.state")


def remember(where: str, *numbers: int, keep_s: float = DAY_S) -> None:
    with History.open(place_of(where), create=True) as past:
        past.write([sighting(number) for number in numbers], keep_s=keep_s, remember_s=keep_s)


def remembered(where: str) -> list[str]:
    with History.open(place_of(where)) as past:
        return [one.sighting_id for one in past.sightings()]


def test_a_database_is_made_saved_and_put_back(facestream: Callable[..., Ended], where: str, tmp_path: Path) -> None:
    option = ["--gallery", where]
    if "://" in where:
        empty = facestream("database", "check", *option)
        assert (empty.code, "facestream database upgrade" in empty.stderr) == (1, True)
        assert facestream("database", "upgrade", *option, "--json").documents[0]["layout"] == LAYOUT
    remember(where, 1, 2)
    checked = facestream("database", "check", *option, "--json")
    assert (checked.code, checked.documents[0]["rows"]["sightings"], checked.documents[0]["problems"]) == (0, 2, [])
    saved = tmp_path / "saved"
    assert facestream("database", "backup", *option, "--output", saved).code == 0
    assert saved.stat().st_mode & 0o777 == 0o600
    assert "exists already" in facestream("database", "backup", *option, "--output", saved).only_error(1)
    remember(where, 3)
    assert "--replace" in facestream("database", "restore", saved, *option).only_error(2)
    assert facestream("database", "restore", saved, *option, "--replace").code == 0
    assert remembered(where) == ["door_1", "door_2"]


@pytest.mark.parametrize(
    ("broken", "checked", "upgraded"),
    [
        ("UPDATE facestream.facestream_layout SET version_num = '3'", "says that it has layout 3",
         "another layout than it says, and stays as it is"),
        ("DROP TABLE facestream.tallies; UPDATE facestream.facestream_layout SET version_num = '6'",
         "has layout 6, this version needs", "another layout than it says, and stays as it is"),
        ("ALTER TABLE facestream.sightings DROP COLUMN evidence", "lacks sightings.evidence: restore", ""),
        ("DELETE FROM facestream.facestream_layout", "says of itself the layout []", "restore it from a backup"),
    ],
)  # fmt: skip
def test_a_database_that_is_half_of_another_layout_is_named_and_stays_as_it_is(
    facestream: Callable[..., Ended],
    postgres: PostgresServer,
    postgres_url: str,
    broken: str,
    checked: str,
    upgraded: str,
) -> None:
    option = ["--gallery", postgres_url]
    assert facestream("database", "upgrade", *option).code == 0
    remember(postgres_url, 1)
    postgres.execute(*broken.split("; "), database="test")
    looked = facestream("database", "check", *option)
    assert (looked.code, checked in looked.stderr) == (1, True)
    tried = facestream("database", "upgrade", *option)
    if upgraded:
        assert upgraded in tried.only_error(1)
    assert facestream("database", "check", *option).stderr == looked.stderr
    assert postgres.execute("SELECT count(*) FROM facestream.sightings", database="test") == [(1,)]


def test_what_has_expired_goes_without_a_worker(facestream: Callable[..., Ended], where: str) -> None:
    if "://" in where:
        assert facestream("database", "upgrade", "--gallery", where).code == 0
    remember(where, 1, keep_s=100 * DAY_S)
    with History.open(place_of(where)) as past:
        past.write([sighting(2)], keep_s=-1, remember_s=DAY_S)
    done = facestream("database", "expire", "--gallery", where, "--json")
    assert done.code == 0
    # Opening a file removes what has expired, too.
    assert done.documents[0]["removed"] == ("://" in where)
    assert remembered(where) == ["door_1"]
    assert datetime.now(UTC) - timedelta(days=1) > sighting(1).started_at


def test_what_is_set_in_the_database_expires_without_a_worker(facestream: Callable[..., Ended], where: str) -> None:
    if "://" in where:
        assert facestream("database", "upgrade", "--gallery", where).code == 0
    remember(where, 1, keep_s=100 * DAY_S)
    with History.open(place_of(where)) as past:
        past.keep(Retention(sightings_days=1e-9))
    done = facestream("database", "expire", "--gallery", where, "--json")
    # Opening a file removes what has expired, too.
    assert done.documents[0]["removed"] == ("://" in where)
    assert remembered(where) == []


def test_a_file_that_is_no_backup_changes_nothing(facestream: Callable[..., Ended], where: str, tmp_path: Path) -> None:
    if "://" in where:
        assert facestream("database", "upgrade", "--gallery", where).code == 0
    remember(where, 1)
    (tmp_path / "torn").write_bytes(b"no backup" * 1000)
    connection = sqlite3.connect(tmp_path / "theirs")
    connection.execute("CREATE TABLE theirs (a int)")
    connection.close()
    for wrong in ("torn", "theirs", "nothing"):
        facestream("database", "restore", tmp_path / wrong, "--gallery", where, "--replace").only_error(1)
    assert remembered(where) == ["door_1"]


def test_a_command_without_a_database_says_what_is_missing(facestream: Callable[..., Ended], tmp_path: Path) -> None:
    assert "--gallery" in facestream("database", "check").only_error(2)
    assert "no history in" in facestream("database", "check", "--gallery", tmp_path / "none").only_error(1)
    (tmp_path / "people.state").mkdir()
    (tmp_path / "people.state" / FILE).write_bytes(b"no database, but long enough to be looked at" * 100)
    assert "damaged" in facestream("database", "check", "--gallery", tmp_path / "people").only_error(1)
