"""One memory for many workers, in a real PostgreSQL: strangers have one id, and nothing is lost while it is away."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from tests.support.past import AXES, MODEL, NOON, sighting, unknown
from tests.support.postgres import PostgresServer, locked_table, running_postgres, with_tables
from tests.support.sample_events import make_event
from tests.support.waiting import eventually
from worker.background import Heartbeats
from worker.config import Config, UnknownsConfig, history_place
from worker.database.address import parse_database_url
from worker.database.backup import back_up, restore
from worker.database.database import open_postgres
from worker.events.codec import encode
from worker.history.fleet_past import FleetPast
from worker.history.recorder import Recorder, open_recorder
from worker.history.records import Account
from worker.history.reuniting import Moved
from worker.history.store import History
from worker.history.waiting import Waiting
from worker.recognition.unknowns import Unknowns, unknown_id_of
from worker.service.metrics import PrometheusObserver

REMEMBER_S = 7 * 86_400.0


@pytest.fixture
def url(postgres_url: str) -> str:
    return with_tables(postgres_url)


@pytest.fixture
def worker(url: str) -> Iterator[Callable[..., Unknowns]]:
    """Makes the unknown people of one more worker, as on another machine."""
    feeds: list[FleetPast] = []

    def make(place: str = url, **options: Any) -> Unknowns:
        feeds.append(FleetPast(place, REMEMBER_S, **({"wait_s": 20.0} | options)))
        return Unknowns(UnknownsConfig(), MODEL, 16, fleet=feeds[-1])

    yield make
    for feed in feeds:
        feed.close()


def identify(unknowns: Unknowns, number: int, template: np.ndarray, **more: Any) -> str:
    return unknowns.identify(f"s{number}", template, 2, NOON, **({"threshold": 0.5} | more))


def test_a_stranger_whom_many_workers_meet_at_once_gets_one_id(url: str, worker: Callable[..., Unknowns]) -> None:
    workers = [worker() for _ in range(6)]
    for person in range(3):
        ids: list[str] = []
        # Nobody looks before all have met the person.
        together = threading.Barrier(len(workers))

        def meet(number: int, who: Unknowns) -> None:
            together.wait(20)  # noqa: B023
            ids.append(identify(who, 10 * person + number, AXES[person]))  # noqa: B023

        threads = [threading.Thread(target=meet, args=each) for each in enumerate(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == len(workers)
        assert len(set(ids)) == 1
    with History.open(url) as past:
        assert len(past.unknowns()[0]) == 3


def test_a_slow_answer_gives_one_id_later(url: str, postgres: PostgresServer, worker: Callable[..., Unknowns]) -> None:
    workers = [worker(wait_s=0.0, patience_s=60.0) for _ in range(3)]
    with locked_table(postgres, "test", "unknowns"):
        assert [identify(who, number, AXES[0]) for number, who in enumerate(workers)] == ["", "", ""]
    for number, who in enumerate(workers):
        eventually(lambda: identify(who, number, AXES[0]) != "")  # noqa: B023
    assert len({identify(who, number, AXES[0]) for number, who in enumerate(workers)}) == 1
    with History.open(url) as past:
        assert len(past.unknowns()[0]) == 1


def test_a_sighting_that_ends_before_the_answer_has_an_id_and_one_that_is_named_leaves_nobody(
    url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    feed = FleetPast(url, REMEMBER_S, wait_s=0.0, patience_s=60.0)
    recorder = Recorder(url, Config(), waiting=Waiting(tmp_path), gather_s=0.01)
    unknowns = Unknowns(UnknownsConfig(), MODEL, 16, recorder=recorder, fleet=feed)
    assert unknowns.conclude("s1", AXES[0], 2, NOON) == ""
    with locked_table(postgres, "test", "unknowns"):
        for number in (1, 2):
            assert identify(unknowns, number, AXES[number]) == ""
        ended = unknowns.conclude("s1", AXES[1], 2, NOON)
        assert ended == unknown_id_of("s1")
        unknowns.retract(unknown_id_of("s2"))
    # Whoever is met afterwards is stored after those.
    eventually(lambda: identify(unknowns, 3, AXES[3]) != "")
    with History.open(url) as past:
        eventually(lambda: {one.unknown_id for one in past.unknowns()[0]} == {ended, unknown_id_of("s3")})
    recorder.close()
    feed.close()


def test_two_strangers_who_stand_side_by_side_are_two(worker: Callable[..., Unknowns]) -> None:
    one, other = worker(), worker()
    first = identify(one, 1, AXES[0])
    assert identify(other, 2, AXES[0], taken={first}) != first
    assert identify(worker(), 3, AXES[1]) != first


def test_what_one_worker_learns_or_forgets_others_know(url: str, worker: Callable[..., Unknowns]) -> None:
    one, other = worker(every_s=0.02), worker(every_s=0.02)
    first = identify(one, 1, AXES[0])
    eventually(lambda: identify(other, 2, AXES[0]) == first)
    with History.open(url) as past:
        past.drop_unknown(first)
    eventually(lambda: identify(other, 3, AXES[0]) != first)


def test_a_database_that_is_away_does_not_hold_up_a_camera() -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        feed = FleetPast(url, REMEMBER_S, wait_s=0.2, pause_s=0.0)
        unknowns = Unknowns(UnknownsConfig(), MODEL, 16, fleet=feed)
        known = identify(unknowns, 1, AXES[0])
        server.stop()
        assert identify(unknowns, 2, AXES[0]) == known
        eventually(lambda: identify(unknowns, 3, AXES[1]) != "")
        alone = identify(unknowns, 3, AXES[1])
        assert alone == unknown_id_of("s3")
        assert identify(unknowns, 4, AXES[1]) == alone
        feed.close()


def test_a_thread_that_hangs_is_noticed(url: str, postgres: PostgresServer) -> None:
    now_s = [0.0]
    heartbeats = Heartbeats(lambda: now_s[0])
    feed = FleetPast(url, REMEMBER_S, every_s=0.02, heartbeats=heartbeats)
    try:
        with locked_table(postgres, "test", "unknowns"):
            now_s[0] += 1000.0
            assert list(heartbeats.failures()) == ["unknowns"]
        eventually(lambda: not heartbeats.failures())
    finally:
        feed.close()


def test_the_past_of_a_gallery_in_a_database_is_in_the_database(url: str, tmp_path: Path) -> None:
    config = Config(gallery=f"{url}?gallery=site", state_dir=tmp_path)
    assert history_place(config) == config.gallery
    first, second = (
        open_recorder(config.model_copy(update={"worker_id": name, "state_dir": tmp_path / name})) for name in "ab"
    )
    assert first is not None
    assert second is not None
    first.sighting(sighting(1))
    second.sighting(sighting(2, camera_id="yard"))
    for recorder in (first, second):
        recorder.rejected("door", NOON, "too_small", tracks=1, faces=3)
        recorder.close()
    with History.open(url) as past:
        assert [found.sighting_id for found in past.sightings()] == ["door_1", "door_2"]
        assert [(tally.tracks, tally.faces) for tally in past.tallies()] == [(2, 6)]


def test_what_could_not_be_written_waits_in_a_file_and_is_written_once(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        registry = CollectorRegistry()
        observer = PrometheusObserver(registry)

        def start(place: Path) -> Recorder:
            return Recorder(url, Config(), observer, waiting=Waiting(place), gather_s=0.01, retry_s=0.2)

        recorder = start(tmp_path / "first")
        recorder.sighting(sighting(1))
        eventually(lambda: count_of(server, "sightings") == 1)
        server.stop()
        recorder.sighting(sighting(2, unknown_id="u-1"))
        recorder.unknown(unknown("u-1"))
        recorder.rejected("door", NOON, "too_small", tracks=1, faces=3)
        eventually(lambda: (tmp_path / "first" / "now").exists())
        assert registry.get_sample_value("facestream_history_degraded") == 1
        recorder.close()
        # A worker that starts while the database is away goes on with the same file.
        recorder = start(tmp_path / "first")
        recorder.sighting(sighting(3))
        recorder.close()
        left = Waiting(tmp_path / "first")
        assert len(left) == 3
        server.start()
        recorder = start(tmp_path / "first")
        eventually(lambda: count_of(server, "sightings") == 3)
        eventually(lambda: not any((tmp_path / "first").iterdir()))
        recorder.close()
        with History.open(url) as past:
            assert [found.sighting_id for found in past.sightings()] == ["door_1", "door_2", "door_3"]
            assert [person.unknown_id for person in past.unknowns()[0]] == ["u-1"]
            assert [(tally.tracks, tally.faces) for tally in past.tallies()] == [(1, 3)]


class Machine:
    """What one worker remembers, on a machine of its own; ``moved``: which sightings it has told to be of whom."""

    def __init__(self, url: str, folder: Path) -> None:
        self.moved: dict[str, str] = {}
        self._url, self._folder = url, folder
        self._feed = FleetPast(url, REMEMBER_S, every_s=0.02, wait_s=20.0, pause_s=0.0)
        self.start_recorder()

    def start_recorder(self) -> None:
        def tell(moved: Moved) -> None:
            self.moved.update((one.sighting_id, unknown_id) for one, unknown_id in moved)

        self.recorder = Recorder(
            self._url, Config(), waiting=Waiting(self._folder), tell=tell, gather_s=0.01, retry_s=0.1
        )  # fmt: skip
        self._unknowns = Unknowns(UnknownsConfig(), MODEL, 16, recorder=self.recorder, fleet=self._feed)

    def meet(self, number: int, template: np.ndarray) -> str:
        eventually(lambda: identify(self._unknowns, number, template) != "")
        return identify(self._unknowns, number, template)

    def end(self, number: int, template: np.ndarray, unknown_id: str, **more: Any) -> None:
        self._unknowns.met(unknown_id, template, 2, NOON, is_new=unknown_id == unknown_id_of(f"s{number}"))
        seen = {"sighting_id": f"s{number}", "unknown_id": unknown_id, "account": Account(threshold=0.5)} | more
        self.recorder.sighting(sighting(number, template, **seen))

    def close(self) -> None:
        self.recorder.close()
        self._feed.close()


def test_a_stranger_whom_two_workers_met_while_the_database_was_away_has_one_id_later(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        one, other = Machine(url, tmp_path / "one"), Machine(url, tmp_path / "other")
        server.stop()
        ids = [(one.meet(person, AXES[person]), other.meet(10 + person, AXES[person])) for person in range(3)]
        assert len({who for both in ids for who in both}) == 6
        for person, (first, second) in enumerate(ids):
            one.end(person, AXES[person], first, camera_id="yard")
            # One is before the camera until the database is back.
            if person:
                other.end(10 + person, AXES[person], second)
        other.end(20, AXES[1], ids[1][1])
        eventually(lambda: all((tmp_path / name / "now").exists() for name in ("one", "other")))
        # A worker that is started again has what it had on its disk.
        other.recorder.close()
        other.start_recorder()
        server.start()
        eventually(lambda: count_of(server, "sightings") == 6)
        other.end(10, AXES[0], ids[0][1])
        eventually(lambda: count_of(server, "sightings") == 7)
        for machine in (one, other):
            machine.close()
        with History.open(url) as past:
            whose = {found.sighting_id: found.unknown_id for found in past.sightings()}
            assert {person.unknown_id for person in past.unknowns()[0]} == set(whose.values())
            for number, person in {0: 0, 1: 1, 2: 2, 10: 0, 11: 1, 12: 2, 20: 1}.items():
                assert whose[f"s{number}"] in ids[person]
            assert len({whose[f"s{number}"] for number in (0, 10)}) == 1
            assert len({whose[f"s{number}"] for number in (1, 11, 20)}) == 1
            assert len(set(whose.values())) == 3
        told = {f"s{number}": ids[person][number >= 10] for number, person in
                {0: 0, 1: 1, 2: 2, 10: 0, 11: 1, 12: 2, 20: 1}.items()}  # fmt: skip
        assert told | one.moved | other.moved == whose
        late = Machine(url, tmp_path / "late")
        assert [late.meet(30 + person, AXES[person]) in ids[person] for person in range(3)] == [True] * 3
        late.close()


def test_a_past_that_went_back_is_taken_up_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        one = Machine(url, tmp_path / "one")
        first = one.meet(1, AXES[1])
        address = parse_database_url(url)
        database = open_postgres(address)
        back_up(database, tmp_path / "backup", address)
        lost = one.meet(2, AXES[2])
        for number in (3, 4, 5):
            one.meet(number, AXES[number])
        restore(database, tmp_path / "backup", address)
        other = Machine(url, tmp_path / "other")
        again, new = other.meet(12, AXES[2]), other.meet(16, AXES[6])
        assert len({first, lost, again, new}) == 4
        assert other.meet(11, AXES[1]) == first
        eventually(lambda: one.meet(26, AXES[6]) == new)
        assert any("went back" in str(record.msg) for record in caplog.records)
        # Whom the backup did not know comes back with the next sighting, as one person.
        one.end(2, AXES[2], lost)
        eventually(lambda: one.moved == {"s2": again})
        for machine in (one, other):
            machine.close()


def test_who_stood_side_by_side_while_the_database_was_away_stay_two(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        machine = Machine(url, tmp_path)
        server.stop()
        # The faces of twins.
        for number, unknown_id in enumerate(("u-1", "u-2")):
            machine.end(number, AXES[0], unknown_id, started_at=NOON)
        # By the camera's threshold, this is somebody else.
        nearly = (0.45 * AXES[0] + (1 - 0.45**2) ** 0.5 * AXES[1]).astype(np.float32)
        machine.end(2, nearly, "u-3", started_at=NOON + timedelta(hours=1), ended_at=NOON + timedelta(hours=1))
        eventually((tmp_path / "now").exists)
        server.start()
        eventually(lambda: count_of(server, "sightings") == 3)
        machine.close()
        assert machine.moved == {}
        with History.open(url) as past:
            assert {person.unknown_id for person in past.unknowns()[0]} == {"u-1", "u-2", "u-3"}


def test_a_sighting_that_went_on_at_a_merge_is_told_to_be_of_the_one_who_is_left(url: str, tmp_path: Path) -> None:
    machine = Machine(url, tmp_path)
    kept, other = machine.meet(1, AXES[0]), machine.meet(2, AXES[1])
    with History.open(url) as past:
        past.merge_unknowns(kept, other)
        machine.end(2, AXES[1], other)
        eventually(lambda: machine.moved == {"s2": kept})
        machine.close()
        assert [found.unknown_id for found in past.sightings()] == [kept]


def test_whom_a_worker_is_told_to_forget_while_the_database_is_away_is_forgotten_later(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        embedder = sighting(1).embedder
        with History.open(url) as past:
            past.write([sighting(1, identity_id="p-1", identity_name="Ann")], keep_s=1e6, remember_s=1e6)
            (seen,) = past.sightings()
            past.deny(seen, unknown_id="u-1")
            assert [example.identity_id for example in past.counter_examples(embedder)] == ["p-1"]

        def start() -> Recorder:
            return Recorder(url, Config(), waiting=Waiting(tmp_path / "waiting"), gather_s=0.01, retry_s=0.2)

        server.stop()
        recorder = start()
        recorder.removed("p-1")
        recorder.close()
        assert len(Waiting(tmp_path / "waiting")) == 1
        server.start()
        # Nothing else comes to be written.
        recorder = start()
        with History.open(url) as past:
            eventually(lambda: not past.counter_examples(embedder))
        eventually(lambda: not any((tmp_path / "waiting").iterdir()))
        recorder.close()


def count_of(server: PostgresServer, table: str) -> int:
    ((count,),) = server.execute(f"SELECT count(*) FROM facestream.{table}", database="site")
    return int(count)


def test_a_batch_that_is_written_again_counts_once(url: str, tmp_path: Path) -> None:
    from worker.history.records import Tally

    with History.open(url) as past:
        for _ in range(2):
            past.write((), (), [Tally("door", NOON, "blurred", 1, 2)], keep_s=60, remember_s=60, batch_id="b-1")
        assert [(tally.tracks, tally.faces) for tally in past.tallies()] == [(1, 2)]


def test_the_file_that_waits_has_a_bound(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, most=3)
    kept = [waiting.keep([sighting(number)], [], [], keep_s=60, remember_s=60) for number in range(5)]
    assert kept == [0, 0, 0, 1, 1]
    assert len(waiting) == len(Waiting(tmp_path)) == 3
    assert NOON + timedelta(minutes=3) == sighting(3).started_at


def test_what_one_worker_is_told_of_a_face_others_hear(url: str) -> None:
    feed = FleetPast(url, REMEMBER_S, every_s=0.02)
    feed.start_over(MODEL)
    assert feed.counter_examples(MODEL) == []
    before = feed.denials_revision()
    with History.open(url) as past:
        named = sighting(1, identity_id="p-1", identity_name="Anna")
        past.write([named], keep_s=60, remember_s=60)
        past.deny(past.sightings()[0])
        eventually(lambda: feed.denials_revision() != before)
        (example,) = feed.counter_examples(MODEL)
        assert (example.identity_id, example.template.tolist()) == ("p-1", AXES[0].tolist())
        past.forget_denials_of("p-1")
        eventually(lambda: feed.counter_examples(MODEL) == [])
    feed.close()


def test_workers_learn_of_a_merge_and_of_its_undoing(url: str, worker: Callable[..., Unknowns]) -> None:
    early = worker()
    with History.open(url) as past:
        past.write(
            [sighting(1, AXES[0], unknown_id="u-1"), sighting(2, AXES[1], unknown_id="u-2")],
            [unknown("u-1"), unknown("u-2", AXES[1])], keep_s=REMEMBER_S, remember_s=REMEMBER_S,
        )  # fmt: skip
        step = past.merge_unknowns("u-1", "u-2")
        late = worker()  # who has missed it

        def now(unknown_id: str, face: np.ndarray | None = None) -> set[str]:
            return {one.known_as(unknown_id, NOON, face) for one in (early, late)}

        eventually(lambda: now("u-2") == {"u-1"})
        assert now("u-1") == {"u-1"}
        past.undo_regrouping(step)
        eventually(lambda: now("u-2") == {"u-2"})
        # One who was taken for the two in one may be either.
        assert (now("u-1", AXES[0]), now("u-1", AXES[1]), now("u-1")) == ({"u-1"}, {"u-2"}, {"u-1"})


def test_two_whom_the_fleet_took_for_one_after_an_outage_are_two_again(url: str, postgres: PostgresServer) -> None:
    turned = (0.8 * AXES[0] + 0.6 * AXES[1]).astype(np.float32)
    moved: dict[str, str] = {}

    def tell(told: Moved) -> None:
        moved.update((one.sighting_id, unknown_id) for one, unknown_id in told)

    def end(past: History, number: int, face: np.ndarray, unknown_id: str) -> None:
        event = encode(make_event(unknown_id=unknown_id))
        seen = sighting(number, face, unknown_id=unknown_id, event=event, account=Account(threshold=0.5))
        past.write([seen], keep_s=REMEMBER_S, remember_s=REMEMBER_S, tell=tell)

    with History.open(url) as past:
        end(past, 1, AXES[0], "u-1")
        end(past, 2, turned, "u-2")
        # A worker that has not learnt of it, and one that has.
        end(past, 3, turned, "u-2")
        end(past, 4, turned, "u-1")
        end(past, 5, AXES[0], "u-1")
        assert moved == {"door_2": "u-1", "door_3": "u-1"}
        ((step,),) = postgres.execute("SELECT step FROM facestream.regroupings", database="test")
        assert past.undo_regrouping(step, lambda told, now: tell([(one, now) for one in told])) == ("u-1", "u-2")
        assert moved == {"door_2": "u-2", "door_3": "u-2", "door_4": "u-2"}
        assert {one.sighting_id for one in past.sightings(unknown_id="u-1")} == {"door_1", "door_5"}
        # One that went on, of whom the worker thinks that it is the one who was left.
        end(past, 6, turned, "u-1")
        assert moved["door_6"] == "u-2"
        assert {one.unknown_id for one in past.unknowns()[0]} == {"u-1", "u-2"}
