"""No frame is lost unseen, no camera starves, and batches keep within their bounds."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from worker.config import BatchingConfig, CameraConfig
from worker.errors import ConfigError
from worker.observer import Observer
from worker.types import Frame, Planes
from worker.video.buffers import Batcher, FrameBuffer, Policy, RawFrame
from worker.video.planes import planes_of_image

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Recorder(Observer):
    def __init__(self) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.depths: dict[str, int] = {}

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        self.dropped[camera_id, reason] += count

    def queue_depth(self, queue: str, depth: int) -> None:
        self.depths[queue] = depth


def make_frame(camera_id: str, sequence: int, *, age_s: float = 0.0) -> Frame:
    return Frame(camera_id, sequence, sequence / 25, datetime.now(UTC), time.monotonic() - age_s, IMAGE)


def config(**fields: float) -> BatchingConfig:
    return BatchingConfig.model_validate({"max_frames": 4, "max_wait_s": 0.01, "stale_after_s": 60, **fields})


def ids(frames: list[Frame] | None) -> list[tuple[str, int]]:
    assert frames is not None
    return [(frame.camera_id, frame.sequence) for frame in frames]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def in_thread() -> Iterator[list[threading.Thread]]:
    """Threads added here are started by the test and must have ended with it."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_newest_replaces_and_counts(recorder: Recorder) -> None:
    buffer = FrameBuffer("a", "newest", observer=recorder)
    for sequence in range(5):
        assert buffer.put(make_frame("a", sequence))
    assert ids(Batcher([buffer], config(), recorder).next_batch(1)) == [("a", 4)]
    assert recorder.dropped == {("a", "superseded"): 4}
    assert recorder.depths == {"a": 0}


def test_every_waits_for_room(recorder: Recorder, in_thread: list[threading.Thread]) -> None:
    buffer = FrameBuffer("a", "every", capacity=2, observer=recorder)
    batcher = Batcher([buffer], config(), recorder)

    def produce() -> None:
        for sequence in range(50):
            assert buffer.put(make_frame("a", sequence))
        buffer.close()

    in_thread.append(threading.Thread(target=produce))
    in_thread[0].start()
    got: list[tuple[str, int]] = []
    while (frames := batcher.next_batch(5)) is not None:
        assert 1 <= len(frames) <= 2
        got += ids(frames)
    assert got == [("a", sequence) for sequence in range(50)]
    assert not recorder.dropped


def test_put_gives_up_after_its_timeout(recorder: Recorder) -> None:
    buffer = FrameBuffer("a", "every", capacity=1, observer=recorder)
    assert buffer.put(make_frame("a", 0), timeout_s=0)
    assert not buffer.put(make_frame("a", 1), timeout_s=0)
    assert recorder.dropped == {("a", "full"): 1}


def test_close_wakes_a_waiting_put(recorder: Recorder, in_thread: list[threading.Thread]) -> None:
    buffer = FrameBuffer("a", "every", capacity=1, observer=recorder)
    buffer.put(make_frame("a", 0))
    taken_in: list[bool] = []
    in_thread.append(threading.Thread(target=lambda: taken_in.append(buffer.put(make_frame("a", 1)))))
    in_thread[0].start()
    buffer.close()
    in_thread[0].join(10)
    assert taken_in == [False]
    assert recorder.dropped == {("a", "closed"): 1}
    batcher = Batcher([buffer], config(), recorder)
    assert ids(batcher.next_batch(1)) == [("a", 0)]
    assert batcher.next_batch(1) is None


def test_nothing_within_the_timeout_is_an_empty_batch() -> None:
    batcher = Batcher([FrameBuffer("a", "newest")], config())
    assert batcher.next_batch(0.01) == []


def test_all_closed_wakes_a_waiting_consumer(in_thread: list[threading.Thread]) -> None:
    buffers = [FrameBuffer("a", "newest"), FrameBuffer("b", "every")]
    batcher = Batcher(buffers, config())
    results: list[list[Frame] | None] = []
    in_thread.append(threading.Thread(target=lambda: results.append(batcher.next_batch(60))))
    in_thread[0].start()
    for buffer in buffers:
        buffer.close()
    in_thread[0].join(10)
    assert results == [None]


def test_frame_wakes_a_waiting_consumer(in_thread: list[threading.Thread]) -> None:
    buffer = FrameBuffer("a", "newest")
    batcher = Batcher([buffer], config())
    results: list[list[Frame] | None] = []
    in_thread.append(threading.Thread(target=lambda: results.append(batcher.next_batch(60))))
    in_thread[0].start()
    buffer.put(make_frame("a", 7))
    in_thread[0].join(10)
    assert ids(results[0]) == [("a", 7)]


def test_waits_for_the_other_cameras(in_thread: list[threading.Thread]) -> None:
    a, b = FrameBuffer("a", "newest"), FrameBuffer("b", "newest")
    batcher = Batcher([a, b], config(max_wait_s=60))
    a.put(make_frame("a", 0))
    in_thread.append(threading.Thread(target=lambda: b.put(make_frame("b", 0))))
    in_thread[0].start()
    assert ids(batcher.next_batch(60)) == [("a", 0), ("b", 0)]


def test_does_not_wait_for_closed_cameras_nor_for_more_than_a_batch() -> None:
    a, b, c = FrameBuffer("a", "every", capacity=9), FrameBuffer("b", "newest"), FrameBuffer("c", "newest")
    a.put(make_frame("a", 0))
    c.close()
    b.put(make_frame("b", 0))
    batcher = Batcher([a, b, c], config(max_wait_s=86_400))
    assert ids(batcher.next_batch(60)) == [("a", 0), ("b", 0)]
    full = Batcher([a, b, FrameBuffer("d", "newest")], config(max_wait_s=86_400, max_frames=2))
    a.put(make_frame("a", 1))
    b.put(make_frame("b", 1))
    assert ids(full.next_batch(60)) == [("a", 1), ("b", 1)]


def test_a_batch_holds_one_frame_of_each_camera_in_order() -> None:
    a, b = FrameBuffer("a", "every", capacity=9), FrameBuffer("b", "every", capacity=9)
    for sequence in range(2):
        a.put(make_frame("a", sequence))
        b.put(make_frame("b", sequence))
    batcher = Batcher([a, b], config())
    assert [ids(batcher.next_batch(60)) for _ in range(2)] == [[("a", 0), ("b", 0)], [("a", 1), ("b", 1)]]


def test_frames_that_are_not_due_are_passed_over() -> None:
    buffer = FrameBuffer("a", "every", capacity=9)
    for sequence in range(7):
        buffer.put(make_frame("a", sequence))
    buffer.close()
    batcher = Batcher([buffer], config(), due=lambda frame: frame.sequence % 3 == 0)
    assert [ids(batcher.next_batch(1)) for _ in range(3)] == [[("a", 0)], [("a", 3)], [("a", 6)]]
    assert batcher.next_batch(1) is None


def test_silent_camera_holds_nobody_up() -> None:
    a, b = FrameBuffer("a", "newest"), FrameBuffer("b", "newest")
    batcher = Batcher([a, b], config())
    a.put(make_frame("a", 0))
    assert ids(batcher.next_batch(60)) == [("a", 0)]


def test_cameras_take_turns_when_there_are_more_than_fit() -> None:
    buffers = [FrameBuffer(name, "newest") for name in "abcdefg"]
    batcher = Batcher(buffers, config(max_frames=3))
    served: Counter[str] = Counter()
    for round_ in range(7):
        for buffer in buffers:
            buffer.put(make_frame(buffer.camera_id, round_))
        frames = batcher.next_batch(1)
        assert len(ids(frames)) == 3
        served.update(camera_id for camera_id, _ in ids(frames))
    assert served == dict.fromkeys("abcdefg", 3)


def test_busy_file_does_not_starve_a_camera() -> None:
    file, camera = FrameBuffer("file", "every", capacity=20), FrameBuffer("camera", "newest")
    batcher = Batcher([file, camera], config())
    for sequence in range(20):
        file.put(make_frame("file", sequence))
    for sequence in range(3):
        camera.put(make_frame("camera", sequence))
        assert ("camera", sequence) in ids(batcher.next_batch(1))


def test_stale_live_frames_are_dropped_and_those_of_files_are_not(recorder: Recorder) -> None:
    live, file = FrameBuffer("live", "newest", observer=recorder), FrameBuffer("file", "every", observer=recorder)
    batcher = Batcher([live, file], config(stale_after_s=2), recorder)
    live.put(make_frame("live", 0, age_s=2.5))
    file.put(make_frame("file", 0, age_s=2.5))
    assert ids(batcher.next_batch(1)) == [("file", 0)]
    live.put(make_frame("live", 1, age_s=2.5))
    assert batcher.next_batch(0.01) == []
    assert recorder.dropped == {("live", "stale"): 2}


def raw(sequence: int, planes: Planes) -> RawFrame:
    return RawFrame("a", sequence, 0.0, datetime.now(UTC), time.monotonic(), planes, IMAGE[..., 0])


def test_only_frames_that_are_handed_over_are_converted_and_not_by_the_consumer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted: list[tuple[int, int]] = []
    convert = RawFrame.convert

    def told(frame: RawFrame) -> Frame:
        converted.append((frame.sequence, threading.get_ident()))
        return convert(frame)

    monkeypatch.setattr(RawFrame, "convert", told)
    buffer = FrameBuffer("a", "newest")
    batcher = Batcher([buffer], config(), due=lambda frame: frame.sequence != 4)
    for sequence in range(4):
        buffer.put(raw(sequence, planes_of_image(IMAGE)))
    frames = batcher.next_batch(1)
    assert ids(frames) == [("a", 3)]
    assert frames is not None
    np.testing.assert_array_equal(frames[0].image, IMAGE)
    buffer.put(raw(4, planes_of_image(IMAGE)))
    assert batcher.next_batch(0.01) == []
    [(sequence, thread)] = converted
    assert sequence == 3
    assert thread != threading.get_ident()


def test_frame_that_cannot_be_converted_is_counted(recorder: Recorder) -> None:
    buffer = FrameBuffer("a", "every", observer=recorder)
    buffer.put(raw(0, Planes("a form that nobody knows", 4, 4, (IMAGE[..., 0],))))
    buffer.put(make_frame("a", 1))
    assert ids(Batcher([buffer], config(), recorder).next_batch(1)) == [("a", 1)]
    assert recorder.dropped == {("a", "undecodable"): 1}


def test_cameras_come_and_go(recorder: Recorder) -> None:
    batcher = Batcher([], config(), recorder)
    assert batcher.next_batch(0) == []
    a, b = FrameBuffer("a", "every", observer=recorder), FrameBuffer("b", "newest", observer=recorder)
    batcher.add(a)
    batcher.add(b)
    with pytest.raises(ValueError, match="camera a already"):
        batcher.add(FrameBuffer("a", "newest"))
    a.put(make_frame("a", 0))
    b.put(make_frame("b", 0))
    batcher.remove("a")
    batcher.remove("nobody")
    assert a.closed
    assert not a.put(make_frame("a", 1))
    assert ids(batcher.next_batch(1)) == [("b", 0)]
    assert recorder.dropped == {("a", "removed"): 1, ("a", "closed"): 1}
    batcher.add(FrameBuffer("a", "newest"))


def test_removal_of_the_last_open_camera_ends_the_wait(in_thread: list[threading.Thread]) -> None:
    ended, open_ = FrameBuffer("ended", "every"), FrameBuffer("open", "newest")
    ended.close()
    batcher = Batcher([ended, open_], config())
    results: list[list[Frame] | None] = []
    in_thread.append(threading.Thread(target=lambda: results.append(batcher.next_batch(60))))
    in_thread[0].start()
    batcher.remove("open")
    in_thread[0].join(10)
    assert results == [None]


@pytest.mark.parametrize(
    ("source", "policy", "expected"),
    [
        ("rtsp://h/x", "auto", "newest"),
        ("0", "auto", "newest"),
        ("clip.mp4", "auto", "every"),
        ("rtsp://h/x", "every", "every"),
        ("clip.mp4", "newest", "newest"),
    ],
)
def test_policy_of_a_camera(source: str, policy: Policy, expected: Policy) -> None:
    camera = CameraConfig.model_validate({"id": "a", "source": source, "policy": policy})
    assert FrameBuffer.for_camera(camera, config()).policy == expected


def test_source_that_is_not_read_is_refused() -> None:
    with pytest.raises(ConfigError):
        FrameBuffer.for_camera(CameraConfig.model_validate({"id": "a", "source": "concat:a|b"}), config())


class Schedule(RuleBasedStateMachine):
    """Any order of puts, takes, closes, additions and removals; a model counts what must have happened."""

    cameras = ("a", "b", "c")

    @initialize(policies=st.lists(st.sampled_from(["newest", "every"]), min_size=3, max_size=3))
    def build(self, policies: list[Policy]) -> None:
        self.recorder = Recorder()
        self.policies = dict(zip(self.cameras, policies, strict=True))
        self.max_frames = 2
        self.batcher = Batcher([], config(max_frames=self.max_frames, max_wait_s=0.000_001), self.recorder)
        self.buffers: dict[str, FrameBuffer] = {}
        self.inside: dict[str, list[int]] = {name: [] for name in self.cameras}
        self.put: Counter[str] = Counter()
        self.taken: dict[str, list[int]] = {name: [] for name in self.cameras}
        for name in self.cameras:
            self._add(name)

    def _add(self, name: str) -> None:
        self.buffers[name] = FrameBuffer(name, self.policies[name], capacity=2, observer=self.recorder)
        self.batcher.add(self.buffers[name])

    @rule(name=st.sampled_from(cameras), count=st.integers(1, 4))
    def put_frames(self, name: str, count: int) -> None:
        buffer = self.buffers[name]
        for _ in range(count):
            sequence = self.put[name]
            self.put[name] += 1
            inside = self.inside[name]
            accepted = buffer.put(make_frame(name, sequence), timeout_s=0)
            assert accepted == (not buffer.closed and (buffer.policy == "newest" or len(inside) < 2))
            if accepted:
                if buffer.policy == "newest":
                    inside.clear()
                inside.append(sequence)

    @rule()
    def take_batch(self) -> None:
        waiting = sum(1 for inside in self.inside.values() if inside)
        frames = self.batcher.next_batch(0)
        if frames is None:
            assert not waiting
            assert all(buffer.closed for buffer in self.buffers.values())
            return
        assert len(frames) == min(self.max_frames, waiting)
        represented = {frame.camera_id for frame in frames}
        assert len(represented) == len(frames)
        for frame in frames:
            assert self.inside[frame.camera_id].pop(0) == frame.sequence
            self.taken[frame.camera_id].append(frame.sequence)

    @rule(name=st.sampled_from(cameras))
    def close(self, name: str) -> None:
        self.buffers[name].close()

    @rule(name=st.sampled_from(cameras))
    def replace(self, name: str) -> None:
        self.batcher.remove(name)
        self.inside[name].clear()
        self._add(name)

    @invariant()
    def every_frame_is_accounted_for_and_in_order(self) -> None:
        for name in self.cameras:
            dropped = sum(count for (camera, _), count in self.recorder.dropped.items() if camera == name)
            assert self.put[name] == len(self.taken[name]) + len(self.inside[name]) + dropped
            assert self.taken[name] == sorted(set(self.taken[name]))


TestSchedule = Schedule.TestCase


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), capacity=st.integers(1, 4))
def test_threads_lose_nothing_under_every(counts: list[int], capacity: int) -> None:
    buffers = [FrameBuffer(f"camera{n}", "every", capacity=capacity) for n in range(len(counts))]

    def produce(buffer: FrameBuffer, count: int) -> None:
        for sequence in range(count):
            buffer.put(make_frame(buffer.camera_id, sequence))
        buffer.close()

    threads = [
        threading.Thread(target=produce, args=(buffer, count)) for buffer, count in zip(buffers, counts, strict=True)
    ]
    batcher = Batcher(buffers, config(max_wait_s=0.000_1))
    for thread in threads:
        thread.start()
    got: dict[str, list[int]] = {buffer.camera_id: [] for buffer in buffers}
    while (frames := batcher.next_batch(10)) is not None:
        assert 1 <= len(frames) <= 4
        for camera_id, sequence in ids(frames):
            got[camera_id].append(sequence)
    for thread in threads:
        thread.join(10)
    assert list(got.values()) == [list(range(count)) for count in counts]
