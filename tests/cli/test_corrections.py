"""``facestream correct``: that was not Anna."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import redis

from tests.support.command_line import RETAIL
from tests.support.past import sighting
from tests.support.publishing import stored
from tests.support.sample_events import make_event
from worker.cli import run_command_line
from worker.events.codec import encode, json_schema
from worker.events.fencing import raise_fence
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.history.records import EmbedderId, PastSighting
from worker.history.store import FILE, History
from worker.types import Event

AXES = np.eye(8, dtype=np.float32)
MODEL = EmbedderId("tiny", "digest")
WEEK_S = 7 * 86_400.0
pytestmark = pytest.mark.redis


class Site:
    """A gallery of Anna and Ben, and the history of its worker: one sighting that names Anna, one of nobody."""

    def __init__(self, folder: Path, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.gallery, self.state, self.redis_url, self._capsys = (
            folder / "people",
            folder / "people.state",
            redis_url,
            capsys,
        )
        people = FolderGallery.create(self.gallery, MODEL.model_id, MODEL.preprocessing_digest, len(AXES[0]))
        for number, name in enumerate(["Anna", "Ben"]):
            people.add([NewSample(name, AXES[number], f"{name}.jpg", name, identity_id=f"p-{name.lower()}")])
        self.template = (0.8 * AXES[0] + 0.6 * AXES[3]).astype(np.float32)
        self.put(self.named("named"))
        self.put(sighting(5, AXES[6], sighting_id="unnamed", unknown_id="u-1", embedder=MODEL))

    def named(self, sighting_id: str, number: int = 1, **changes: Any) -> PastSighting:
        event = make_event(
            identity_id="p-anna", identity_name="Anna", sighting_id=sighting_id, type="ended", similarity=0.8,
            threshold=0.5, epoch=7,
        )  # fmt: skip
        fields = {
            "sighting_id": sighting_id, "template": self.template, "identity_id": "p-anna", "identity_name": "Anna",
            "embedder": MODEL, "event": encode(event),
        }  # fmt: skip
        return sighting(number, **(fields | changes))

    def put(self, *sightings: PastSighting) -> None:
        with History.open(self.state, create=True) as history:
            history.write(sightings, keep_s=WEEK_S, remember_s=WEEK_S)

    def run(self, *arguments: str, code: int = 0, redis_url: str = "") -> tuple[list[dict[str, Any]], str]:
        to = ["--redis", redis_url or self.redis_url] if arguments[0] == "correct" else []
        assert run_command_line([*arguments, "--gallery", str(self.gallery), *to]) == code
        said = self._capsys.readouterr()
        return [json.loads(line) for line in said.out.splitlines() if line.startswith("{")], said.out + said.err

    def correct(self, *arguments: str, **options: Any) -> dict[str, Any]:
        (document,), _text = self.run("correct", *arguments, "--json", **options)
        return document

    def refusal(self, *arguments: str, code: int = 1, **options: Any) -> str:
        before = self.past()
        _documents, text = self.run("correct", *arguments, code=code, **options)
        assert len(text.splitlines()) == 1
        assert self.past() == before, "nothing was changed"
        assert self.events() == []
        return text

    def past(self) -> list[tuple[Any, ...]]:
        with History.open(self.state) as history:
            return [
                (one.sighting_id, one.identity_name, one.unknown_id, one.corrections, one.denials)
                for one in history.sightings()
            ]

    def events(self) -> list[Event]:
        return stored(self.redis_url)

    def counter_examples(self) -> set[str]:
        with History.open(self.state) as history:
            return {example.identity_id for example in history.counter_examples(MODEL)}


@pytest.fixture
def site(tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, redis_url, capsys)


def test_that_was_not_anna(site: Site) -> None:
    said = site.correct("named")
    assert (said["previous_name"], said["identity_name"], said["counter_example"]) == ("Anna", "", True)
    (event,) = site.events()
    jsonschema.Draft202012Validator(json_schema()).validate(encode(event))
    assert (event.type, event.sighting_id, event.event_id) == ("corrected", "named", said["event_id"])
    assert (event.identity_id, event.identity_name, event.unknown_id) == ("", "", said["unknown_id"])
    assert said["unknown_id"].startswith("u-")
    assert site.counter_examples() == {"p-anna"}

    listed, _ = site.run("unknown", "list", "--json")
    assert said["unknown_id"] in {person["unknown_id"] for person in listed}
    (told,), _ = site.run("explain", "named", "--json")
    assert [one["identity_name"] for one in told["denied"]] == ["Anna"]
    assert "that this was not Anna; remembered as u-" in told["text"]


def test_the_right_person_gets_the_name(site: Site) -> None:
    said = site.correct("named", "--person", "Ben")
    (event,) = site.events()
    assert (event.identity_id, event.identity_name, said["identity_name"]) == ("p-ben", "Ben", "Ben")
    assert event.similarity == pytest.approx(float(site.template @ AXES[1]), abs=1e-6), "that of Ben"
    assert "named Ben afterwards" in site.run("explain", "named")[1]


def test_what_was_said_can_be_undone(site: Site) -> None:
    said = site.correct("named")
    undone = site.correct("named", "--undo")
    assert (undone["identity_name"], undone["counter_example"]) == ("Anna", False)
    corrected, back = site.events()
    assert corrected.event_id != back.event_id
    assert (back.type, back.identity_id, back.similarity) == ("corrected", "p-anna", 0.8)
    assert site.counter_examples() == set()
    assert said["unknown_id"] not in {person["unknown_id"] for person in site.run("unknown", "list", "--json")[0]}
    again = site.correct("named")
    assert again["event_id"] not in {corrected.event_id, back.event_id}
    assert again["unknown_id"] in {person["unknown_id"] for person in site.run("unknown", "list", "--json")[0]}


def test_an_unknown_person_who_is_met_again_is_the_same(site: Site) -> None:
    site.put(site.named("later", 9))
    first = site.correct("named")
    assert site.correct("later")["unknown_id"] == first["unknown_id"]
    site.correct("named", "--undo")
    assert first["unknown_id"] in {person["unknown_id"] for person in site.run("unknown", "list", "--json")[0]}


def test_it_reaches_the_stream_though_the_camera_has_changed_hands(site: Site) -> None:
    with redis.Redis.from_url(site.redis_url) as client:
        raise_fence(client, "facestream:events", "door", 1_000_000)
    site.correct("named")
    assert [event.type for event in site.events()] == ["corrected"]


def test_without_redis_nothing_is_changed_and_the_next_try_has_the_same_event(site: Site) -> None:
    text = site.refusal("named", redis_url="redis://127.0.0.1:1/0")
    assert "cannot be reached" in text


def test_a_command_that_dies_after_the_event_may_be_repeated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(History, "deny", lambda *_args, **_kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run_command_line(["correct", "named", "--gallery", str(site.gallery), "--redis", site.redis_url]) == 130
    site.correct("named")
    assert len({event.event_id for event in site.events()}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing-like-it"], 1, "it still goes on (wait for its 'ended' event), has expired"),
        (["unnamed"], 1, "'facestream unknown enroll u-1 --name NAME'"),
        (["named", "--person", "Anna"], 1, "is Anna already"),
        (["named", "--person", "Nobody"], 1, "knows nobody called 'Nobody'"),
        (["named", "--undo"], 1, "has not been corrected: there is nothing to undo"),
        (["named", "--undo", "--unknown"], 2, "give one of --person NAME, --unknown and --undo"),
    ],
)
def test_what_cannot_be_corrected_is_told_in_one_line(site: Site, arguments: list[str], code: int, words: str) -> None:
    assert words in site.refusal(*arguments, code=code)


def test_without_a_gallery_it_asks_for_one(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["correct", "named", "--state-dir", str(site.state)]) == 2
    assert "which gallery holds the names? give --gallery PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "caveat"),
    [
        (lambda site: site.put(site.named("named", template=None)), "no face of that sighting is remembered"),
        (lambda site: site.put(site.named("named", embedder=EmbedderId("other", "d"))), "seen with the model other"),
        (lambda site: FolderGallery.open(site.gallery).remove("Anna"), "Anna is not in the gallery any more"),
    ],
)
def test_a_face_that_is_no_counter_example_is_corrected_all_the_same_and_said_to_be_none(
    site: Site, make: Callable[[Site], None], caveat: str
) -> None:
    make(site)
    said = site.correct("named")
    assert caveat in said["caveat"]
    assert not said["counter_example"]
    assert site.counter_examples() == set()
    assert [event.type for event in site.events()] == ["corrected"]


@pytest.mark.parametrize("how", [["remove", "Anna"], ["remove-sample"]])
def test_a_person_who_is_removed_takes_the_counter_examples_along(site: Site, how: list[str]) -> None:
    site.correct("named")
    sample_id = FolderGallery.open(site.gallery).person("Anna").samples[0].sample_id
    site.run("gallery", *how, *([sample_id] if len(how) == 1 else []))
    assert site.counter_examples() == set()
    (told,), text = site.run("explain", "named", "--json")
    assert "Anna" not in json.dumps(told["denied"]) + told["text"].split("this was not")[1]
    _, text = site.run("correct", "named", "--undo", code=1)
    assert "named somebody who has been removed from the gallery since" in text


def test_an_unknown_person_who_is_forgotten_takes_the_counter_example_along(site: Site) -> None:
    said = site.correct("named")
    site.run("unknown", "forget", said["unknown_id"])
    assert site.counter_examples() == set()


def test_a_name_that_was_given_later_is_not_undone(site: Site) -> None:
    said = site.correct("named")
    assert run_command_line(
        ["unknown", "enroll", said["unknown_id"], "--name", "Carla", "--gallery", str(site.gallery), "--redis",
         site.redis_url]
    ) == 0  # fmt: skip
    _, text = site.run("correct", "named", "--undo", code=1)
    assert "was given the name Carla after that" in text
    assert site.counter_examples() == {"p-anna"}, "Carla is still not Anna"


@pytest.mark.data
def test_photos_of_that_face_are_not_named_so_either(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", str(test_data / "models"))
    photos, gallery = test_data / "photos" / "train", tmp_path / "people"
    assert run_command_line(["enroll", "--gallery", str(gallery), "--model", RETAIL, str(photos)]) == 0
    capsys.readouterr()
    photo = min((photos / "obama").iterdir())

    def identified() -> dict[str, Any]:
        assert run_command_line(["identify", "--gallery", str(gallery), str(photo), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    before = identified()
    assert before["identity_name"] == "obama"
    people = FolderGallery.open(gallery)
    vectors, _samples = people.vectors("obama")
    made_with = EmbedderId(people.model_id, people.preprocessing_digest)
    past = sighting(1, vectors[0], identity_id=before["identity_id"], identity_name="obama", embedder=made_with)
    with History.open(tmp_path / "people.state", create=True) as history:
        history.write([past], keep_s=WEEK_S, remember_s=WEEK_S)
        history.deny(past)
        after = identified()
        assert (after["identity_name"], after["reason"]) == ("", "denied")
    shutil.rmtree(tmp_path / "people.state")
    (tmp_path / "people.state").mkdir()
    (tmp_path / "people.state" / FILE).write_bytes(b"this is no database" * 500)
    assert identified()["identity_name"] == "obama", "a history that cannot be read does not end it"
