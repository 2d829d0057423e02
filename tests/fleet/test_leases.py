"""The rules of leases, one by one, on a real Redis whose clock the tests move."""

from collections.abc import Callable

import pytest
import redis

from tests.support.fleet_clock import FleetClock
from worker.config import CameraConfig, FleetConfig
from worker.fleet.leases import Beat, Lease, Leases
from worker.fleet.registry import CameraRegistry, Definition

LEASE_S = 3.0
BEAT_S = 1.0
CONFIG = FleetConfig(lease_s=LEASE_S)


class Worker:
    """Takes what it is given, and believes what it is told."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.leases = Leases(client, CONFIG, name)
        self.held: dict[str, Lease] = {}

    def beat(
        self, *, most: int = 32, at_once: int = 32, weight: int | None = None, take_over: bool = True, refused: str = ""
    ) -> Beat:
        beat = self.leases.beat(
            list(self.held.values()), max_cameras=most, most_claims=at_once, weight=weight, take_over=take_over,
            refused=[refused] if refused else [],
        )  # fmt: skip
        for claim in beat.claimed:
            self.held[claim.camera_id] = Lease(claim.camera_id, claim.epoch, claim.revision)
        for camera_id in beat.lost:
            del self.held[camera_id]
        return beat

    def release(self, *camera_ids: str) -> None:
        self.leases.release({camera_id: self.held.pop(camera_id).epoch for camera_id in camera_ids})

    def give(self, count: int) -> None:
        self.release(*list(self.held)[:count])


@pytest.fixture
def registry(client: redis.Redis, clock: FleetClock) -> CameraRegistry:
    return CameraRegistry(client, CONFIG)


@pytest.fixture
def worker(client: redis.Redis, clock: FleetClock) -> Callable[[str], Worker]:
    return lambda name: Worker(client, name)


def add(registry: CameraRegistry, clock: FleetClock, count: int) -> None:
    """Cameras c0, c1, ... in a fleet that is past its first moments."""
    for number in range(count):
        registry.add(camera(f"c{number}"))
    clock.advance(LEASE_S)


def camera(camera_id: str, path: str = "") -> CameraConfig:
    return CameraConfig(id=camera_id, source=f"rtsp://cameras/{path or camera_id}")


def live(clock: FleetClock, *workers: Worker, beats: int = 12) -> None:
    """Time in which these workers beat and do as they are told."""
    for _ in range(beats):
        clock.advance(BEAT_S)
        for each in workers:
            each.give(each.beat().surplus)


def test_a_worker_is_given_cameras_with_their_definitions(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    beat = worker("a").beat()
    assert {(claim.camera_id, claim.epoch) for claim in beat.claimed} == {("c0", clock.wall_ms), ("c1", clock.wall_ms)}
    assert all("rtsp://cameras/c" in claim.document for claim in beat.claimed)
    assert (beat.cameras, beat.unowned, beat.workers) == (2, 0, 1)


def test_in_a_new_redis_nothing_is_claimed_until_owners_had_time_to_speak(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    registry.add(camera("c0"))
    a = worker("a")
    clock.advance(LEASE_S - 0.1)
    assert a.beat().claimed == ()
    clock.advance(0.1)
    assert len(a.beat().claimed) == 1


def test_renewal_keeps_the_camera_and_its_epoch(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b = worker("a"), worker("b")
    a.beat()
    epoch = a.held["c0"].epoch
    for _ in range(10):
        clock.advance(BEAT_S)
        assert a.beat().lost == ()
        assert b.beat().claimed == ()
    assert a.held["c0"].epoch == epoch


def test_the_cameras_of_a_dead_worker_are_taken_over_with_a_higher_epoch_and_it_learns_of_it(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    a.beat()
    b.beat(most=0)
    before = {camera_id: lease.epoch for camera_id, lease in a.held.items()}
    taken = []
    for _ in range(3):
        clock.advance(BEAT_S)
        taken.append(len(b.beat().claimed))
    assert taken == [0, 0, 2]
    assert all(b.held[camera_id].epoch > epoch for camera_id, epoch in before.items())
    assert sorted(a.beat().lost) == ["c0", "c1"]


def test_who_was_silent_beyond_the_lease_goes_on_where_nobody_took_over(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a = worker("a")
    a.beat()
    clock.advance(10 * LEASE_S)
    beat = a.beat()
    assert (beat.lost, beat.claimed, beat.unowned) == ((), (), 0)


def test_an_epoch_rises_even_where_the_clock_stands_still(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a = worker("a")
    epochs = []
    for _ in range(3):
        a.beat()
        epochs.append(a.held["c0"].epoch)
        a.release("c0")
    assert epochs == [clock.wall_ms, clock.wall_ms + 1, clock.wall_ms + 2]


def test_what_is_handed_back_is_claimed_at_once(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    a.beat()
    assert b.beat().claimed == ()
    a.leases.leave({camera_id: lease.epoch for camera_id, lease in a.held.items()})
    beat = b.beat()
    assert (len(beat.claimed), beat.workers) == (2, 1)


def test_who_was_superseded_hands_nothing_back(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b = worker("a"), worker("b")
    a.beat()
    live(clock, b, beats=4)
    a.release("c0")
    assert registry.cameras()[0].owner == "b"
    assert worker("c").beat().claimed == ()


def test_after_an_outage_of_redis_nobody_takes_over_until_a_lease_later(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    b.beat(most=1)
    a.beat(most=1)
    clock.advance(60)
    registry.add(camera("new"))
    first = b.beat()
    assert [claim.camera_id for claim in first.claimed] == ["new"], "what nobody owned may be claimed at once"
    clock.advance(LEASE_S - 0.1)
    assert b.beat().claimed == ()
    beat = a.beat()
    assert (beat.lost, len(a.held)) == ((), 1)


def test_after_an_outage_the_cameras_of_who_died_in_it_are_taken_over(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    b.beat(most=1)
    a.beat(most=1)
    clock.advance(60)
    live(clock, b, beats=5)
    assert len(b.held) == 2


def test_an_outage_shorter_than_a_lease_costs_nobody_a_camera(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    a.beat(most=1)
    clock.advance(0.9)
    b.beat(most=1)
    clock.advance(2.2)  # a's lease ended 0.1 s ago, while Redis was away
    assert b.beat().claimed == ()
    assert a.beat().lost == ()


def test_who_was_cut_off_itself_takes_nothing_over(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b, c = worker("a"), worker("b"), worker("c")
    a.beat()
    for _ in range(4):
        clock.advance(BEAT_S)
        c.beat(most=0)
    assert b.beat(take_over=False).claimed == ()
    assert len(b.beat().claimed) == 1


def test_a_redis_that_came_back_empty_is_told_who_owns_what_before_others_may_claim(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a, b = worker("a"), worker("b")
    a.beat()
    epochs = {camera_id: lease.epoch for camera_id, lease in a.held.items()}
    known = [row.definition for row in registry.cameras()]
    client.flushall()
    clock.keep()
    registry.seed(known)
    assert b.beat().claimed == ()
    beat = a.beat()
    assert (beat.lost, beat.changed, beat.unknown) == ((), (), ())
    assert {camera_id: lease.epoch for camera_id, lease in a.held.items()} == epochs
    assert {row.definition.camera_id: row.epoch for row in registry.cameras()} == epochs


def test_cameras_that_an_emptied_redis_does_not_know_are_kept(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    a = worker("a")
    before = a.beat().incarnation
    client.flushall()
    clock.keep()
    beat = a.beat()
    assert (beat.lost, beat.changed, sorted(beat.unknown)) == ((), (), ["c0", "c1"])
    assert beat.incarnation != before


def test_in_an_emptied_redis_the_higher_epoch_is_right(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    stale, owner = worker("stale"), worker("owner")
    stale.beat()
    live(clock, owner, beats=4)
    client.flushall()
    clock.keep()
    stale.beat()
    assert owner.beat().lost == ()
    assert stale.beat().lost == ("c0",)


def test_a_redis_that_lost_the_last_writes_does_not_unmake_an_owner(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b = worker("a"), worker("b")
    a.beat()
    replica = {key: client.dump(key) for key in client.scan_iter()}
    live(clock, b, beats=4)
    for key, value in replica.items():
        client.restore(key, 0, value, replace=True)  # type: ignore[arg-type]
    clock.keep()
    assert b.beat().lost == ()
    assert a.beat().lost == ("c0",)


def test_a_clock_that_is_set_back_prolongs_no_lease(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b = worker("a"), worker("b")
    a.beat()
    clock.step(-3600)
    live(clock, b, beats=4)
    assert list(b.held) == ["c0"]
    assert b.held["c0"].epoch == a.held["c0"].epoch + 1


def test_a_clock_that_is_set_forward_ends_no_lease(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a, b = worker("a"), worker("b")
    a.beat()
    clock.step(3600)
    assert b.beat().claimed == ()
    assert a.beat().lost == ()


@pytest.mark.parametrize(("cameras", "workers"), [(12, 4), (7, 3), (1, 3), (20, 1), (30, 7)])
def test_workers_that_come_get_their_share_and_then_nothing_moves(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker], cameras: int, workers: int
) -> None:
    add(registry, clock, cameras)
    fleet = [worker(f"w{number}") for number in range(workers)]
    for count in range(1, workers + 1):
        live(clock, *fleet[:count], beats=15)
    held = [len(each.held) for each in fleet]
    assert sum(held) == cameras
    assert max(held) - min(held) <= 2
    assert min(held) > cameras / workers - 1
    epochs = [each.held.copy() for each in fleet]
    live(clock, *fleet, beats=10)
    assert [each.held for each in fleet] == epochs


def test_who_has_far_too_many_fills_up_those_who_lack_less_than_one(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 15)
    full = worker("full")
    live(clock, full)
    assert len(full.held) == 15
    fleet = [full, *(worker(f"w{number}") for number in range(8))]
    live(clock, *fleet, beats=20)
    # Fair are 1.67 for each: once everybody has one, nobody lacks a whole camera, and "full" would keep 7.
    assert len(full.held) <= 4
    assert sum(len(each.held) for each in fleet) == 15


def test_a_newcomer_gets_cameras_only_as_fast_as_it_takes_them(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 20)
    old = [worker(f"w{number}") for number in range(4)]
    live(clock, *old)
    new = worker("new")
    new.beat(at_once=1)
    assert sum(each.beat().surplus for each in old) == 1, "one is on its way, and more it would not take"


def test_shares_follow_what_workers_can_carry(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 12)
    strong, weak = worker("strong"), worker("weak")
    for _ in range(10):
        clock.advance(BEAT_S)
        strong.give(strong.beat(weight=20).surplus)
        weak.give(weak.beat(weight=10).surplus)
    assert (len(strong.held), len(weak.held)) == (8, 4)


def test_a_worker_that_does_not_know_what_it_can_carry_counts_as_the_average(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 12)
    known, new = worker("known"), worker("new")
    for _ in range(10):
        clock.advance(BEAT_S)
        known.give(known.beat(weight=7).surplus)
        new.give(new.beat(weight=None).surplus)
    assert (len(known.held), len(new.held)) == (6, 6)


def test_nobody_holds_more_than_its_limit(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 10)
    a, b = worker("a"), worker("b")
    for _ in range(12):
        clock.advance(BEAT_S)
        a.beat(most=3)
        beat = b.beat(most=4)
    assert (len(a.held), len(b.held), beat.unowned) == (3, 4, 3)


def test_what_nobody_else_takes_is_claimed_beyond_the_share_and_stays(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 10)
    small, large = worker("small"), worker("large")
    for _ in range(12):
        clock.advance(BEAT_S)
        assert small.beat(most=2).surplus == 0
        assert large.beat(most=32).surplus == 0
    assert (len(small.held), len(large.held)) == (2, 8)


def test_who_lacks_a_camera_goes_before_who_rounds_its_share_up(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 8)
    rich, even, poor = worker("rich"), worker("even"), worker("poor")
    rich.beat(at_once=4)
    even.beat(at_once=2)
    poor.beat(at_once=1)
    assert even.beat().claimed == ()
    assert len(poor.beat().claimed) == 1


def test_before_that_it_waits_for_those_who_have_room(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 4)
    a, slow = worker("a"), worker("slow")
    a.beat(at_once=0)
    slow.beat(at_once=0)
    claimed = []
    for _ in range(4):
        claimed.append(len(a.beat().claimed))
        slow.beat(at_once=0)
        clock.advance(BEAT_S)
    assert claimed == [2, 0, 0, 2]


def test_refused_cameras_go_to_others(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 2)
    assert [claim.camera_id for claim in worker("a").beat(refused="c0").claimed] == ["c1"]


def test_owners_are_told_of_changes_to_their_cameras_until_they_know_them(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 4)
    a = worker("a")
    a.beat()
    registry.remove("c0")
    registry.pause("c1")
    registry.add(camera("c2", "elsewhere"))
    for _ in range(2):
        changed = {change.camera_id: change for change in a.beat().changed}
        assert set(changed) == {"c0", "c1", "c2"}
        assert changed["c0"].document is None
        assert (changed["c1"].paused, changed["c2"].paused) == (True, False)
        assert "elsewhere" in (changed["c2"].document or "")


def test_nobody_claims_what_is_paused_or_removed(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 4)
    a, b = worker("a"), worker("b")
    a.beat(most=2)
    held, free = sorted(a.held), sorted({"c0", "c1", "c2", "c3"} - set(a.held))
    registry.pause(free[0])
    registry.remove(free[1])
    registry.pause(held[0])
    registry.remove(held[1])
    live(clock, b, beats=5)
    assert b.held == {}
    assert b.beat().unowned == 0
    registry.resume(held[0])
    registry.resume(free[0])
    b.beat()
    assert sorted(b.held) == sorted([held[0], free[0]])


def test_a_paused_camera_that_is_handed_back_is_not_offered(
    registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    add(registry, clock, 1)
    a = worker("a")
    a.beat()
    registry.pause("c0")
    a.release("c0")
    beat = a.beat()
    assert (beat.claimed, beat.unowned, beat.cameras) == ((), 0, 0)


def test_a_beat_costs_the_same_in_a_small_and_in_a_large_fleet(
    client: redis.Redis, registry: CameraRegistry, clock: FleetClock, worker: Callable[[str], Worker]
) -> None:
    def commands_so_far() -> int:
        return sum(row["calls"] for row in client.info("commandstats").values())

    def commands_of_a_beat(cameras: int) -> int:
        registry.seed(
            Definition(f"c{number}", 1, False, '{"id":"c","source":"rtsp://cameras/c"}') for number in range(cameras)
        )
        fleet.extend(worker(f"w{number}") for number in range(len(fleet), cameras // 10))
        for _ in range(6):
            clock.advance(BEAT_S)
            for each in fleet:
                each.beat(most=10)
        before = commands_so_far()
        fleet[0].beat(most=10)
        return commands_so_far() - before

    fleet: list[Worker] = []
    small, large = commands_of_a_beat(20), commands_of_a_beat(600)
    assert len(fleet[0].held) == 10
    assert small == large
