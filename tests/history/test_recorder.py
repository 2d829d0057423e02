"""The history is written behind the pipeline's back: nothing waits, nothing is lost in silence."""

import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.support.heartbeats import CountedHeartbeats
from tests.support.past import NOON, sighting, unknown
from worker.config import Config
from worker.errors import HistoryDiskError, HistoryError
from worker.history.recorder import Recorder, open_recorder
from worker.history.records import Tally
from worker.history.store import FILE, History
from worker.observer import Observer


class Drops(Observer):
    def __init__(self) -> None:
        self.drops: dict[str, int] = {}
        self.degraded: list[bool] = []
        self.failed = Event()

    def history_degraded(self, degraded: bool) -> None:
        if degraded:
            self.failed.set()
        if self.degraded[-1:] != [degraded]:
            self.degraded.append(degraded)

    def record_dropped(self, reason: str, count: int = 1) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + count


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[Recorder] = []

    def build(observer: Observer | None = None, **kwargs: Any) -> Recorder:
        made.append(Recorder(tmp_path, Config(), observer, **kwargs))
        return made[-1]

    yield build
    for recorder in made:
        recorder.close(0.0)


def test_what_was_told_is_there_after_the_close(make: Callable[..., Recorder], tmp_path: Path) -> None:
    recorder = make()
    recorder.sighting(sighting(1))
    recorder.unknown(unknown())
    for minute in (1, 2, 61):
        at = NOON + timedelta(minutes=minute)
        recorder.rejected("door", at, "too_short", tracks=1, faces=1)
    recorder.close()
    with History.open(tmp_path) as past:
        assert [one.sighting_id for one in past.sightings()] == ["door_1"]
        assert [person.unknown_id for person in past.unknowns()[0]] == ["u-1"]
        assert past.tallies() == [
            Tally("door", NOON, "too_short", 2, 2), Tally("door", NOON + timedelta(hours=1), "too_short", 1, 1)
        ]  # fmt: skip


def test_a_text_that_is_no_unicode_is_cleaned(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer = Drops()
    recorder = make(observer)
    names: dict[str, Any] = {
        "camera_id": "caf\udce9",
        "identity_name": "Kat\udce9",
        "event": {"identity_name": "Kat\udce9"},
    }
    recorder.sighting(sighting(1, **names))
    recorder.rejected("caf\udce9", NOON, "too_short", tracks=1)
    recorder.close()
    assert observer.drops == {}
    assert observer.degraded == [False]
    with History.open(tmp_path) as past:
        (stored,) = past.sightings(camera_id="caf\udce9")
        assert (stored.camera_id, stored.identity_name) == ("café", "Katé")
        assert stored.event == {"identity_name": "Katé"}
        assert [tally.camera_id for tally in past.tallies()] == ["café"]


def test_a_value_that_cannot_be_stored_holds_up_nothing(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer, heartbeats = Drops(), CountedHeartbeats()
    recorder = make(observer, heartbeats=heartbeats)
    values: list[dict[str, Any]] = [{}, {"embedded_faces": 2**70}, {"quality": object()}, {"identity_name": ["x"]}, {}]
    for number, changes in enumerate(values):
        recorder.sighting(sighting(number, **changes))
    recorder.close()
    assert observer.drops == {"invalid": 3}
    with History.open(tmp_path) as past:
        assert [one.sighting_id for one in past.sightings()] == ["door_0", "door_4"]


def test_a_locked_file_is_waited_for_and_nothing_else_is(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer = Drops()
    recorder = make(observer, busy_timeout_s=0.01, retry_s=0.01)
    blocker = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    recorder.sighting(sighting(1))
    assert observer.failed.wait(20)
    blocker.execute("ROLLBACK")
    blocker.close()
    recorder.close()
    assert observer.drops == {}
    assert observer.degraded == [True, False]
    with History.open(tmp_path) as past:
        assert len(past.sightings()) == 1


def test_a_file_that_was_removed_is_begun_anew_and_said(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer = Drops()
    recorder = make(observer, retry_s=0.01)
    for path in tmp_path.iterdir():
        path.unlink()
    recorder.sighting(sighting(1))
    recorder.close()
    assert observer.degraded == [True, False]
    with History.open(tmp_path) as past:
        assert len(past.sightings()) == 1


def test_what_cannot_be_written_is_counted(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer = Drops()
    recorder = make(observer, busy_timeout_s=0.01, retry_s=0.5)
    blocker = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    recorder.sighting(sighting(1))
    recorder.sighting(sighting(2))
    recorder.close(1.0)
    blocker.close()
    assert observer.drops == {"unwritten": 2}


def test_a_disk_that_is_full_at_the_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, **_: object) -> History:
        tried.set()
        raise HistoryDiskError(f"history {folder} cannot be used: database or disk is full")

    tried = Event()
    with monkeypatch.context() as while_full:
        while_full.setattr(History, "open", full)
        config = Config(state_dir=tmp_path)
        recorder = open_recorder(config)
        assert recorder is not None
        assert recorder.open_history() is None
        tried.clear()
        recorder.sighting(sighting(1))
        assert tried.wait(20)
    recorder.close()
    with History.open(tmp_path) as past:
        assert [one.sighting_id for one in past.sightings()] == ["door_1"]


def test_a_full_queue_drops_and_counts(make: Callable[..., Recorder], tmp_path: Path) -> None:
    observer = Drops()
    recorder = make(observer, busy_timeout_s=0.01, queued=3)
    blocker = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    recorder.sighting(sighting(0))
    assert observer.failed.wait(20), "the thread has taken it, and cannot write it"
    for number in range(1, 6):
        recorder.sighting(sighting(number))
    assert observer.drops == {"buffer_full": 2}
    blocker.close()


def test_the_thread_gives_signs_of_life(make: Callable[..., Recorder]) -> None:
    heartbeats = CountedHeartbeats()
    make(heartbeats=heartbeats)
    assert heartbeats.beats.acquire(timeout=10)


def test_the_default_place_may_be_missing_but_a_named_one_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "people.state").touch()  # a folder cannot be made here
    observer = Drops()
    recorder = open_recorder(Config(gallery=str(tmp_path / "people")), observer)
    assert observer.degraded == [True]
    assert recorder is None
    assert "not remembered" in caplog.text
    with pytest.raises(HistoryError):
        open_recorder(Config(state_dir=tmp_path / "people.state"))


def test_nothing_is_written_where_history_is_off(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path / "state", history={"enabled": False})
    assert open_recorder(config) is None
    assert list(tmp_path.iterdir()) == []


def test_what_has_become_too_old_goes_at_the_start(
    make: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History.open(tmp_path, create=True) as past:
        past.write([sighting(1)], keep_s=1e9, remember_s=1e9)
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s + 8 * 86_400)
        assert len(past.sightings()) == 1
        make()
        assert past.sightings() == []
