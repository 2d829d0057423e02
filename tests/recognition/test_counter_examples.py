"""A face of which somebody said that it is not Alice is not named Alice again; Alice still is."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.past import sighting
from tests.support.stand_ins import (
    LIKENESS,
    PLACES,
    Film,
    StandInDetector,
    StandInEmbedder,
    camera,
    detector_of,
    embedder_of,
    enroll,
    gallery_of,
)
from worker.config import Config, RecognitionConfig
from worker.history.recorder import Recorder
from worker.history.records import EmbedderId
from worker.history.store import FILE, History
from worker.recognition.counter_examples import CounterExamples
from worker.recognition.matching import identify_faces
from worker.recognition.pipeline import Pipeline
from worker.types import Embeddings

ALICE, BOB = 1, 2
EMBEDDER = StandInEmbedder()
MODEL = EmbedderId(EMBEDDER.model_id, EMBEDDER.preprocessing_digest)
AXES = np.eye(PLACES, dtype=np.float32)


def face(**parts: float) -> np.ndarray:
    """A unit vector with these cosines to the places of Alice and Bob, and the rest at a place of its own."""
    made = parts.get("alice", 0.0) * AXES[ALICE] + parts.get("bob", 0.0) * AXES[BOB]
    rest = AXES[5 if "other" not in parts else int(parts["other"])]
    vector: np.ndarray = (made + np.sqrt(max(0.0, 1 - made @ made)) * rest).astype(np.float32)
    return vector


def say_it_is_not(history: History, person: str, template: np.ndarray, number: int = 1, **changes: Any) -> None:
    past = sighting(number, template, identity_id=person, identity_name=person, **({"embedder": MODEL} | changes))
    history.write([past], keep_s=1e6, remember_s=1e6)
    history.deny(past)


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with History.open(tmp_path, create=True) as opened:
        yield opened


def named(history: History, vector: np.ndarray, **people: int) -> tuple[str, str]:
    """The name of a face and the reason."""
    gallery = gallery_of(EMBEDDER, **(people or {"Alice": ALICE, "Bob": BOB}))
    examples = CounterExamples(MODEL, history)
    examples.refresh(gallery)
    (match,) = identify_faces(Embeddings(vector[None], EMBEDDER.model_id), gallery, 0.5, examples.search)
    return match.identity_name, match.reason


def test_the_face_itself_and_one_like_it_lose_the_name(history: History) -> None:
    assert named(history, face(alice=0.9)) == ("Alice", "matched")
    say_it_is_not(history, "Alice", face(alice=0.9))
    assert named(history, face(alice=0.9)) == ("", "denied")
    assert named(history, face(alice=0.85)) == ("", "denied")


def test_the_person_herself_keeps_the_name(history: History) -> None:
    say_it_is_not(history, "Alice", face(alice=0.6))
    assert named(history, AXES[ALICE]) == ("Alice", "matched")
    assert named(history, face(alice=0.9, other=6)) == ("Alice", "matched")


def test_somebody_else_who_is_near_enough_gets_the_name_instead(history: History) -> None:
    between = face(alice=0.72, bob=0.68)
    assert named(history, between)[0] == "Alice"
    say_it_is_not(history, "Alice", between)
    assert named(history, between) == ("Bob", "matched")
    say_it_is_not(history, "Bob", between, number=2)
    assert named(history, between) == ("", "denied")


def test_a_person_whom_it_does_not_show_makes_nobody_ambiguous(history: History) -> None:
    stranger = face(alice=0.7, bob=0.69)
    assert named(history, stranger) == ("", "ambiguous")
    say_it_is_not(history, "Bob", stranger)
    assert named(history, stranger) == ("Alice", "matched")


def test_where_nobody_else_is_known_nobody_is_named(history: History) -> None:
    say_it_is_not(history, "Alice", face(alice=0.9))
    assert named(history, face(alice=0.9), Alice=ALICE) == ("", "denied")


def test_a_face_that_was_too_far_from_everybody_is_so_still(history: History) -> None:
    say_it_is_not(history, "Alice", face(alice=0.3))
    assert named(history, face(alice=0.3)) == ("", "below_threshold")


def test_faces_of_another_model_do_not_count(history: History) -> None:
    say_it_is_not(history, "Alice", face(alice=0.9), embedder=EmbedderId("other", "digest"))
    assert named(history, face(alice=0.9))[0] == "Alice"


class Running:
    """A pipeline that shows one stranger who looks like Alice, and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(cameras=(camera(),), recognition=RecognitionConfig(verdict_timeout_s=0.3, linger_s=1.0))
        self.recorder = Recorder(folder, self.config, gather_s=0.01)
        self.history = History.open(folder)
        self.gallery = gallery_of(EMBEDDER, Alice=ALICE, Bob=BOB)
        self.film = Film()
        examples = CounterExamples(MODEL, self.history, recorder=self.recorder)
        self.pipeline = Pipeline(
            self.config, detector_of(StandInDetector(ALICE)), embedder_of(EMBEDDER), self.gallery,
            recorder=self.recorder, counter_examples=examples,
        )  # fmt: skip

    def tell(self, frames: int = 3) -> list[tuple[str, str]]:
        events = [event for _ in range(frames) for event in self.pipeline.process([self.film.frame()])]
        return [(event.type, event.identity_name) for event in events]

    def close(self) -> None:
        self.recorder.close()
        self.history.close()


@pytest.fixture
def running(tmp_path: Path) -> Any:
    made = Running(tmp_path)
    yield made
    made.close()


def test_a_running_worker_follows_what_is_said_and_taken_back(running: Running, tmp_path: Path) -> None:
    assert running.tell() == [("started", "Alice")]
    with History.open(tmp_path) as elsewhere:
        say_it_is_not(elsewhere, "Alice", AXES[ALICE])
        assert running.tell() == [("updated", "")]
        (corrected,) = elsewhere.sightings()
        elsewhere.take_back(corrected, "Alice")
        assert running.tell() == [("updated", "Alice")]


def test_what_has_expired_counts_no_more(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    past = sighting(1, AXES[ALICE], identity_id="Alice", identity_name="Alice", embedder=MODEL)
    running.history.write([past], keep_s=60.0, remember_s=60.0)
    running.history.deny(past)
    assert running.tell(4) == [("started", "")]
    now_s = time.time()
    monkeypatch.setattr("time.time", lambda: now_s + 61.0)
    assert running.tell() == [("updated", "Alice")]


def test_who_is_removed_from_the_gallery_is_forgotten_in_what_was_said(running: Running, tmp_path: Path) -> None:
    with History.open(tmp_path) as elsewhere:
        say_it_is_not(elsewhere, "Alice", AXES[ALICE])
        running.tell(4)
        enroll(running.gallery, Carla=6)
        running.gallery.remove("Alice")
        running.tell()
        running.recorder.close()
        assert elsewhere.counter_examples(MODEL) == []
        assert elsewhere.sightings()[0].denials[0].identity_name == ""


def test_a_history_that_fails_leaves_the_worker_with_what_it_knows(running: Running, tmp_path: Path) -> None:
    say_it_is_not(running.history, "Alice", AXES[ALICE])
    assert running.tell(4) == [("started", "")]
    (tmp_path / FILE).write_bytes(b"damaged" * 2000)
    assert running.tell() == []


def test_why_a_name_was_not_given_can_be_asked(running: Running, tmp_path: Path) -> None:
    say_it_is_not(running.history, "Alice", AXES[ALICE])
    running.tell(4)
    running.pipeline.close()
    running.recorder.close()
    with History.open(tmp_path) as past:
        (told,) = [one for one in past.sightings() if one.sighting_id != "door_1"]
    assert (told.account.reason, told.account.nearest) == ("denied", "Alice")
    assert told.account.similarity == pytest.approx(LIKENESS, abs=1e-5)
