"""The line from frames to events, on stand-ins for the networks: cameras come and go, rules and models change."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.stand_ins import (
    PICTURE,
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
from worker.config import CameraConfig, Config, EvidenceConfig, RecognitionConfig, UnknownsConfig
from worker.errors import GalleryError
from worker.gallery.folder import FolderGallery
from worker.history.evidence import open_evidence
from worker.history.records import EmbedderId
from worker.observer import Observer
from worker.recognition.attention import TrackedFace
from worker.recognition.pipeline import Pipeline
from worker.recognition.unknowns import Unknowns
from worker.types import Chips, Embeddings, Event, Frame, Tracks
from worker.video.photos import read_photo

ALICE, BOB, STRANGER = 1, 2, 5


class Rig:
    """A pipeline whose gallery knows Alice and Bob, and the films of its cameras."""

    def __init__(self, *cameras: CameraConfig, recognition: dict[str, Any] | None = None, **options: Any) -> None:
        self.detector, self.embedder = StandInDetector(), StandInEmbedder()
        self.gallery = gallery_of(self.embedder, Alice=ALICE, Bob=BOB)
        rules = {"verdict_timeout_s": 0.5, "linger_s": 2.0} | (recognition or {})
        config = Config(worker_id="w", cameras=cameras or (camera(),), recognition=RecognitionConfig(**rules))
        self.config = config
        self.pipeline = Pipeline(
            config, detector_of(self.detector), embedder_of(self.embedder), self.gallery, **options
        )
        self.films = {one.id: Film(one.id) for one in config.cameras}

    def run(self, frames: int, *places: int, camera_id: str = "door") -> list[Event]:
        """The events of so many frames that show those who stand at ``places``."""
        self.detector.places = places
        film = self.films.setdefault(camera_id, Film(camera_id))
        return [event for _ in range(frames) for event in self.pipeline.process([film.frame()])]


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.identity_name) for event in events]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_known_person_is_named_and_a_stranger_is_not(rig: Rig) -> None:
    events = rig.run(10, ALICE, STRANGER)
    assert sorted(told(events)) == [("started", ""), ("started", "Alice")]
    assert {(event.worker_id, event.model_id, event.camera_id) for event in events} == {("w", "model", "door")}
    assert sorted(told(rig.pipeline.close())) == [("ended", ""), ("ended", "Alice")]


@pytest.mark.parametrize("apart_s", [1.1, 3.0])
def test_a_person_in_front_of_a_camera_with_few_pictures_is_followed_all_the_same(apart_s: float) -> None:
    rig = Rig(recognition={"linger_s": 10.0})
    rig.detector.places = [ALICE]
    events = []
    for number in range(6):
        at_s = number * apart_s
        frame = replace(rig.films["door"].frame(), pts_s=at_s, spacing_s=apart_s)
        events += rig.pipeline.process([frame])
    assert told(events + rig.pipeline.close()) == [("started", "Alice"), ("ended", "Alice")]


def test_a_face_in_a_masked_area_is_none_and_events_name_the_zones_that_somebody_was_in() -> None:
    def outline(first: int, last: int) -> list[list[float]]:
        return [[x / PLACES, y] for x, y in ((first, 0), (last + 1, 0), (last + 1, 1), (first, 1))]

    refused: list[tuple[str, int]] = []

    class Counting(Observer):
        def face_rejected(self, camera_id: str, reason: str, count: int = 1) -> None:
            refused.append((reason, count))

    zones = {"till": outline(ALICE, ALICE), "whole left": outline(0, BOB), "yard": outline(6, 7)}
    rig = Rig(camera(masks=[outline(STRANGER, STRANGER)], zones=zones), observer=Counting())
    events = rig.run(10, ALICE, BOB, STRANGER)
    assert sorted((event.identity_name, event.zones) for event in events) == [
        ("Alice", "till,whole left"), ("Bob", "whole left"),
    ]  # fmt: skip
    assert refused.count(("masked", 1)) == 10
    state = rig.pipeline.state("door")
    successor = Rig(camera())
    successor.pipeline.remove("door")
    successor.pipeline.add(rig.config.cameras[0], resume=state)
    assert [event.zones for event in successor.pipeline.close()] == ["till,whole left", "whole left"]


def test_the_faces_of_all_cameras_are_embedded_together() -> None:
    rig = Rig(camera("door"), camera("gate"))
    rig.detector.places = [ALICE, STRANGER]
    rig.pipeline.process([rig.films["door"].frame(), rig.films["gate"].frame()])
    assert rig.embedder.batches == [4]


def test_no_more_faces_are_embedded_at_once_than_configured() -> None:
    rig = Rig(recognition={"batch_size": 2})
    rig.run(1, ALICE, BOB, STRANGER)
    assert rig.embedder.batches == [2, 1]


def test_a_camera_that_is_added_tells_with_its_epoch_and_is_there_only_once(rig: Rig) -> None:
    rig.pipeline.add(camera("gate"), epoch=7)
    assert {event.epoch for event in rig.run(5, ALICE, camera_id="gate")} == {7}
    with pytest.raises(ValueError, match="gate is in the pipeline already"):
        rig.pipeline.add(camera("gate"))


def test_a_camera_that_is_removed_ends_its_sightings_and_no_others() -> None:
    rig = Rig(camera("door"), camera("gate"))
    rig.run(5, ALICE)
    rig.run(5, BOB, camera_id="gate")
    assert told(rig.pipeline.remove("door")) == [("ended", "Alice")]
    assert told(rig.pipeline.close()) == [("ended", "Bob")]


def test_who_is_handed_over_goes_on_as_the_same_sighting_at_the_next_pipeline(rig: Rig) -> None:
    (started,) = rig.run(5, ALICE)
    state = rig.pipeline.state("door")
    assert rig.pipeline.remove("door", end=False) == []
    rig.pipeline.add(camera(), epoch=2, resume=state)
    assert rig.pipeline.state("door") == state, "until the first frame it can be handed over once more"
    assert rig.run(5, ALICE) == []
    (ended,) = rig.pipeline.remove("door")
    assert (ended.type, ended.sighting_id, ended.epoch) == ("ended", started.sighting_id, 2)


def test_other_rules_revise_the_verdict_on_who_is_there(rig: Rig) -> None:
    rig.run(5, ALICE)
    rig.pipeline.adjust(rig.config.recognition.model_copy(update={"threshold": 0.9}))
    assert told(rig.run(1, ALICE)) == [("updated", "")]
    rig.pipeline.adjust(rig.config.recognition)
    assert told(rig.run(1, ALICE)) == [("updated", "Alice")]


def test_the_threshold_of_a_camera_comes_before_that_of_the_configuration_and_of_the_model(rig: Rig) -> None:
    rules = rig.config.recognition
    assert rig.run(5, ALICE)[0].threshold == 0.5
    rig.pipeline.adjust(rules.model_copy(update={"threshold": 0.6}))
    rig.pipeline.adjust(rules.model_copy(update={"threshold": 0.6}), [camera(threshold=0.7), camera("elsewhere")])
    assert [event.threshold for event in rig.pipeline.close()] == [0.7]


def test_another_model_ends_every_sighting_and_sights_anew(rig: Rig) -> None:
    closed: list[str] = []
    rig.gallery.close = lambda: closed.append("old gallery")  # type: ignore[method-assign]
    rig.pipeline.add(camera("gate"), epoch=3)
    (first,) = rig.run(5, ALICE, camera_id="gate")
    other = StandInEmbedder("other")
    events = rig.pipeline.adopt(embedder_of(other), gallery_of(other, Ann=ALICE))
    assert [(event.type, event.sighting_id, event.model_id) for event in events] == [
        ("ended", first.sighting_id, "model")
    ]
    assert closed == ["old gallery"]
    assert rig.pipeline.preprocessing_digest == other.preprocessing_digest
    (again,) = rig.run(5, ALICE, camera_id="gate")
    assert (again.identity_name, again.model_id, again.epoch) == ("Ann", "other", 3)
    assert again.sighting_id != first.sighting_id


def test_unknown_people_get_their_ids_by_the_model_that_is_adopted(rig: Rig) -> None:
    assert rig.run(8, STRANGER)[0].unknown_id == ""
    other = StandInEmbedder("other")
    model = EmbedderId(other.model_id, other.preprocessing_digest)
    unknowns = Unknowns(UnknownsConfig(), model, other.dimension)
    rig.pipeline.adopt(embedder_of(other), gallery_of(other), unknowns)
    (started,) = rig.run(8, STRANGER)
    assert started.unknown_id.startswith("u-")
    assert len(unknowns) == 1


def test_time_alone_ends_the_sighting_of_who_has_left(rig: Rig) -> None:
    (started,) = rig.run(5, ALICE)
    last_s = rig.films["door"].pts_s
    assert rig.pipeline.idle("door", last_s + 1.9) == []
    (ended,) = rig.pipeline.idle("door", last_s + 2.1)
    assert (ended.type, ended.sighting_id, ended.ended_at) == ("ended", started.sighting_id, ended.captured_at)


def test_a_camera_that_never_sends_a_frame_ends_what_it_was_to_go_on_with() -> None:
    rig = Rig(camera("other"))
    (started,) = rig.run(5, ALICE, camera_id="other")
    waiting = Rig(recognition={"linger_s": 1e-6})
    waiting.pipeline.add(camera("other"), resume=rig.pipeline.state("other"))
    (ended,) = waiting.pipeline.idle("other", 0.0)
    assert (ended.type, ended.sighting_id) == ("ended", started.sighting_id)
    assert waiting.pipeline.idle("door", 0.0) == []


def test_faces_that_are_followed_are_searched_for_only_now_and_then() -> None:
    rig = Rig(followed=["door"])
    assert told(rig.run(12, ALICE)) == [("started", "Alice")]
    assert (rig.detector.searched, rig.detector.followed) == (4, 8)


def test_under_load_whole_pictures_are_searched_less_often() -> None:
    rig = Rig(followed=["door"])
    rig.detector.places = [ALICE]
    for _ in range(12):
        rig.pipeline.process([rig.films["door"].frame()], patience=4.0)
    assert rig.detector.searched == 2


def test_the_whole_picture_is_searched_at_once_when_a_followed_face_is_not_where_it_should_be() -> None:
    rig = Rig(followed=["door"])
    rig.run(1, ALICE)
    rig.run(1, BOB)
    assert rig.detector.searched == 2


def test_every_frame_of_a_camera_that_is_not_followed_is_searched(rig: Rig) -> None:
    rig.run(6, ALICE)
    assert (rig.detector.searched, rig.detector.followed) == (6, 0)


def test_somebody_who_is_enrolled_meanwhile_gets_a_name(rig: Rig) -> None:
    assert told(rig.run(8, STRANGER)) == [("started", "")]
    enroll(rig.gallery, Cem=STRANGER)
    assert told(rig.run(1, STRANGER)) == [("updated", "Cem")]


def test_a_camera_is_worth_most_while_somebody_is_undecided(rig: Rig) -> None:
    assert rig.pipeline.attention("door") == "empty"
    rig.run(1, ALICE)
    assert rig.pipeline.attention("door") == "deciding"
    rig.run(3, ALICE)
    assert rig.pipeline.attention("door") == "settled"


def test_watchers_see_the_frames_the_embedded_faces_and_the_verdicts() -> None:
    labels: list[list[str]] = []
    faces: list[int] = []
    verdicts: list[str] = []

    def watch(frame: Frame, tracks: Tracks, names: list[str]) -> None:
        assert len(tracks) == len(names)
        labels.append(names)

    def learn(batch: Sequence[TrackedFace]) -> None:
        faces.extend(face.track_id for face in batch)

    rig = Rig(watcher=watch, on_faces=learn, on_verdict=lambda sighting: verdicts.append(sighting.label))
    rig.run(4, ALICE)
    assert labels[0] == ["..."]
    assert labels[-1] == ["Alice"]
    assert faces == [1, 1]
    assert verdicts == ["...", "Alice"]


def test_a_gallery_that_was_switched_stops_the_step_before_any_verdict(rig: Rig) -> None:
    def switched() -> bool:
        raise GalleryError("made with another model now")

    rig.gallery.reload_if_changed = switched  # type: ignore[method-assign]
    with pytest.raises(GalleryError, match="another model"):
        rig.run(1, ALICE)


def test_a_pipeline_without_people_calls_everybody_unknown() -> None:
    rig = Rig()
    empty: FolderGallery = gallery_of(rig.embedder)
    pipeline = Pipeline(rig.config, detector_of(rig.detector), embedder_of(rig.embedder), empty)
    rig.detector.places = [ALICE]
    film = Film()
    events = [event for _ in range(8) for event in pipeline.process([film.frame()])]
    assert told(events) == [("started", "")]
    assert np.isclose(events[0].threshold or 0.0, 0.5)


def test_somebody_who_leaves_after_one_good_face_is_named_and_the_event_says_on_how_few(rig: Rig) -> None:
    rig.run(1, ALICE)
    blurred = replace(rig.films["door"].frame(), picture=np.full_like(PICTURE, 90))
    assert rig.pipeline.process([blurred]) == []
    events = rig.run(15)
    assert [(event.type, event.identity_name, event.embedded_faces) for event in events] == [("started", "Alice", 1)]


@pytest.mark.parametrize(
    "end",
    [Pipeline.close, lambda pipeline: pipeline.end("door"), lambda pipeline: pipeline.remove("door")],
    ids=["the worker stops", "the file ends", "the camera is removed"],
)
def test_somebody_of_whom_the_last_frames_showed_one_good_face_is_named(
    rig: Rig, end: Callable[[Pipeline], list[Event]]
) -> None:
    assert rig.run(1, ALICE) == []
    blurred = replace(rig.films["door"].frame(), picture=np.full_like(PICTURE, 90))
    assert rig.pipeline.process([blurred]) == []
    assert told(end(rig.pipeline)) == [("started", "Alice"), ("ended", "Alice")]


class Shown(StandInEmbedder):
    """Makes the vector of the person who is ``shown``, wherever the face is."""

    shown = ALICE
    looked_at = 0

    def embed(self, chips: Chips) -> Embeddings:
        self.looked_at += len(chips)
        return Embeddings(np.eye(PLACES, dtype=np.float32)[[self.shown] * len(chips)], self.model_id)


class FilmedWithPictures:
    """A camera with pictures of its sightings, kept in a folder: Alice's are dark, other people's are bright."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.embedder = folder, Shown()
        self.evidence = open_evidence(EvidenceConfig(store=str(folder), frames=False), Observer())
        rules = RecognitionConfig(verdict_timeout_s=0.5, linger_s=2.0, min_quality=0.0)
        self.pipeline = Pipeline(
            Config(worker_id="w", cameras=(camera(),), recognition=rules),
            detector_of(StandInDetector(ALICE)),
            embedder_of(self.embedder),
            gallery_of(self.embedder, Alice=ALICE, Bob=BOB),
            evidence=self.evidence,
        )
        self.film = Film()

    def run(self, frames: int, person: int) -> list[Event]:
        """The events of frames in which ``person`` stands, always at the same place; told to the pictures as well."""
        self.embedder.shown = person
        image = PICTURE // 3 if person == ALICE else PICTURE
        made = [
            event for _ in range(frames) for event in self.pipeline.process([replace(self.film.frame(), picture=image)])
        ]
        self._tell(made)
        return made

    def end(self) -> dict[str, int]:
        """Ends it; returns the brightness of each picture by the id of its sighting, without its colons."""
        self._tell(self.pipeline.close())
        assert self.evidence
        self.evidence.close()
        return {
            path.name.removesuffix(".face.jpg"): round(float(read_photo(path).mean()))
            for path in self.folder.rglob("*.face.jpg")
        }

    def _tell(self, events: list[Event]) -> None:
        assert self.evidence
        for event in events:
            self.evidence.told(event)


def test_a_face_that_is_held_back_does_not_become_the_picture_of_the_sighting(tmp_path: Path) -> None:
    scene = FilmedWithPictures(tmp_path)
    (started,) = scene.run(10, ALICE)
    looked_at = scene.embedder.looked_at
    while scene.embedder.looked_at == looked_at:
        assert scene.run(1, STRANGER) == []
    scene.run(10, ALICE)
    ((sighting_id, brightness),) = scene.end().items()
    assert sighting_id == started.sighting_id.replace(":", "")
    assert brightness < 60


def test_the_pictures_of_another_person_in_the_track_go_to_their_own_sighting(tmp_path: Path) -> None:
    scene = FilmedWithPictures(tmp_path)
    events = scene.run(10, ALICE) + scene.run(60, BOB)
    named = {event.sighting_id.replace(":", ""): event.identity_name for event in events}
    pictures = scene.end()
    assert {named[sighting_id]: brightness < 60 for sighting_id, brightness in pictures.items()} == {
        "Alice": True,
        "Bob": False,
    }
