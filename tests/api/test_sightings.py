"""The past by the API: found, explained, corrected; pictures only for who is logged in."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.console import API, LONG_S, Console, keep_picture, of_anna
from tests.support.publishing import stored
from tests.support.redis_servers import RedisServer


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
    from tests.support.console import console_config, running_console

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
