"""The past by the API: found, explained, corrected; pictures only for who is logged in."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.console import API, LONG_S, Console, console_config, keep_picture, of_anna, running_console
from tests.support.past import AXES
from tests.support.publishing import stored
from tests.support.redis_servers import RedisServer
from worker.encryption import parse_key
from worker.gallery.contents import NewSample
from worker.gallery.crops import Crop, CropStore
from worker.types import Detections


def test_sightings_are_found_by_person_camera_and_time_newest_first(console: Console) -> None:
    client = console.as_role("viewer")

    def ids(**params: str | int) -> list[str]:
        return [item["sighting_id"] for item in client.get(f"{API}/sightings", params=params).json()["items"]]

    assert ids() == ["door_5", "door_4", "door_3", "door_2", "door_1"]
    assert ids(identity_id="p-anna") == ["door_2", "door_1"]
    assert ids(unknown_id="u-1") == ["door_4", "door_3"]
    assert ids(camera_id="yard") == ["door_4"]
    assert ids(since="2026-01-01T12:03:30Z", until="2026-01-01T12:04:30Z") == ["door_4"]
    page = client.get(f"{API}/sightings", params={"limit": 3}).json()
    assert [item["sighting_id"] for item in page["items"]] == ["door_5", "door_4", "door_3"]
    assert ids(limit=3, cursor=page["next_cursor"]) == ["door_2", "door_1"]
    assert client.get(f"{API}/sightings", params={"since": "yesterday"}).status_code == 400


def test_the_nearest_people_come_with_the_face_that_is_the_most_similar(console: Console) -> None:
    other = (0.8 * AXES[0] + 0.6 * AXES[4]).astype(np.float32)
    console.parts.gallery().add([NewSample("Anna", other, "other.jpg", "f" * 64)])
    client = console.as_role("viewer")
    found = client.get(f"{API}/sightings/door_1/nearest").json()["items"]
    assert [(each["identity_name"], each["similarity"], each["photo"], each["samples"]) for each in found] == [
        ("Anna", 1.0, "Anna.jpg", 2), ("Bob", 0.0, "Bob.jpg", 1),
    ]  # fmt: skip
    assert client.get(f"{API}/sightings/door_99/nearest").status_code == 404


def test_the_scene_of_a_sighting_and_the_photo_of_a_person_are_shown_where_they_are_kept(
    console: Console, tmp_path: Path
) -> None:
    keep_picture(tmp_path / "pictures", of_anna(1))
    (sample,) = console.parts.gallery().person("Anna").samples
    client = console.as_role("viewer")
    scene = client.get(f"{API}/sightings/door_1/scene")
    assert Image.open(io.BytesIO(scene.content)).size == (320, 240)
    assert client.get(f"{API}/sightings/door_2/scene").status_code == 404
    photo = f"{API}/people/p-anna/samples/{sample.sample_id}/face"
    assert client.get(photo).status_code == 404, "enrolled without its picture"
    crops = CropStore(tmp_path / "people")
    crops.open_for_writing()
    found = Detections(
        np.array([[20, 20, 60, 60]], np.float32), np.ones(1, np.float32), np.full((1, 5, 2), 40, np.float32)
    )
    crops.add(sample.sample_id, Crop(np.full((80, 80, 3), (0, 200, 0), np.uint8), found))
    shown = Image.open(io.BytesIO(client.get(photo, params={"side_px": 64}).content))
    assert shown.size == (64, 64)
    assert client.get(f"{API}/people/p-anna/samples/none/face").status_code == 404
    for path in (photo, f"{API}/sightings/door_1/scene", "/scenes/door_1", f"/samples/p-anna/{sample.sample_id}"):
        assert console.anybody().get(path).status_code in {303, 401}, path


def test_the_photo_of_a_person_opens_with_the_key_of_the_configuration(tmp_path: Path, redis_url: str) -> None:
    key = base64.b64encode(bytes(32)).decode()
    with running_console(console_config(tmp_path, redis_url, gallery_key=key)) as console:
        (sample,) = console.parts.gallery().person("Anna").samples
        crops = CropStore(tmp_path / "people", parse_key(key, "the key"))
        crops.open_for_writing()
        found = Detections(
            np.array([[20, 20, 60, 60]], np.float32), np.ones(1, np.float32), np.full((1, 5, 2), 40, np.float32)
        )
        crops.add(sample.sample_id, Crop(np.full((80, 80, 3), (0, 200, 0), np.uint8), found))
        photo = f"{API}/people/p-anna/samples/{sample.sample_id}/face"
        assert console.as_role("viewer").get(photo).status_code == 200


def test_a_sighting_that_names_nobody_is_given_a_name(console: Console, redis_url: str) -> None:
    with console.parts.history() as history:
        history.write([of_anna(6, identity_id="", identity_name="", template=None)], keep_s=LONG_S, remember_s=LONG_S)
    client = console.as_role("operator")

    def correct(sighting_id: str, **given: str) -> int:
        return client.post(f"{API}/sightings/{sighting_id}/correction", json=given).status_code

    assert correct("door_6") == 409, "nobody is no name"
    assert correct("door_5", identity_id="p-bob") == 409, "this one is named by the unknown person's id"
    assert correct("door_6", identity_id="p-bob") == 200
    assert client.get(f"{API}/sightings/door_6").json()["identity_name"] == "Bob"
    assert [(event.type, event.identity_name) for event in stored(redis_url)] == [("corrected", "Bob")]
    assert correct("door_6") == 200, "and that it was not Bob"


def test_a_sighting_is_shown_and_explained(console: Console) -> None:
    client = console.as_role("viewer")
    shown = client.get(f"{API}/sightings/door_1").json()
    assert (shown["identity_name"], shown["camera_id"], shown["started_at"]) == (
        "Anna", "door", "2026-01-01T12:01:00.000Z",
    )  # fmt: skip
    why = client.get(f"{API}/sightings/door_1/explanation").json()
    assert why["text"].startswith("seen 5 times; 2 blurred; 3 embedded")
    assert why["rejected"] == {"blurred": 2}
    assert client.get(f"{API}/sightings/door_99").status_code == 404


def test_a_wrong_name_is_corrected_and_the_correction_is_published_and_undone(console: Console, redis_url: str) -> None:
    client = console.as_role("operator")
    seen = {"If-Match": client.get(f"{API}/sightings/door_1").headers["ETag"]}
    made = client.post(f"{API}/sightings/door_1/correction", json={"identity_id": "p-bob"}, headers=seen).json()
    assert (made["identity_name"], made["previous_name"], made["counter_example"]) == ("Bob", "Anna", True)
    assert client.get(f"{API}/sightings/door_1").json()["identity_name"] == "Bob"
    late = client.post(f"{API}/sightings/door_1/correction", json={}, headers=seen)
    assert late.status_code == 412
    undone = client.delete(f"{API}/sightings/door_1/correction").json()
    assert undone["identity_name"] == "Anna"
    told = [(event.type, event.identity_name) for event in stored(redis_url)]
    assert told == [("corrected", "Bob"), ("corrected", "Anna")]
    assert client.delete(f"{API}/sightings/door_1/correction").status_code == 409
    assert client.post(f"{API}/sightings/door_2/correction", json={"identity_id": "p-none"}).status_code == 404


def test_without_redis_nothing_is_corrected_and_the_answer_says_so(tmp_path: Path, redis_server: RedisServer) -> None:

    with running_console(console_config(tmp_path, redis_server.url)) as console:
        client = console.as_role("operator")
        redis_server.stop()
        refused = client.post(f"{API}/sightings/door_1/correction", json={})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert client.get(f"{API}/sightings/door_1").json()["identity_name"] == "Anna"
        assert any("Redis" in problem for problem in client.get(f"{API}/status").json()["problems"])
        redis_server.start()
        assert client.post(f"{API}/sightings/door_1/correction", json={}).status_code == 200


def test_the_face_of_a_sighting_is_shown_to_who_is_logged_in(console: Console, tmp_path: Path) -> None:
    keep_picture(tmp_path / "pictures", of_anna(1))
    client = console.as_role("viewer")
    answer = client.get(f"{API}/sightings/door_1/face", params={"side_px": 64})
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert max(picture.size) == 64
        assert np.asarray(picture.convert("RGB"))[..., 1].mean() > 150
    assert client.get(f"{API}/sightings/door_2/face").status_code == 404
    assert console.anybody().get(f"{API}/sightings/door_1/face").status_code == 401


def test_the_timeline_of_a_sighting_tells_what_was_said_of_it(console: Console) -> None:
    client = console.as_role("operator")
    client.post(f"{API}/sightings/door_1/correction", json={"identity_id": "p-bob"})
    told = client.get(f"{API}/sightings/door_1/timeline").json()["items"]
    assert [each["what"] for each in told] == ["started", "ended", "denied"]
    assert [each["identity_name"] for each in told] == ["", "Anna", "Bob"]
    assert told[2]["not_name"] == "Anna"
    assert told[0]["at"] < told[1]["at"] < told[2]["at"]
    client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Carla"})
    named = client.get(f"{API}/sightings/door_3/timeline").json()["items"]
    assert [(each["what"], each["identity_name"], each["unknown_id"]) for each in named] == [
        ("started", "", ""), ("ended", "", "u-1"), ("named", "Carla", ""),
    ]  # fmt: skip
    assert named[2]["at"] is None, "no time is kept of it"
    assert client.get(f"{API}/sightings/none/timeline").status_code == 404
