"""Redis breaks in every way that it has; cameras are read on, and every event arrives afterwards."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import missed, overlapping_epochs, sightings_each, told_twice
from tests.fault.fleet import STREAM, Fleet
from tests.fault.proxy import FaultProxy
from tests.support.redis_answers import command, entries_of
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

CAMERAS = 4
WORKERS = 2


@pytest.fixture
def lasting_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that keeps its data over a restart."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.stop()


class Outage:
    """The ways in which Redis fails, each for ``seconds``."""

    def __init__(self, server: RedisServer, proxy: FaultProxy, fleet: Fleet, folder: Path, seconds: float) -> None:
        self._server, self._proxy, self._fleet, self._folder, self._seconds = server, proxy, fleet, folder, seconds

    def killed(self) -> None:
        self._server.stop()
        time.sleep(self._seconds)
        self._server.start()

    def paused(self) -> None:
        assert self._server.process is not None
        self._server.process.send_signal(signal.SIGSTOP)
        time.sleep(self._seconds)
        self._server.process.send_signal(signal.SIGCONT)

    def read_only(self) -> None:
        command(self._fleet.client, "REPLICAOF", "127.0.0.1", "1")
        time.sleep(self._seconds)
        command(self._fleet.client, "REPLICAOF", "NO", "ONE")

    def out_of_memory(self) -> None:
        self._fleet.client.config_set("maxmemory", "1mb")
        time.sleep(self._seconds)
        self._fleet.client.config_set("maxmemory", "0")

    def cut_in_mid_reply(self) -> None:
        self._proxy.cut_one_in = 8
        time.sleep(self._seconds)
        self._proxy.cut_one_in = 0

    def emptied(self) -> None:
        """Restarted without its data; a consumer has taken the events so far, the test too."""
        self._server.stop()
        shutil.rmtree(self._folder / "redis" / "appendonlydir", ignore_errors=True)
        (self._folder / "redis" / "appendonly.aof").unlink(missing_ok=True)
        time.sleep(min(self._seconds, 10))
        self._server.start()


@pytest.mark.timeout(1200)
def test_no_outage_of_redis_stops_a_camera_or_costs_an_event(
    cameras: Cameras,
    gallery: Path,
    lasting_redis: RedisServer,
    test_data: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    tell: Callable[[str], None],
) -> None:
    proxy = FaultProxy(lasting_redis.port)
    fleet = Fleet(
        tmp_path, lasting_redis.url, WORKERS, gallery=gallery, models_dir=test_data / "models",
        worker_redis_url=f"redis://127.0.0.1:{proxy.port}/0",
    )  # fmt: skip
    ids = cameras.ids[:CAMERAS]
    for camera_id in ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))
    outage = Outage(lasting_redis, proxy, fleet, tmp_path, pytestconfig.getoption("--outage-s"))
    entries = []
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "every camera owned, and shared fairly")
        fleet.wait_until_read(ids)
        begun = time.time()
        for fail in (
            outage.killed, outage.paused, outage.read_only, outage.out_of_memory, outage.cut_in_mid_reply,
            outage.emptied,
        ):  # fmt: skip
            before, read_before = fleet.owners(), {camera_id: fleet.read(camera_id) for camera_id in ids}
            if fail == outage.emptied:
                entries += fleet.events()
            failed_at = time.monotonic()
            fail()
            lasted_s = time.monotonic() - failed_at
            read = {camera_id: fleet.read(camera_id) - read_before[camera_id] for camera_id in ids}
            least_fps = min(read.values()) / lasted_s
            # A camera that stopped would give none; how fast it is read is told below, and is the machine's affair.
            assert least_fps > 1.0, (fail.__name__, read)

            def told_again(since: float = time.time()) -> bool:
                return any(
                    int(entry_id.split("-")[0]) >= since * 1000 for entry_id, _ in entries_of(fleet.client, STREAM)
                )

            fleet.wait_until(told_again, 60, f"events after Redis was {fail.__name__}")
            fleet.wait_until(fleet.all_owned, 60, f"every camera owned after Redis was {fail.__name__}")
            # Nobody could renew a lease, so nobody's camera was free to take.
            assert fleet.owners() == before, fail.__name__
            waiting = [worker.metric("facestream_outbox_events") for worker in fleet.workers]
            tell(f"Redis {fail.__name__} for {lasted_s:.0f} s: {least_fps:.1f} frames/s read of {cameras.fps:.1f}, "
                 f"{sum(waiting):.0f} events wait now")  # fmt: skip
        time.sleep(5)
        ended = time.time()
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        entries += fleet.events()
    proxy.close()
    shown = [visit for visit in cameras.shown(begun, ended) if visit.camera_id in ids]
    tell(f"{len(shown)} visits, {sightings_each(shown, entries):.2f} sightings a visit, {len(entries)} entries, "
         f"{len({event.event_id for _, event in entries})} events, {proxy.cuts} replies cut")  # fmt: skip
    assert proxy.cuts > 0
    assert missed(shown, entries) == []
    assert overlapping_epochs(entries) == []
    assert told_twice(entries) == {}
