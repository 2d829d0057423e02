"""Workers of a fleet in any order of events: Hypothesis looks for one in which two of them own a camera."""

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.fleet_clock import FleetClock, use_clock
from tests.support.wire import Wire
from worker.config import CameraConfig, Config, FleetConfig
from worker.fleet.assignment import Assignment
from worker.fleet.registry import CameraRegistry, decode_camera
from worker.observer import Observer
from worker.redis.keys import fleet_key

LEASE_S = 3.0
BEAT_S = 1.0
MOST = 4
FLEET = FleetConfig(lease_s=LEASE_S, max_cameras=MOST)
CAMERAS = [f"c{number}" for number in range(8)]
NAMES = ["a", "b", "c", "d"]


class Worker:
    """An assignment that beats when it is told to."""

    def __init__(self, client: redis.Redis, name: str, machine: "Fleet") -> None:
        self.wire = Wire(client)
        self.machine = machine
        self.frozen = False
        self.reading: dict[str, int] = {}
        self.stopping: set[str] = set()
        self.renewed_s = float("-inf")
        config = Config(worker_id=name, fleet=FLEET)
        self.assignment = Assignment(
            self.wire, config, Observer(), self.load, self.gained, self.lost,  # type: ignore[arg-type]
        )  # fmt: skip

    def load(self) -> float:
        return min(1.0, 0.2 * len(self.reading))

    def gained(self, camera: CameraConfig, epoch: int) -> None:
        assert camera.id not in self.reading
        assert epoch > self.machine.last_epoch.get(camera.id, 0), "an epoch never comes twice"
        self.machine.last_epoch[camera.id] = epoch
        self.machine.gains += 1
        self.reading[camera.id] = epoch

    def lost(self, camera_id: str, reason: str) -> None:
        del self.reading[camera_id]
        if reason != "superseded":
            self.stopping.add(camera_id)

    def beat(self) -> None:
        if self.frozen:
            return
        self.assignment.beat()
        if self.assignment.error:
            return
        self.renewed_s = self.machine.clock.monotonic()
        records = self.machine.records()
        for camera_id, epoch in self.assignment.owned.items():
            owner = (epoch, self.assignment.worker)
            assert records[camera_id] == owner, "after its beat, a worker knows what is not its own any more"

    def finish_stops(self) -> None:
        for camera_id in self.stopping:
            self.assignment.release(camera_id)
        self.stopping.clear()


class Fleet(RuleBasedStateMachine):
    client: redis.Redis
    monkeypatch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.clock: FleetClock = use_clock(self.monkeypatch, self.client)
        self.registry = CameraRegistry(self.client, FLEET)
        self.workers: dict[str, Worker] = {}
        self.cameras: dict[str, tuple[str, bool]] = {}
        self.last_epoch: dict[str, int] = {}
        self.gains = 0
        self.set_back = self.emptied = False
        self.only_in_copies = False

    @initialize(workers=st.integers(1, len(NAMES)), cameras=st.integers(1, len(CAMERAS)))
    def begin(self, workers: int, cameras: int) -> None:
        for camera_id in CAMERAS[:cameras]:
            self.add(camera_id, "x")
        for name in NAMES[:workers]:
            self.join(name)
        self.clock.advance(LEASE_S)
        self.live(NAMES, 6)

    @rule(name=st.sampled_from(NAMES))
    def join(self, name: str) -> None:
        if name not in self.workers:
            self.workers[name] = Worker(self.client, name, self)

    @rule(name=st.sampled_from(NAMES))
    def kill(self, name: str) -> None:
        if not self.only_in_copies:
            self.workers.pop(name, None)

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker and not worker.frozen and not self.only_in_copies:
            worker.assignment.close()
            del self.workers[name]

    @rule(name=st.sampled_from(NAMES), trouble=st.sampled_from(["freeze", "cut", "lose a reply", "none"]))
    def trouble(self, name: str, trouble: str) -> None:
        if worker := self.workers.get(name):
            worker.frozen = trouble == "freeze"
            worker.wire.cut = trouble == "cut"
            worker.wire.lose_reply = trouble == "lose a reply"

    @rule(name=st.sampled_from(NAMES), stops=st.booleans())
    def beat_out_of_turn(self, name: str, stops: bool) -> None:
        if worker := self.workers.get(name):
            if stops:
                worker.finish_stops()
            worker.beat()

    @rule(order=st.permutations(NAMES), beats=st.integers(1, 5))
    def live(self, order: list[str], beats: int) -> None:
        for _ in range(beats):
            self.clock.advance(BEAT_S)
            for worker in [self.workers[name] for name in order if name in self.workers]:
                worker.finish_stops()
                worker.beat()

    @rule(name=st.sampled_from(NAMES), beats=st.integers(1, 6))
    def live_without(self, name: str, beats: int) -> None:
        if worker := self.workers.get(name):
            worker.frozen = True
            self.live(NAMES, beats)
            worker.frozen = False

    @rule(seconds=st.floats(0.1, 3 * LEASE_S))
    def redis_is_away(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(hours=st.sampled_from([-1, 1]))
    def clock_is_set(self, hours: int) -> None:
        # An epoch that only Redis knew rises again with the clock alone, where nobody sets that back.
        if hours < 0 and self.emptied:
            return
        self.set_back = self.set_back or hours < 0
        self.clock.step(3600 * hours)

    @precondition(lambda self: not self.set_back and self.cameras)
    @rule()
    def redis_comes_back_empty(self) -> None:
        if any(not worker.frozen and not worker.wire.cut for worker in self.workers.values()):
            self.live(NAMES, 2)
            self.client.flushall()
            self.clock.advance(0.5)
            self.clock.keep()
            self.emptied = self.only_in_copies = True

    @rule(camera_id=st.sampled_from(CAMERAS), path=st.sampled_from("xy"))
    def add(self, camera_id: str, path: str) -> None:
        source = f"rtsp://cameras/{path}"
        self.registry.add(CameraConfig(id=camera_id, source=source))
        paused = self.cameras.get(camera_id, ("", False))[1]
        # To a Redis that does not know the camera yet, it is new.
        self.cameras[camera_id] = (source, paused and not self.only_in_copies)

    @precondition(lambda self: not self.only_in_copies)
    @rule(camera_id=st.sampled_from(CAMERAS), change=st.sampled_from(["remove", "pause", "resume"]))
    def change(self, camera_id: str, change: str) -> None:
        done = getattr(self.registry, change)(camera_id)
        assert done == (camera_id in self.cameras)
        if done and change == "remove":
            del self.cameras[camera_id]
        elif done:
            self.cameras[camera_id] = (self.cameras[camera_id][0], change == "pause")

    @rule()
    def all_is_well_for_a_while(self) -> None:
        for worker in self.workers.values():
            worker.frozen = worker.wire.cut = worker.wire.lose_reply = False
        self.live(NAMES, 30)
        if self.workers:
            self.only_in_copies = False
        self.everything_is_in_its_place()

    def everything_is_in_its_place(self) -> None:
        rows = {row.definition.camera_id: row for row in self.registry.cameras()}
        assert {
            camera_id: (
                decode_camera(row.definition.document or "", camera_id).source.get_secret_value(),
                row.definition.paused,
            )
            for camera_id, row in rows.items()
        } == self.cameras
        to_read = [camera_id for camera_id, (_, paused) in self.cameras.items() if not paused]
        read = [camera_id for worker in self.workers.values() for camera_id in worker.reading]
        assert len(read) == len(set(read)) == min(len(to_read), MOST * len(self.workers))
        assert set(read) <= set(to_read)
        if len(to_read) <= MOST * len(self.workers):
            self.shares_are_fair(len(to_read))
        before = self.gains
        self.live(NAMES, 6)
        assert self.gains == before, "nothing moves any more"

    def shares_are_fair(self, cameras: int) -> None:
        standings: Any = self.client.hgetall(fleet_key(FLEET.name, "standings"))
        weights = {worker.decode(): int(standing.split()[0]) for worker, standing in standings.items()}
        for worker in self.workers.values():
            share = cameras * weights[worker.assignment.worker] / sum(weights.values())
            assert min(share, MOST) - len(worker.reading) < max(1, share / 10)

    @invariant()
    def a_camera_has_one_owner(self) -> None:
        now_s = self.clock.monotonic()
        sure = [
            camera_id
            for worker in self.workers.values()
            if now_s - worker.renewed_s < LEASE_S
            for camera_id in worker.reading
        ]
        assert len(sure) == len(set(sure))

    @invariant()
    def nothing_falls_between(self) -> None:
        key = {name: fleet_key(FLEET.name, name) for name in ("state", "standings", "workers", "free", "leases")}
        free, leased = set(self.client.zrange(key["free"], 0, -1)), set(self.client.zrange(key["leases"], 0, -1))
        assert not free & leased
        known = {row.definition.camera_id.encode() for row in self.registry.cameras() if not row.definition.paused}
        assert free <= known <= free | leased
        standings = self.client.hgetall(key["standings"])
        assert set(standings) == set(self.client.zrange(key["workers"], 0, -1))
        sums = [sum(column) for column in zip(*(map(int, row.split()) for row in standings.values()), strict=True)]
        told = self.client.hmget(key["state"], "weight", "wanted", "room", "yielding")
        assert [int(value or 0) for value in told] == (sums or [0, 0, 0, 0])

    def teardown(self) -> None:
        self.all_is_well_for_a_while()

    def records(self) -> dict[str, tuple[int, str]]:
        found: Any = self.client.hgetall(fleet_key(FLEET.name, "epochs"))
        split = {camera.decode(): record.decode().partition(" ") for camera, record in found.items()}
        return {camera: (int(epoch), owner) for camera, (epoch, _, owner) in split.items()}


def test_whatever_happens_a_camera_has_one_owner(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    class ThisFleet(Fleet):
        pass

    ThisFleet.client, ThisFleet.monkeypatch = client, monkeypatch
    run_state_machine_as_test(
        ThisFleet,
        settings=settings(
            derandomize=True,
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
