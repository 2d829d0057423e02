"""Workers that crash, resume and take over, in any order: Hypothesis looks for a verdict that nobody hears."""

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from worker.config import RecognitionConfig
from worker.events.codec import decode, encode, sighting_id
from worker.history.records import EmbedderId
from worker.observer import Observer
from worker.recognition.announcement import Announcer
from worker.recognition.saved import from_state, to_state
from worker.recognition.sighting import RecognitionContext, Sighting
from worker.types import Event, Match

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIMENSION = 4
EMBEDDER = EmbedderId("model", "digest")
CONFIG = RecognitionConfig()

Path = tuple[tuple[str, str], ...]
"""Type and verdict of each event of a sighting, from the first: what makes a transition the same as another."""


@dataclass
class Kept:
    """A state as it was stored."""

    state: dict[str, Any]
    paths: dict[str, Path]


def context_of(epoch: int) -> RecognitionContext:
    worker_id = f"worker-{epoch}"
    return RecognitionContext(
        CONFIG, "m", "digest", DIMENSION, min_detections=1, worker_id=worker_id, observer=Observer()
    )


@dataclass
class Worker:
    """Speaks for one camera, with the announcer and the states of the real worker."""

    epoch: int
    sightings: dict[str, Sighting] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.announcer = Announcer("door", context_of(self.epoch), threshold=0.4, epoch=self.epoch)

    def appear(self, number: int) -> None:
        name = sighting_id("door", NOON + timedelta(seconds=number), number)
        self.sightings[name] = Sighting(name, "door", number, NOON + timedelta(seconds=number), 0.0, DIMENSION)
        self.paths[name] = ()

    def decide(self, name: str, person: str) -> list[Event]:
        sighting = self.sightings[name]
        reason = "matched" if person else "below_threshold"
        sighting.match = Match(person or None, person.title(), 0.5, 0.1, 0.4, 1, reason)
        return self._noted(self.announcer.announce(sighting, ()))

    def end(self, name: str) -> list[Event]:
        return self._noted(self.announcer.end(self.sightings.pop(name)))

    def _noted(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.paths[event.sighting_id] += ((event.type, event.identity_id),)
        return events


def verdict_of(event: Event) -> tuple[str, bool]:
    return event.identity_id, event.type == "ended"


class Workers(RuleBasedStateMachine):
    """One camera, whose worker may die at any time; the consumer drops the ids that it has seen, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = Worker(epoch=1)
        self.kept = [Kept(to_state("door", context_of(0), []), {})]
        self.published: list[tuple[Event, Path]] = []
        self.heard: list[Event] = []
        self.ids: dict[tuple[str, Path], str] = {}
        self.appeared = 0

    def publish(self, events: list[Event]) -> None:
        for event in events:
            path = self.worker.paths[event.sighting_id]
            told = [other for name, other in self.ids if name == event.sighting_id]
            missed = [other for other in told if other != path[:-1][: len(other)]]
            self.deliver(event, path)
            # Where the worker knows of all events of the sighting, or all but one, the consumer believes what it says.
            assert len(missed) > 1 or verdict_of(self.latest(event.sighting_id)) == verdict_of(event)

    def deliver(self, event: Event, path: Path) -> None:
        """The consumer is handed the entry."""
        self.published.append((event, path))
        transition = event.sighting_id, path
        is_new = event.event_id not in {heard.event_id for heard in self.heard}
        if transition in self.ids:
            assert event.event_id == self.ids[transition], f"a repeat looks new: {path}"
            assert not is_new
        else:
            assert is_new, f"a verdict is lost: {path}"
            self.ids[transition] = event.event_id
            self.heard.append(event)

    def latest(self, name: str) -> Event:
        return [event for event in self.heard if event.sighting_id == name][-1]

    @rule()
    def appear(self) -> None:
        self.appeared += 1
        self.worker.appear(self.appeared)

    @precondition(lambda self: self.worker.sightings)
    @rule(data=st.data(), person=st.sampled_from(["", "alice", "bob", "carol"]))
    def decide(self, data: st.DataObject, person: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.worker.sightings)))
        self.publish(self.worker.decide(name, person))

    @precondition(lambda self: self.worker.sightings)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.publish(self.worker.end(data.draw(st.sampled_from(sorted(self.worker.sightings)))))

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def a_reply_is_lost(self, data: st.DataObject) -> None:
        """The worker cannot know that the entry was taken, and sends it once more, from its file."""
        event, path = data.draw(st.sampled_from(self.published[-3:]))
        self.deliver(decode(encode(event)), path)

    @rule()
    def keep(self) -> None:
        state = to_state("door", context_of(0), self.worker.sightings.values())
        self.kept.append(Kept(deepcopy(state), dict(self.worker.paths)))

    @rule(data=st.data(), same_worker=st.booleans())
    def crash_and_resume(self, data: st.DataObject, same_worker: bool) -> None:
        """From a state that may be older than the newest: the disk or Redis did not take that one."""
        kept = data.draw(st.sampled_from(self.kept[-3:]))
        sightings = from_state(kept.state, "door", context_of(0), at=NOON, pts_s=0.0)
        epoch = self.worker.epoch + (not same_worker)
        by_name = {sighting.sighting_id: sighting for sighting in sightings}
        self.worker = Worker(epoch, by_name, dict(kept.paths))


def test_no_verdict_is_lost_and_no_repeat_looks_new() -> None:
    run_state_machine_as_test(Workers, settings=settings(max_examples=150, stateful_step_count=30, deadline=None))


def started(worker: Worker) -> str:
    worker.appear(1)
    (name,) = worker.sightings
    return name


def test_a_take_over_that_decides_otherwise_is_heard() -> None:
    first, second = Worker(epoch=1), Worker(epoch=2)
    (alice,) = first.decide(started(first), "alice")
    (bob,) = second.decide(started(second), "bob")
    assert alice.sighting_id == bob.sighting_id
    assert alice.event_id != bob.event_id


def test_a_take_over_that_decides_the_same_is_a_repeat() -> None:
    first, second = Worker(epoch=1), Worker(epoch=2)
    assert [event.event_id for event in first.decide(started(first), "alice")] == [
        event.event_id for event in second.decide(started(second), "alice")
    ]


def test_there_and_back_again_are_three_events() -> None:
    worker = Worker(epoch=1)
    name = started(worker)
    events = [event for person in ("alice", "bob", "alice") for event in worker.decide(name, person)]
    assert [event.type for event in events] == ["started", "updated", "updated"]
    assert len({event.event_id for event in events}) == 3


def test_a_verdict_that_is_reached_in_another_way_is_another_event() -> None:
    first, second = Worker(epoch=1), Worker(epoch=2)
    name = started(first)
    started(second)
    one = [first.decide(name, person)[0] for person in ("alice", "bob", "alice")][-1]
    other = [second.decide(name, person)[0] for person in ("alice", "carol", "alice")][-1]
    assert one.event_id != other.event_id
