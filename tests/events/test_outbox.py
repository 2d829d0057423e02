"""Events wait on disk: through the end of the process, a full disk and a damaged file, in order and within bounds."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.support.sample_events import make_event
from worker.config import Config, OutboxConfig
from worker.errors import SinkError
from worker.events.codec import decode
from worker.events.outbox import Outbox, open_outbox
from worker.events.states import LocalStates
from worker.observer import Observer
from worker.service.metrics import PrometheusObserver

ALL = 1_000_000


class Drops(Observer):
    def __init__(self) -> None:
        self.dropped: list[tuple[str, str]] = []

    def event_dropped(self, camera_id: str, reason: str) -> None:
        self.dropped.append((camera_id, reason))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox-a.sqlite3"


def opened(path: Path | None, observer: Observer | None = None, **options: Any) -> Outbox:
    own = {name: options.pop(name) for name in ("memory_events", "retry_s", "write_back_bytes") if name in options}
    own.setdefault("retry_s", 0.0)
    return Outbox(OutboxConfig(**options), observer, path=path, **own)


def waiting(outbox: Outbox) -> list[int]:
    """The numbers of the events that wait, oldest first."""
    entries = outbox.take(ALL)
    outbox.settle([])
    return [int(decode(entry.fields).pts_s) for entry in entries]


def append(outbox: Outbox, *numbers: int, **changes: Any) -> list[bool]:
    return [outbox.append(make_event(number, **changes), time.monotonic()) for number in numbers]


def test_what_was_appended_waits_for_the_next_start(path: Path) -> None:
    with closing(opened(path)) as outbox:
        events = [make_event(number, epoch=number) for number in range(700)]
        assert all(outbox.append(event) for event in events)
        assert len(outbox) == 700
    with closing(opened(path)) as outbox:
        assert len(outbox) == 700
        assert [decode(entry.fields) for entry in outbox.take(ALL)] == events
        outbox.settle([1, 2, 4])
        assert waiting(outbox)[:3] == [2, 4, 5]
        append(outbox, 700)
    with closing(opened(path)) as outbox:
        assert waiting(outbox) == [2, *range(4, 701)]


def test_what_was_delivered_leaves_no_trace(path: Path) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, *range(50), identity_name="Somebody Particular")
        outbox.settle([entry.seq for entry in outbox.take(ALL)])
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Particular" not in left


def test_only_the_owner_can_read_it(path: Path) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, 1)
        assert {oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {"0o600"}


_KILLED = """
import sys, threading
from pathlib import Path
from tests.support.sample_events import make_event
from worker.config import OutboxConfig
from worker.events.outbox import Outbox
outbox = Outbox(OutboxConfig(), path=Path(sys.argv[1]))
for number in range(1_000_000):
    outbox.append(make_event(number))
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_accepted(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        accepted = 0
        for line in process.stdout:
            # The last line may be cut off.
            accepted = int(line) + 1 if line.endswith("\n") else accepted
            if accepted == 300:
                process.send_signal(signal.SIGKILL)
    with closing(opened(path)) as outbox:
        numbers = waiting(outbox)
        assert len(numbers) >= accepted >= 300
        assert numbers == list(range(len(numbers)))


def test_after_its_end_it_does_nothing(path: Path) -> None:
    outbox = opened(path)
    append(outbox, 1, 2)
    taken = outbox.take(1)
    outbox.close()
    outbox.settle([entry.seq for entry in taken])
    assert outbox.take(ALL) == []
    assert append(outbox, 3) == [False]
    states = LocalStates(outbox)
    states.keep("door", 0, {})
    assert states.load("door") is None
    outbox.tend()
    with closing(opened(path)) as again:
        assert waiting(again) == [1, 2]


def test_two_processes_do_not_share_it(path: Path) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, 1)
        other = subprocess.run(
            [sys.executable, "-c", _KILLED, str(path)], capture_output=True, text=True, check=False, timeout=60
        )
        assert f"outbox {path} is in use by another process: give this worker another worker_id" in other.stderr
        with pytest.raises(SinkError, match="in use by another process"):
            opened(path)
        assert waiting(outbox) == [1]


def test_each_worker_has_its_own_beside_the_gallery(tmp_path: Path) -> None:
    gallery = str(tmp_path / "people")
    for worker_id in ("a", "../b/c"):
        with closing(open_outbox(Config(worker_id=worker_id, gallery=gallery))) as outbox:
            assert outbox.path is not None
            assert outbox.path.parent == tmp_path / "people.state"
            append(outbox, 1)
    assert len(list((tmp_path / "people.state").glob("*.sqlite3"))) == 2


def test_a_second_worker_without_a_name_takes_the_next_file(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path)
    with closing(open_outbox(config)) as first, closing(open_outbox(config)) as second:
        assert first.path != second.path
    named = Config(state_dir=tmp_path, worker_id="a")
    with closing(open_outbox(named)), pytest.raises(SinkError, match="in use"):
        open_outbox(named)


def test_without_a_place_events_wait_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with closing(open_outbox(Config())) as outbox:
        append(outbox, 1, 2)
        assert outbox.path is None
        assert outbox.failure == ""
        lost, kept = outbox.close()
    assert [entry.seq for entry in lost] == [1, 2]
    assert kept == 0
    assert "do not outlive the worker" in caplog.text


def test_a_fleet_keeps_events_among_the_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = Config.model_validate({"worker_id": "a", "gallery": "postgresql://h/d", "fleet": {"enabled": True}})
    with closing(open_outbox(config)) as outbox:
        assert outbox.path == tmp_path / "facestream" / "outbox-a.sqlite3"


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("bound", [{"max_events": 10}, {"max_mb": 0.0079}])
def test_where_there_is_no_room_the_oldest_events_go(
    path: Path, on_disk: bool, bound: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    drops = Drops()
    with closing(opened(path if on_disk else None, drops, **bound)) as outbox:
        assert all(append(outbox, *range(100, 125)))
        kept = waiting(outbox)
        assert kept == list(range(125 - len(kept), 125))
        assert 8 <= len(kept) <= 10
        assert drops.dropped == [("door", "buffer_full")] * (25 - len(kept))
        assert sum("events dropped" in str(record.msg) for record in caplog.records) == 1


def test_what_is_being_sent_is_not_dropped(path: Path) -> None:
    with closing(opened(path, max_events=4)) as outbox:
        append(outbox, 0, 1, 2)
        sent = outbox.take(2)
        assert append(outbox, 3, 4, 5) == [True, True, True]
        assert len(outbox) == 4
        outbox.settle([entry.seq for entry in sent])
        assert waiting(outbox) == [4, 5]
        outbox.take(ALL)
        append(outbox, 6, 7)
        assert append(outbox, 8) == [False] or len(outbox) <= 4


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_waited_too_long_goes(path: Path, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drops = Drops()
    with closing(opened(path if on_disk else None, drops, max_age_hours=1.0)) as outbox:
        long_ago_s = time.monotonic() - 3601
        for number in range(300):
            outbox.append(make_event(number, camera_id="gate"), long_ago_s)
        append(outbox, 300, 301)
        outbox.tend()
        assert waiting(outbox) == [300, 301]
        assert drops.dropped == [("gate", "expired")] * 300


def test_figures_are_reported(path: Path) -> None:
    observer = PrometheusObserver()

    def figure(name: str) -> float | None:
        return observer.registry.get_sample_value(f"facestream_outbox_{name}")

    with closing(opened(path, observer)) as outbox:
        outbox.append(make_event(1), time.monotonic() - 100)
        append(outbox, 2)
        outbox.tend()
        assert figure("events") == 2
        assert 1000 < (figure("bytes") or 0) < 3000
        assert 100 <= (figure("oldest_seconds") or 0) < 160
        assert figure("degraded") == 0
        outbox.settle([entry.seq for entry in outbox.take(ALL)])
        outbox.tend()
        assert [figure(name) for name in ("events", "bytes", "oldest_seconds")] == [0, 0, 0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_what_waits_is_written_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    observer = PrometheusObserver()
    path = small_disk / "outbox-a.sqlite3"
    ballast = small_disk / "ballast"
    with closing(opened(path, observer)) as outbox:
        append(outbox, *range(20))
        ballast.write_bytes(b"x" * 400_000)
        append(outbox, *range(20, 1500))
        assert outbox.failure.startswith(f"outbox {path}: ")
        assert "full" in outbox.failure
        assert "lost if the worker stops" in outbox.failure
        outbox.tend()
        assert observer.registry.get_sample_value("facestream_outbox_degraded") == 1
        first = outbox.take(10)
        assert [entry.seq for entry in first] == list(range(1, 11))
        outbox.settle([entry.seq for entry in first])
        assert waiting(outbox) == list(range(10, 1500))
        outbox.settle([entry.seq for entry in outbox.take(1200)])
        ballast.unlink()
        outbox.tend()
        assert outbox.failure == ""
        assert observer.registry.get_sample_value("facestream_outbox_degraded") == 0
        append(outbox, 1500)
        assert outbox.close() == ([], 291)
    assert caplog.text.count("events are kept in memory") == 1
    assert caplog.text.count("events are written to disk again") >= 1
    with closing(opened(path)) as outbox:
        assert waiting(outbox) == list(range(1210, 1501))


def limit_pages(outbox: Outbox, pages: int) -> None:
    outbox.with_file(lambda spool: spool.run(f"PRAGMA max_page_count = {pages}"))


def test_memory_is_bounded_too_while_the_disk_is_full(path: Path) -> None:
    drops = Drops()
    with closing(opened(path, drops, memory_events=10)) as outbox:
        limit_pages(outbox, 30)
        append(outbox, *range(500))
        on_disk = len(outbox) - 10
        assert 10 < on_disk < 400
        assert waiting(outbox) == [*range(on_disk), *range(490, 500)]
        assert len(drops.dropped) == 490 - on_disk
        limit_pages(outbox, 10_000)
        outbox.tend()
        assert outbox.failure == ""
        assert outbox.close()[0] == []


def test_a_stop_tries_the_disk_once_more(path: Path) -> None:
    outbox = opened(path)
    limit_pages(outbox, 30)
    append(outbox, *range(200))
    assert outbox.failure
    limit_pages(outbox, 10_000)
    assert outbox.close() == ([], 200)


def test_a_place_that_cannot_be_used_yet_is_used_later(tmp_path: Path) -> None:
    blocker = tmp_path / "state"
    blocker.write_text("not a folder")
    with closing(opened(blocker / "outbox-a.sqlite3")) as outbox:
        assert "outbox-a.sqlite3: " in outbox.failure
        append(outbox, 1, 2, 3)
        outbox.settle([outbox.take(1)[0].seq])
        blocker.unlink()
        outbox.tend()
        assert outbox.failure == ""
        append(outbox, 4)
        assert outbox.close() == ([], 3)


def test_what_waits_in_memory_comes_after_what_was_left_on_disk(path: Path) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, *range(5))
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    with closing(opened(path)) as outbox:
        assert outbox.failure
        append(outbox, *range(5, 9))
        path.rmdir()
        path.with_suffix(".away").rename(path)
        outbox.tend()
        assert waiting(outbox) == list(range(9))


@pytest.mark.parametrize("damage", ["another file", "header", "page", "schema"])
def test_a_damaged_file_is_set_aside_and_the_worker_starts(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, *range(300))
    if damage == "schema":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE events")
            connection.commit()
    else:
        content = bytearray(path.read_bytes())
        if damage == "another file":
            content[:] = b"Dear diary, " * 1000
        else:
            at = 16 if damage == "header" else 3 * 4096
            content[at : at + 2000] = bytes(255 - value for value in content[at : at + 2000])
        path.write_bytes(content)
    with closing(opened(path)) as outbox:
        assert outbox.failure == ""
        append(outbox, 7)
        assert waiting(outbox) == [7]
    assert path.with_suffix(".damaged.sqlite3").exists()
    assert "outbox is damaged" in caplog.text


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SinkError, match=r"written by a newer version of facestream; upgrade, or move it away"):
        opened(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    opened(path).close()


def test_a_file_that_is_taken_away_is_begun_anew(path: Path) -> None:
    with closing(opened(path)) as outbox:
        append(outbox, 1)
        shutil.rmtree(path.parent)
        outbox.tend()
        append(outbox, 2)
        outbox.tend()
        append(outbox, 3)
        assert outbox.failure == ""
        assert outbox.close() == ([], 2)


def test_a_damaged_row_does_not_hold_up_the_others(path: Path) -> None:
    drops = Drops()
    with closing(opened(path)) as outbox:
        append(outbox, 1, 2, 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET fields = '{\"schema' WHERE seq = 2")
        connection.commit()
    with closing(opened(path, drops)) as outbox:
        assert waiting(outbox) == [1, 3]
        assert drops.dropped == [("door", "invalid")]
        assert len(outbox) == 2


def test_age_is_told_by_a_clock_that_nobody_sets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(opened(path)) as outbox:
        outbox.append(make_event(1), time.monotonic() - 50)
        outbox.append(make_event(2))
    real_s = time.time()
    monkeypatch.setattr(time, "time", lambda: real_s - 3600)
    with closing(opened(path)) as outbox:
        old, new = outbox.take(ALL)
        assert 50 <= old.caused.age_s < 110
        assert new.caused.age_s < 60
        assert replace(new.caused, clock="before the machine was restarted").age_s == 0.0
        monkeypatch.setattr(time, "time", lambda: real_s + 3600)
        assert 3600 <= replace(new.caused, clock="before the machine was restarted").age_s < 3660
        assert new.caused.age_s < 60


def test_states_are_kept_beside_the_events(path: Path) -> None:
    with closing(opened(path)) as outbox:
        states = LocalStates(outbox)
        assert states.load("door") is None
        states.keep("door", 0, {"a": [1.5]})
        states.keep("gate", 0, {"b": 1})
        states.keep("door", 0, {"a": [2.5]})
        states.keep("gate", 0, None)
    with closing(opened(path)) as outbox:
        assert LocalStates(outbox).load("door") == {"a": [2.5]}
        assert LocalStates(outbox).load("gate") is None
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE states SET state = '{'")
        connection.commit()
    with closing(opened(path)) as outbox:
        assert LocalStates(outbox).load("door") is None


def test_no_state_runs_ahead_of_events_that_wait_in_memory(path: Path) -> None:
    with closing(opened(path)) as outbox:
        states = LocalStates(outbox)
        states.keep("door", 0, {"told": 1})
        limit_pages(outbox, 1)
        append(outbox, *range(200))
        assert outbox.failure
        states.keep("door", 0, {"told": 200})
        assert states.load("door") == {"told": 1}


def test_the_log_does_not_grow_for_ever(path: Path) -> None:
    with closing(opened(path, write_back_bytes=200_000)) as outbox:
        sizes = []
        for first in range(0, 3000, 100):
            append(outbox, *range(first, first + 100))
            outbox.settle([entry.seq for entry in outbox.take(ALL)])
            outbox.tend()
            sizes.append(Path(f"{path}-wal").stat().st_size + path.stat().st_size)
        assert max(sizes) < 3_000_000


def test_appending_from_several_threads_keeps_each_ones_order(path: Path) -> None:
    with closing(opened(path)) as outbox:

        def speak(camera_id: str) -> None:
            append(outbox, *range(200), camera_id=camera_id)

        threads = [threading.Thread(target=speak, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        delivered: list[tuple[str, int]] = []
        while len(delivered) < 600:
            entries = outbox.take(50)
            delivered += [(entry.camera_id, int(float(entry.fields["pts_s"]))) for entry in entries]
            outbox.settle([entry.seq for entry in entries])
        for thread in threads:
            thread.join()
        assert all([number for name, number in delivered if name == camera] == list(range(200)) for camera in "abc")
        assert len(outbox) == 0


class OutboxModel(RuleBasedStateMachine):
    """Events are appended, delivered in part and in any order; the disk fails and recovers; the process is restarted
    and killed. Lost is only what was in memory when it was killed, and nothing ever changes its order."""

    def __init__(self) -> None:
        super().__init__()
        self.folders = tempfile.TemporaryDirectory()
        self.kills = 0
        self.outbox = opened(self.path)
        self.waiting: list[int] = []
        self.in_memory: set[int] = set()
        self.confirmed: set[int] = set()
        self.appended = 0

    @property
    def path(self) -> Path:
        return Path(self.folders.name) / str(self.kills) / "outbox-a.sqlite3"

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        for number in range(self.appended, self.appended + count):
            append(self.outbox, number)
            self.waiting.append(number)
            if self.outbox.failure:
                self.in_memory.add(number)
        self.appended += count

    @rule(limit=st.integers(0, 6), chosen=st.sets(st.integers(0, 5)))
    def deliver(self, limit: int, chosen: set[int]) -> None:
        taken = self.outbox.take(limit)
        numbers = [int(decode(entry.fields).pts_s) for entry in taken]
        assert numbers == self.waiting[:limit]
        places = [place for place in chosen if place < len(taken)]
        self.outbox.settle([taken[place].seq for place in places])
        self.confirmed |= {numbers[place] for place in places}
        self.waiting = [number for number in self.waiting if number not in self.confirmed]

    @rule()
    def fill_the_disk(self) -> None:
        limit_pages(self.outbox, 1)

    @rule()
    def make_room(self) -> None:
        limit_pages(self.outbox, 100_000)

    @rule()
    def tend(self) -> None:
        self.outbox.tend()
        if not self.outbox.failure:
            self.in_memory.clear()

    @rule()
    def restart(self) -> None:
        self.make_room()
        assert self.outbox.close() == ([], len(self.waiting))
        self.outbox = opened(self.path)
        self.in_memory.clear()

    @rule()
    def kill(self) -> None:
        """The files as they are, without anything that a process does at its end."""
        before = self.path.parent
        self.kills += 1
        shutil.copytree(before, self.path.parent, ignore=shutil.ignore_patterns("*-shm"))
        self.outbox.close()
        self.outbox = opened(self.path)
        found = waiting(self.outbox)
        assert found == sorted(found)
        # What could not be deleted when it was delivered is delivered again.
        assert [number for number in found if number not in self.confirmed] == [
            number for number in self.waiting if number not in self.in_memory
        ]
        self.waiting = found
        self.confirmed -= set(found)
        self.in_memory.clear()

    @invariant()
    def all_is_there_in_order(self) -> None:
        assert waiting(self.outbox) == self.waiting
        assert len(self.outbox) == len(self.waiting)

    def teardown(self) -> None:
        self.outbox.close()
        self.folders.cleanup()


def test_nothing_is_lost_or_reordered_whatever_happens() -> None:
    bounds = settings(max_examples=25, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(OutboxModel, settings=bounds)
