"""The past of a real stream: strangers keep their id, get a name, are found by photo; verdicts are explained."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis

from tests.support.ground_truth import GroundTruth, make_ground_truth_clip
from tests.support.redis_servers import RedisServer
from worker.cli import run_command_line
from worker.config import load_config
from worker.events.codec import json_schema
from worker.gallery.folder import FolderGallery
from worker.service.service import Service

pytestmark = [pytest.mark.data, pytest.mark.redis]

RETAIL = "face-reidentification-retail-0095"
VISITS = {"door": "2026-03-01T08:00:00Z", "yard": "2026-03-02T09:00:00Z"}
SINCE = ["--since", "2026-03-01"]


@dataclass(frozen=True, slots=True)
class Site:
    """Two cameras that the same four people passed on two days: two enrolled, two strangers."""

    clip: GroundTruth
    folder: Path
    redis_url: str
    models: Path
    lfw: Path

    @property
    def gallery(self) -> Path:
        return self.folder / "people"

    def stream(self) -> list[dict[str, str]]:
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            return [fields for _, fields in client.xrange("facestream:events")]

    def unknown_sightings(self, camera_id: str) -> dict[str, str]:
        """unknown_id: sighting_id."""
        return {
            event["unknown_id"]: event["sighting_id"]
            for event in self.stream()
            if event["camera_id"] == camera_id and event["type"] == "ended" and not event["identity_id"]
        }

    def run(self, camera_id: str, start_time: str) -> None:
        """Another worker, that knows of the one before only what is on disk."""
        camera = {"id": camera_id, "source": str(self.clip.clip), "start_time": start_time, "policy": "auto"}
        config = load_config(
            None,
            {"cameras": [camera], "gallery": str(self.gallery), "models_dir": self.models,
             "redis": {"url": self.redis_url}, "metrics": {"enabled": False}},
        )  # fmt: skip
        stopped = Service(config).run()
        assert not stopped.errors

    def photo(self, name: str) -> Path:
        return max((self.lfw / "images" / name).glob("*.jpg"))

    @property
    def strangers(self) -> list[str]:
        return [visit.name for visit in self.clip.visits if not visit.enrolled]


@pytest.fixture(scope="module")
def site(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("site")
    server = RedisServer(folder)
    server.start()
    clip = make_ground_truth_clip(
        test_data / "lfw_dev", folder, enrolled=2, strangers=2, seed=4, face_px=(80, 140), visit_s=(1.8, 2.4)
    )
    made = Site(clip, folder, server.url, test_data / "models", test_data / "lfw_dev")
    assert run_command_line(
        ["enroll", "--gallery", str(made.gallery), "--model", RETAIL, "--models-dir", str(made.models), "--json",
         str(clip.enroll_folder)]
    ) == 0  # fmt: skip
    for camera_id, start_time in VISITS.items():
        made.run(camera_id, start_time)
    yield made
    server.stop()


@pytest.fixture
def ask(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def run(*arguments: str) -> list[dict[str, Any]]:
        assert run_command_line([*arguments, "--gallery", str(site.gallery), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_strangers_keep_their_id_across_cameras_and_runs(site: Site) -> None:
    door, yard = site.unknown_sightings("door"), site.unknown_sightings("yard")
    assert len(door) == 2
    assert door.keys() == yard.keys()
    assert "" not in door
    named = [event for event in site.stream() if event["identity_id"]]
    assert {event["identity_name"] for event in named} == {v.name for v in site.clip.visits if v.enrolled}
    assert {event["unknown_id"] for event in named} == {""}


def test_the_list_says_who_was_seen_where_and_how_often(site: Site, ask: Callable[..., Any]) -> None:
    listed = {person["unknown_id"]: person for person in ask("unknown", "list")}
    assert listed.keys() == site.unknown_sightings("door").keys()
    for unknown_id, person in listed.items():
        assert (person["sightings"], person["cameras"]) == (2, ["door", "yard"])
        assert person["first_seen"].startswith("2026-03-01T08:00:")
        assert person["last_seen"].startswith("2026-03-02T09:00:")
        (shown,) = ask("unknown", "show", unknown_id)
        assert [one["camera_id"] for one in shown["seen"]] == ["door", "yard"]


def test_every_sighting_is_explained(site: Site, ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    documents = [document for document in ask("explain", *SINCE) if "sighting_id" in document]
    assert {one["sighting_id"] for one in documents} == {event["sighting_id"] for event in site.stream()}
    for document in documents:
        assert document["reason"] == ("matched" if document["identity_id"] else "below_threshold")
        assert document["faces"] >= document["embedded"] + sum(document["rejected"].values()) > 0
        assert (document["similarity"] >= document["threshold"]) == bool(document["identity_id"])
        (alone,) = ask("explain", document["sighting_id"])
        assert alone == document
    only_door = ask("explain", "--camera", "door", *SINCE, "--until", "2026-03-05")
    assert {one["camera_id"] for one in only_door} == {"door"}
    assert run_command_line(["explain", *SINCE, "--gallery", str(site.gallery)]) == 0
    assert capsys.readouterr().out.count(": below threshold; remembered as u-") == 4


def test_a_photo_finds_the_past_of_somebody_known_and_of_a_stranger(
    site: Site, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", str(site.models))
    enrolled = next(visit.name for visit in site.clip.visits if visit.enrolled)
    (photo,) = (site.clip.enroll_folder / enrolled).iterdir()  # not the one that the clip shows
    found = ask("search", str(photo), *SINCE)
    assert [(one["identity_name"], one["camera_id"]) for one in found] in (
        [(enrolled, "door"), (enrolled, "yard")], [(enrolled, "yard"), (enrolled, "door")],
    )  # fmt: skip
    (one,) = ask("search", str(photo), *SINCE, "--camera", "yard")
    assert one["similarity"] >= one["threshold"]
    (one,) = ask("search", str(photo), *SINCE, "--until", "2026-03-02T00:00:00Z")
    assert one["camera_id"] == "door"
    assert ask("search", str(photo), "--since", "1h") == []
    found = ask("search", str(site.photo(site.strangers[0])), *SINCE)
    assert len({one["unknown_id"] for one in found}) == 1
    assert {one["camera_id"] for one in found} == {"door", "yard"}
    assert found[0]["unknown_id"].startswith("u-")


def test_without_redis_nobody_is_enrolled(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    version = FolderGallery.open(site.gallery).version
    unknown_id = next(iter(site.unknown_sightings("door")))
    arguments = ["unknown", "enroll", unknown_id, "--name", "Cleo", "--gallery", str(site.gallery)]
    assert run_command_line([*arguments, "--redis", "redis://127.0.0.1:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert FolderGallery.open(site.gallery).version == version


def test_enrolling_a_stranger_corrects_the_past_and_names_the_future(site: Site, ask: Callable[..., Any]) -> None:
    unknown_id = next(iter(site.unknown_sightings("door")))
    past = {site.unknown_sightings(camera_id)[unknown_id] for camera_id in VISITS}
    (result,) = ask("unknown", "enroll", unknown_id, "--name", "Cleo", "--redis", site.redis_url)
    assert (result["identity_name"], result["corrected"]) == ("Cleo", 2)
    assert FolderGallery.open(site.gallery).person("Cleo").identity_id == result["identity_id"]
    corrected = [event for event in site.stream() if event["type"] == "corrected"]
    assert {event["sighting_id"] for event in corrected} == past
    for event in corrected:
        jsonschema.Draft202012Validator(json_schema()).validate(event)
        assert (event["identity_id"], event["identity_name"]) == (result["identity_id"], "Cleo")
        assert event["unknown_id"] == ""
        assert float(event["similarity"]) > float(event["threshold"])
        before = next(e for e in site.stream() if e["sighting_id"] == event["sighting_id"] and e["type"] == "ended")
        same = ("camera_id", "track_id", "started_at", "ended_at", "box", "captured_at", "quality")
        assert {name: event[name] for name in same} == {name: before[name] for name in same}
    assert len(ask("unknown", "list")) == 1
    assert run_command_line(["unknown", "show", unknown_id, "--gallery", str(site.gallery)]) == 1
    named = [one for one in ask("explain", *SINCE) if one.get("identity_name") == "Cleo"]
    assert {one["sighting_id"] for one in named} == past

    later = datetime(2026, 3, 3, 8, tzinfo=UTC) + timedelta(hours=1)
    site.run("gate", later.isoformat())
    assert site.unknown_sightings("gate").keys() == site.unknown_sightings("door").keys() - {unknown_id}
    assert "Cleo" in {event["identity_name"] for event in site.stream() if event["camera_id"] == "gate"}

    (undone,) = ask("unknown", "undo", result["step"], "--redis", site.redis_url)
    assert undone["to"] == unknown_id
    again = {event["unknown_id"] for event in site.stream()[-3:] if event["type"] == "corrected"}
    assert again == {unknown_id}, "at both cameras, and at the gate, where the name had done this"
    site.run("roof", "2026-03-03T12:00:00Z")
    assert "Cleo" not in {event["identity_name"] for event in site.stream() if event["camera_id"] == "roof"}
    assert unknown_id in site.unknown_sightings("roof")


def test_a_face_that_was_corrected_is_not_named_so_by_the_next_worker(site: Site, ask: Callable[..., Any]) -> None:
    wrong = next(event for event in site.stream() if event["camera_id"] == "yard" and event["identity_id"])
    (said,) = ask("correct", wrong["sighting_id"], "--redis", site.redis_url)
    assert (said["previous_name"], said["counter_example"]) == (wrong["identity_name"], True)
    site.run("shop", "2026-03-04T08:00:00Z")
    seen = [event for event in site.stream() if event["camera_id"] == "shop" and event["type"] == "ended"]
    assert wrong["identity_name"] not in {event["identity_name"] for event in seen}
    assert said["unknown_id"] in {event["unknown_id"] for event in seen}
    (text,) = [one["text"] for one in ask("explain", "--camera", "shop", *SINCE) if one.get("reason") == "denied"]
    assert f"nearest was {wrong['identity_name']} at" in text
    assert "a face that is nearer still was said not to be that person" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explain", "--since", "yesterday"], 2, "--since 'yesterday' is not a time"),
        (["unknown", "list"], 2, "where is the history?"),
        (["explain", "--gallery", "nowhere"], 1, "no history in"),
        (["unknown", "enroll", "u-1", "--name", "Cleo", "--state-dir", "."], 2, "enroll into which gallery?"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_command_line(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
