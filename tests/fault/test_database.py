"""The server of a gallery is killed in mid-enrolment, hands over to a standby, has a full disk; connections are cut."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Self

import pytest

from tests.fault.proxy import FaultProxy
from tests.support.galleries import DIGEST, DIMENSION, MODEL, probe, sample
from tests.support.past import sighting
from tests.support.postgres import PostgresServer, running_postgres, with_tables
from tests.support.waiting import eventually
from worker.database.address import parse_database_url
from worker.database.backup import back_up, restore
from worker.database.database import open_postgres
from worker.errors import GalleryError, GalleryUnavailableError, HistoryError
from worker.gallery.database.gallery import DatabaseGallery
from worker.history.store import History

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_postgres("fsync=on") as running:
        yield running


@pytest.mark.timeout(900)
def test_a_killed_server_loses_no_acknowledged_person_and_leaves_no_half_one(
    server: PostgresServer, pytestconfig: pytest.Config, tell: Callable[[str], None]
) -> None:
    url = with_tables(server.new_database("site"))
    gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    acknowledged: set[str] = set()
    tried = 0
    rounds: int = pytestconfig.getoption("--fault-rounds")
    for round_ in range(rounds):
        begun = threading.Event()
        wanted = len(acknowledged) + 1 + round_ % 5

        def enrol(begun: threading.Event, wanted: int) -> None:
            nonlocal tried
            while True:
                name = f"person {tried}"
                tried += 1
                try:
                    gallery.add([sample(name, 3 * tried + row) for row in range(3)])
                except GalleryError:
                    return
                acknowledged.add(name)
                if len(acknowledged) >= wanted:
                    begun.set()

        writer = threading.Thread(target=enrol, args=(begun, wanted))
        writer.start()
        assert begun.wait(60)
        server.stop(signal.SIGKILL)
        writer.join()
        server.start()
        held = {person.name: len(person.samples) for person in DatabaseGallery.open(url).people()}
        assert acknowledged <= held.keys()
        assert set(held.values()) == {3}
    tell(f"{rounds} kills, {tried} enrolments tried, {len(acknowledged)} acknowledged and all there, no half person")


def test_a_connection_that_is_cut_in_mid_reply_costs_no_enrolment(server: PostgresServer) -> None:
    url = with_tables(server.new_database("site"))
    direct = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    with closing(FaultProxy(server.port, seed=1)) as proxy:
        through = DatabaseGallery.open(url.replace(str(server.port), str(proxy.port)))
        proxy.cut_one_in = 12
        for number in range(20):
            for _ in range(50):
                try:
                    through.add([sample(f"person {number}", number)])
                    break
                except GalleryUnavailableError:
                    continue
        assert proxy.cuts > 0
    direct.reload_if_changed()
    assert {person.name: len(person.samples) for person in direct.people()} == {
        f"person {number}": 1 for number in range(20)
    }
    # The first version is that of the empty gallery: no enrolment made two.
    assert direct.version == 21


def test_a_standby_that_lacks_the_last_change_takes_over_and_that_is_told(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with_tables(server.new_database("site"))
    standby = PostgresServer(primary=server)
    hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
    url = f"postgresql://postgres@{hosts}/site?target_session_attrs=read-write&gallery=site"
    try:
        standby.start()
        gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
        gallery.add([sample("replicated", 1)])
        worker = DatabaseGallery.open(url)
        worker.follow("worker")
        there = f"{standby.url('site')}?gallery=site"
        held = "SELECT count(*) FROM facestream.people"
        eventually(lambda: standby.execute(held, database="site") == [(1,)])
        with pytest.raises(GalleryUnavailableError, match="it is a standby, or read-only: name the primary"):
            DatabaseGallery.open(there).add([sample("nobody", 9)])
        standby.stop()
        gallery.add([sample("lost", 2)])
        eventually(lambda: worker.reload_if_changed() or worker.version == gallery.version)
        assert worker.search(probe(2))[0].identity_name == "lost"
        server.stop(signal.SIGKILL)
        standby.start()
        standby.execute("SELECT pg_promote()")
        eventually(lambda: worker.reload_if_changed() or len(worker) == 1)
        assert [person.name for person in worker.people()] == ["replicated"]
        assert any("the gallery went back" in str(record.msg) for record in caplog.records)
        # The same number of a version, made by another change.
        gallery.add([sample("enrolled later", 3)])
        eventually(lambda: worker.reload_if_changed() or len(worker) == 2)
        for each in (worker, gallery, DatabaseGallery.open(url)):
            assert {person.name for person in each.people()} == {"replicated", "enrolled later"}
        worker.close()
    finally:
        standby.remove()


class Writers:
    """Enrols people with two samples each, and stores sightings, again and again, until the end; ``people`` and
    ``sightings`` are those that were acknowledged, each with the time."""

    def __init__(self, url: str) -> None:
        self.people: dict[str, float] = {}
        self.sightings: dict[str, float] = {}
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=step) for step in (self._enrol, self._remember)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, number: int = 10) -> None:
        people, sightings = len(self.people) + number, len(self.sightings) + number
        eventually(lambda: len(self.people) >= people and len(self.sightings) >= sightings)

    def _enrol(self) -> None:
        gallery = DatabaseGallery.open(self._url)
        for number in count():
            if self._over.is_set():
                return
            with suppress(GalleryError):
                gallery.add([sample(f"person {number}", 2 * number + row) for row in range(2)])
                self.people[f"person {number}"] = time.monotonic()

    def _remember(self) -> None:
        with History.open(self._url) as past:
            for number in count():
                if self._over.is_set():
                    return
                with suppress(HistoryError):
                    past.write([sighting(number)], keep_s=1e6, remember_s=1e6)
                    self.sightings[f"door_{number}"] = time.monotonic()


def people_in(url: str) -> dict[str, int]:
    return {person.name: len(person.samples) for person in DatabaseGallery.open(url).people()}


def sightings_in(url: str) -> set[str]:
    with History.open(url) as past:
        return {found.sighting_id for found in past.sightings()}


def test_a_standby_that_replicates_at_once_lacks_nothing_that_was_acknowledged(
    server: PostgresServer, tell: Callable[[str], None]
) -> None:
    with_tables(server.new_database("site"))
    standby = PostgresServer("fsync=on", primary=server)
    hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
    url = f"postgresql://postgres@{hosts}/site?target_session_attrs=read-write&gallery=site"
    try:
        standby.start()
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        eventually(lambda: server.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
        worker = DatabaseGallery.open(url)
        worker.follow("worker")
        with Writers(url) as writers:
            writers.wait_for_more()
            server.stop(signal.SIGKILL)
            before = len(writers.people) + len(writers.sightings)
            standby.execute("SELECT pg_promote()")
            writers.wait_for_more()
        held = people_in(url)
        assert writers.people.keys() <= held.keys()
        assert set(held.values()) == {2}
        assert writers.sightings.keys() <= sightings_in(url)
        eventually(lambda: worker.reload_if_changed() or {person.name for person in worker.people()} == held.keys())
        worker.close()
        tell(f"{before} enrolments and sightings acknowledged before the fail-over and "
             f"{len(writers.people) + len(writers.sightings) - before} after it: all there")  # fmt: skip
    finally:
        standby.remove()


def test_a_backup_and_a_restore_while_others_write_are_whole(
    server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = with_tables(server.new_database("site"))
    DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    address = parse_database_url(url)
    database = open_postgres(address)
    worker = DatabaseGallery.open(url)
    worker.follow("worker")
    with Writers(url) as writers:
        writers.wait_for_more()
        begun_s = time.monotonic()
        back_up(database, tmp_path / "backup", address)
        writers.wait_for_more()
        restore(database, tmp_path / "backup", address)
        done_s = time.monotonic()
        writers.wait_for_more()
    saved = parse_database_url(server.new_database("copy"))
    restore(open_postgres(saved), tmp_path / "backup", saved)
    kept = [name for name, at_s in writers.people.items() if not begun_s <= at_s <= done_s]
    seen = [name for name, at_s in writers.sightings.items() if not begun_s <= at_s <= done_s]
    held = people_in(url)
    assert set(held.values()) == {2}
    assert held.keys() >= set(kept)
    assert sightings_in(url) >= set(seen)
    of_backup = people_in(server.url("copy"))
    assert set(of_backup.values()) == {2}
    assert of_backup.keys() >= {name for name, at_s in writers.people.items() if at_s < begun_s}
    assert sightings_in(server.url("copy")) >= {name for name, at_s in writers.sightings.items() if at_s < begun_s}
    eventually(lambda: worker.reload_if_changed() or {person.name for person in worker.people()} == held.keys())
    assert any("the gallery went back" in str(record.msg) for record in caplog.records)
    worker.close()


@pytest.fixture
def small_disk(server: PostgresServer) -> Iterator[Path]:
    """A folder of the server on a file system of 12 MB, in memory. Only root may make one."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = server.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True)
    shutil.chown(folder, "nobody")
    yield folder
    server.stop(signal.SIGQUIT)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_of_the_server_is_told_and_loses_nothing(server: PostgresServer, small_disk: Path) -> None:
    url = with_tables(server.new_database("site"))
    server.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    server.execute("ALTER TABLE facestream.samples SET TABLESPACE small", database="site")
    gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    acknowledged: set[str] = set()

    def enrol() -> None:
        for _ in range(60):
            first = 1000 * len(acknowledged)
            name = f"crowd {len(acknowledged)}"
            gallery.add([sample(name, first + row) for row in range(1000)])
            acknowledged.add(name)

    with pytest.raises(GalleryError, match="make room on the disk of the server") as caught:
        enrol()
    assert "\n" not in str(caught.value)
    assert acknowledged
    held = {person.name: len(person.samples) for person in DatabaseGallery.open(url).people()}
    assert held == dict.fromkeys(acknowledged, 1000)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    gallery.add([sample("after", 999_999)])
    assert {person.name for person in DatabaseGallery.open(url).people()} == {*acknowledged, "after"}
