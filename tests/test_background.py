"""Work beside the pipeline: it repeats, survives its failures, drains where it should, and shows that it lives."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.heartbeats import CountedHeartbeats
from worker.background import BackgroundTask, Heartbeats

PATIENCE_S = 10.0


@pytest.fixture
def start() -> Iterator[Callable[..., BackgroundTask]]:
    tasks: list[BackgroundTask] = []

    def build(step: Callable[[], float | None], **options: float | bool | Heartbeats) -> BackgroundTask:
        task = BackgroundTask("work", step, **{"interval_s": 60.0} | options)  # type: ignore[arg-type]
        tasks.append(task)
        task.start()
        return task

    yield build
    for task in tasks:
        assert task.stop(PATIENCE_S)


def test_the_first_step_comes_at_once_and_the_next_when_it_is_woken(start: Callable[..., BackgroundTask]) -> None:
    done = threading.Semaphore(0)
    task = start(lambda: done.release())
    assert done.acquire(timeout=PATIENCE_S)
    task.wake()
    assert done.acquire(timeout=PATIENCE_S)


def test_what_waits_is_done_without_a_pause(start: Callable[..., BackgroundTask]) -> None:
    done = threading.Semaphore(0)

    def step() -> float:
        done.release()
        return 0.0

    start(step)
    assert all(done.acquire(timeout=PATIENCE_S) for _ in range(100))


def test_a_failure_is_told_and_the_step_is_tried_again(
    start: Callable[..., BackgroundTask], caplog: pytest.LogCaptureFixture
) -> None:
    tries = iter([ValueError("broken"), None])
    healed = threading.Event()

    def step() -> None:
        if (failure := next(tries, None)) is not None:
            raise failure
        healed.set()

    start(step, interval_s=0.01)
    assert healed.wait(PATIENCE_S)
    assert "background work failed" in caplog.text
    assert "broken" in caplog.text


def test_what_waits_at_the_stop_is_still_done_where_the_task_drains(start: Callable[..., BackgroundTask]) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    left = [3]

    def step() -> float | None:
        begun.set()
        may_go_on.wait(PATIENCE_S)
        left[0] -= 1
        return 0.0 if left[0] else None

    task = start(step, drains=True)
    assert begun.wait(PATIENCE_S)
    threading.Timer(0.05, may_go_on.set).start()
    assert task.stop(PATIENCE_S)
    assert left == [0]


def test_a_task_that_does_not_drain_ends_after_the_step_at_hand(start: Callable[..., BackgroundTask]) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    steps = []

    def step() -> float:
        steps.append(1)
        begun.set()
        may_go_on.wait(PATIENCE_S)
        return 0.0

    task = start(step)
    assert begun.wait(PATIENCE_S)
    threading.Timer(0.05, may_go_on.set).start()
    assert task.stop(PATIENCE_S)
    assert len(steps) == 1


def test_a_stop_that_is_out_of_time_does_not_wait(start: Callable[..., BackgroundTask]) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        may_go_on.wait(PATIENCE_S)

    task = start(step)
    assert begun.wait(PATIENCE_S)
    assert not task.stop(0.01)
    may_go_on.set()


def test_a_step_that_pauses_is_released_by_the_stop(start: Callable[..., BackgroundTask]) -> None:
    begun = threading.Event()
    stopped: list[bool] = []
    tasks: list[BackgroundTask] = []

    def step() -> None:
        begun.wait(PATIENCE_S)
        stopped.append(tasks[0].pause(PATIENCE_S))

    tasks.append(start(step))
    begun.set()
    assert tasks[0].stop(PATIENCE_S)
    assert stopped == [True]


def test_a_task_shows_that_it_lives_as_long_as_it_runs(start: Callable[..., BackgroundTask]) -> None:
    now = [0.0]
    heartbeats = Heartbeats(lambda: now[0])
    stepped, hang = threading.Event(), threading.Event()

    def step() -> None:
        stepped.set()
        hang.wait(PATIENCE_S)

    task = start(step, heartbeats=heartbeats, max_silence_s=5.0)
    assert stepped.wait(PATIENCE_S)
    now[0] = 5.0
    assert heartbeats.failures() == {}
    now[0] = 7.0
    assert heartbeats.failures() == {"work": "no sign of life for 7.0 s (limit 5 s)"}
    hang.set()
    assert task.stop(PATIENCE_S)
    assert heartbeats.failures() == {}


def test_work_that_comes_during_the_last_step_before_the_stop_is_done(start: Callable[..., BackgroundTask]) -> None:
    found_nothing, waiting, done = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        if waiting.is_set():
            done.set()
            return
        found_nothing.set()
        waiting.wait(PATIENCE_S)

    task = start(step, drains=True)
    assert found_nothing.wait(PATIENCE_S)
    stopping = threading.Thread(target=task.stop, args=(PATIENCE_S,))
    stopping.start()
    while not task.stopping:
        pass
    waiting.set()
    stopping.join()
    assert done.is_set()


def test_a_task_that_fails_again_and_again_shows_no_sign_of_life(start: Callable[..., BackgroundTask]) -> None:
    heartbeats = CountedHeartbeats()
    tried, broken = threading.Semaphore(0), True

    def step() -> None:
        tried.release()
        if broken:
            raise RuntimeError("broken")

    start(step, interval_s=0.01, heartbeats=heartbeats)
    for _ in range(3):
        assert tried.acquire(timeout=PATIENCE_S)
    assert heartbeats.beats.acquire(timeout=PATIENCE_S), "before the first step"
    assert not heartbeats.beats.acquire(blocking=False)
    broken = False
    assert heartbeats.beats.acquire(timeout=PATIENCE_S)
