"""Minutes of faults of the database, one after another, while two workers go on: nothing is lost, no camera waits."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import accepted
from tests.fault.fleet import Fleet
from tests.fault.proxy import FaultProxy
from tests.support.command_line import RETAIL, facestream
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.redis_servers import RedisServer
from tests.support.rtsp import require_rtsp
from tests.support.waiting import eventually
from worker.errors import GalleryError
from worker.gallery.contents import NewSample
from worker.gallery.database.gallery import DatabaseGallery
from worker.types import Event

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

FAULT_S = 15.0
FAULTLESS_S = 30.0
HEALED_WITHIN_S = 600.0
LOOK_EVERY_S = 0.5
STRANGERS = 4
CONNECTIONS = 40


class Site:
    """A server, its standby, and a proxy before each, by which alone the workers reach them."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer, proxies: list[FaultProxy]) -> None:
        self.current = primary
        self._standby = standby
        self._proxies = proxies
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        self.url = f"postgresql://postgres@{hosts}/site?target_session_attrs=read-write&gallery=site"

    @property
    def cuts(self) -> int:
        return sum(proxy.cuts for proxy in self._proxies)

    @contextmanager
    def cut(self) -> Iterator[None]:
        for proxy in self._proxies:
            proxy.cut_one_in = 4
        yield
        for proxy in self._proxies:
            proxy.cut_one_in = 0

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.current.stop(signal.SIGKILL)
        yield
        self.current.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        assert self.current.process is not None
        stopped = [*self.current.pids("site"), self.current.process.pid]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        reload = "SELECT pg_reload_conf()"
        self.current.execute("ALTER SYSTEM SET default_transaction_read_only = on", reload)
        yield
        self.current.execute("SET default_transaction_read_only = off",
                             "ALTER SYSTEM RESET default_transaction_read_only", reload)  # fmt: skip

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """Others take every connection that they can get, and those of the workers are ended."""
        with ExitStack() as held:
            for pid in self.current.pids("site"):
                self.current.execute(f"SELECT pg_terminate_backend({pid})")
            for _ in range(CONNECTIONS):
                with suppress(psycopg.OperationalError):
                    held.enter_context(psycopg.connect(self.current.url()))
            yield

    @contextmanager
    def failed_over(self) -> Iterator[None]:
        """The primary dies for good. What was acknowledged is on the standby: until then it was asked first."""
        self.current.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        eventually(lambda: self.current.execute(state) == [("sync",)])
        time.sleep(FAULT_S / 3)
        self.current.stop(signal.SIGKILL)
        self.current = self._standby
        self.current.execute("SELECT pg_promote()")
        yield

    @contextmanager
    def full(self) -> Iterator[None]:
        """The disk of the table of sightings is full. Only root may make a small one."""
        if os.getuid() != 0:
            yield
            return
        folder = self.current.folder / "small"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
        try:
            shutil.chown(folder, "nobody")
            self.current.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            self.current.execute("ALTER TABLE facestream.sightings SET TABLESPACE small",
                                 "CREATE TABLE filler (text text) TABLESPACE small", database="site")  # fmt: skip
            more = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, {})"
            for rows in (10_000, 100):
                with suppress(psycopg.Error):
                    while True:
                        self.current.execute(more.format(rows), database="site")
            yield
            self.current.execute("DROP TABLE filler", "CHECKPOINT",
                                 "ALTER TABLE facestream.sightings SET TABLESPACE pg_default",
                                 database="site")  # fmt: skip
            self.current.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
            folder.rmdir()


@pytest.fixture
def cameras(tmp_path: Path, test_data: Path) -> Iterator[Cameras]:
    """Four cameras that show two people who are enrolled and four who are not, again and again.

    With this seed no two of them resemble each other: 0.14 at most, while the model takes two for one from 0.32 on.
    """
    require_rtsp()
    found = Cameras(
        tmp_path / "cameras", test_data / "lfw_dev", 4, people=2, strangers=STRANGERS, visit_s=(5.0, 7.0), seed=9
    )
    found.start()
    yield found
    found.stop()


@pytest.fixture
def site() -> Iterator[Site]:
    with running_postgres("fsync=on", f"max_connections={CONNECTIONS}") as primary, ExitStack() as stack:
        primary.new_database("site")
        standby = PostgresServer("fsync=on", f"max_connections={CONNECTIONS}", primary=primary)
        stack.callback(standby.remove)
        standby.start()
        proxies = [stack.enter_context(closing(FaultProxy(server.port, seed=1))) for server in (primary, standby)]
        yield Site(primary, standby, proxies)


@pytest.mark.timeout(7200)
def test_two_workers_go_on_through_minutes_of_faults_and_nothing_is_lost(
    cameras: Cameras,
    site: Site,
    redis_server: RedisServer,
    test_data: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    tell: Callable[[str], None],
) -> None:
    minutes = float(pytestconfig.getoption("--minutes"))
    assert facestream("database", "upgrade", "--gallery", site.url).code == 0
    enrolled = facestream("enroll", "--gallery", site.url, "--model", RETAIL, "--models-dir", test_data / "models",
                          cameras.truth.enroll_folder)  # fmt: skip
    assert enrolled.code == 0, enrolled
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=site.url, models_dir=test_data / "models")
    for camera_id in cameras.ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))

    entries: list[tuple[str, Event]] = []

    def ended() -> dict[str, tuple[str, str]]:
        """Of the sightings that are over: whom the last event about each names. Only what is new is read, so that it
        takes no longer after half an hour."""
        entries.extend(fleet.events(entries[-1][0] if entries else ""))
        events = [event for event in accepted(entries) if event.ended_at is not None]
        return {event.sighting_id: (event.identity_id, event.unknown_id) for event in events}

    def stored() -> dict[str, tuple[str, str]]:
        query = "SELECT sighting_id, identity_id, unknown_id FROM facestream.sightings"
        return {row[0]: (row[1], row[2]) for row in site.current.execute(query, database="site")}

    def all_stored() -> bool:
        told = ended()
        return told.items() <= stored().items()

    def frames() -> tuple[float, float]:
        # A worker that has no time answers late, and counts when it answers.
        read = fleet.read_by_all()
        return time.monotonic(), read

    def rate(since: tuple[float, float], until: tuple[float, float]) -> float:
        return (until[1] - since[1]) / (until[0] - since[0])

    enrolling = Enrolling(site.url)
    rates: list[float] = []
    healed_s: dict[str, list[float]] = {}
    chance = random.Random(1)
    with fleet.running(), enrolling:
        fleet.wait_until(fleet.balanced, 120, "each worker has its share of the cameras")
        fleet.wait_until(lambda: len(ended()) > 0 and all_stored(), 240, "a first sighting is stored")
        faultless = frames()
        time.sleep(FAULTLESS_S)
        begun = frames()
        deadline_s = begun[0] + 60 * minutes
        first = [site.cut, site.killed, site.paused, site.read_only, site.crowded]
        faults = [*first, site.failed_over, site.full]
        while faults or time.monotonic() < deadline_s:
            fault = faults.pop(0) if faults else chance.choice([*first, site.full])
            since = frames()
            with fault():
                time.sleep(FAULT_S)
            rates.append(rate(since, frames()))
            took_s = fleet.wait_until(
                all_stored, HEALED_WITHIN_S, f"after {fault.__name__}: all sightings are stored", every_s=LOOK_EVERY_S
            )
            healed_s.setdefault(fault.__name__, []).append(took_s)
        over = frames()
        fleet.wait_until(all_stored, HEALED_WITHIN_S, "the last sightings are stored", every_s=LOOK_EVERY_S)
        told = ended()
        for worker in fleet.workers:
            assert worker.stop(60) == 0, worker.tail()
    held = {person.name: len(person.samples) for person in DatabaseGallery.open(site.url).people()}
    assert {name: held.get(name) for name in enrolling.acknowledged} == dict.fromkeys(enrolling.acknowledged, 2)
    assert set(held.values()) <= {1, 2}
    ids = {unknown_id for _, unknown_id in told.values() if unknown_id}
    assert len(ids) == STRANGERS
    faults_made = ", ".join(f"{len(times)} {name}" for name, times in healed_s.items())
    tell(f"{(over[0] - begun[0]) / 60:.1f} minutes of faults ({faults_made}; {site.cuts} replies cut): all {len(told)} "
         f"sightings stored as they were told; {enrolling.tried} enrolments tried, {len(enrolling.acknowledged)} "
         f"acknowledged and all there, no half person; {STRANGERS} strangers had {len(ids)} ids")  # fmt: skip
    tell(f"4 cameras read {rate(begun, over):.1f} frames/s of {4 * cameras.fps:.1f}, {rate(faultless, begun):.1f} "
         f"before the first fault and {min(rates):.1f} at least during one; everything was stored again within (s) "
         + ", ".join(f"{name} {max(times):.0f}" for name, times in healed_s.items()))  # fmt: skip


class Enrolling(threading.Thread):
    """Enrols somebody twice a second, with two samples, whatever happens."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.acknowledged: set[str] = set()
        self.tried = 0
        self._url = url
        self._over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        gallery = DatabaseGallery.open(self._url)
        rng = np.random.default_rng(0)
        while not self._over.wait(0.5):
            name = f"person {self.tried}"
            self.tried += 1
            vectors = rng.normal(size=(2, 256)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            samples = [NewSample(name, vector, name, f"{name} {row}") for row, vector in enumerate(vectors)]
            with suppress(GalleryError):
                gallery.add(samples)
                self.acknowledged.add(name)
