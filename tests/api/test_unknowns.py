"""Unknown people by the API: named with the risk beside the name, merged, undone, forgotten."""

import json
from pathlib import Path

from tests.support.console import API, Console
from tests.support.publishing import stored
from worker.erased import Erased, Erasure, digest_of
from worker.gallery.opening import open_gallery
from worker.history.store import FILE, History


def test_unknown_people_come_with_whom_they_resemble_and_what_naming_risks(console: Console) -> None:
    client = console.as_role("viewer")
    page = client.get(f"{API}/unknowns", params={"limit": 1}).json()
    assert [(item["unknown_id"], item["sightings"], item["cameras"]) for item in page["items"]] == [
        ("u-1", 2, ["door", "yard"])
    ]
    rest = client.get(f"{API}/unknowns", params={"cursor": page["next_cursor"]}).json()
    assert [item["unknown_id"] for item in rest["items"]] == ["u-2"]
    shown = client.get(f"{API}/unknowns/u-1").json()
    assert [(each["identity_name"], each["similarity"]) for each in shown["suggestions"]] == [("Anna", 0.6), ("Bob", 0)]
    assert shown["risk"]["threshold"] == 0.5
    assert shown["risk"]["false_match_rate"] is None
    assert "calibrate" in shown["risk"]["from"]


def test_the_risk_is_that_of_the_calibration_in_use(console: Console) -> None:
    measured = {"fmr": 1e-4, "fpir": 0.002}
    open_gallery(console.parts.gallery_path).set_thresholds(0.5, {}, {"default": measured})
    risk = console.as_role("viewer").get(f"{API}/unknowns/u-1").json()["risk"]
    assert (risk["false_match_rate"], risk["stranger_rate"]) == (1e-4, 0.002)
    assert risk["from"] == "the calibration of this gallery"


def test_a_name_enrols_the_person_and_corrects_their_past_once(console: Console, redis_url: str) -> None:
    client = console.as_role("operator")
    key = {"Idempotency-Key": "name-1"}
    named = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": " Carla "}, headers=key)
    assert named.json()["identity_name"] == "Carla"
    assert (named.json()["samples"], named.json()["corrected"]) == (1, 2)
    again = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": " Carla "}, headers=key)
    assert again.json() == named.json()
    assert again.headers["Idempotent-Replay"] == "true"
    other = client.post(f"{API}/unknowns/u-2/name", json={"identity_name": "Dora"}, headers=key)
    assert other.status_code == 422
    assert [event.identity_name for event in stored(redis_url)] == ["Carla", "Carla"]
    assert [person.name for person in open_gallery(console.parts.gallery_path).people()] == ["Anna", "Bob", "Carla"]
    assert client.get(f"{API}/unknowns/u-1").status_code == 404
    seen = client.get(f"{API}/sightings", params={"identity_id": named.json()["identity_id"]}).json()["items"]
    assert [sighting["sighting_id"] for sighting in seen] == ["door_4", "door_3"]


def test_a_request_that_failed_may_be_made_again_with_its_key(console: Console) -> None:
    client = console.as_role("operator")
    key = {"Idempotency-Key": "name-2"}
    assert client.post(f"{API}/unknowns/u-9/name", json={"identity_name": "Eve"}, headers=key).status_code == 404
    assert client.post(f"{API}/unknowns/u-2/name", json={"identity_name": "Eve"}, headers=key).status_code == 200


def test_two_ids_of_one_person_are_merged_and_parted_again(console: Console, redis_url: str) -> None:
    client = console.as_role("operator")
    step = client.post(f"{API}/unknowns/u-1/merge", json={"other": "u-2"}).json()["step"]
    assert client.get(f"{API}/unknowns/u-1").json()["sightings"] == 3
    assert client.get(f"{API}/unknowns/u-2").status_code == 404
    assert client.post(f"{API}/steps/{step}/undo").json() == {"step": step, "from": "u-1", "to": "u-2"}
    assert client.get(f"{API}/unknowns/u-2").json()["sightings"] == 1
    assert client.post(f"{API}/steps/{step}/undo").status_code == 409
    assert client.post(f"{API}/unknowns/u-1/merge", json={"other": "u-1"}).status_code == 409
    told = [(event.type, event.sighting_id, event.unknown_id) for event in stored(redis_url)]
    assert told == [("corrected", "door_5", "u-1"), ("corrected", "door_5", "u-2")]


def test_a_forgotten_person_cannot_be_recognised_any_more(console: Console, tmp_path: Path) -> None:
    client = console.as_role("operator")
    seen = {"If-Match": client.get(f"{API}/unknowns/u-2").headers["ETag"]}
    assert client.delete(f"{API}/unknowns/u-2", headers={"If-Match": '"other"'}).status_code == 412
    assert client.delete(f"{API}/unknowns/u-2", headers=seen).status_code == 204
    assert client.get(f"{API}/unknowns/u-2").status_code == 404
    assert client.get(f"{API}/sightings/door_5").json()["unknown_id"] == ""


def test_without_a_gallery_the_first_name_makes_one(tmp_path: Path, redis_url: str) -> None:
    from tests.support.console import LONG_S, console_config, running_console
    from tests.support.past import AXES, unknown

    with History.open(tmp_path / "people.state", create=True) as history:
        history.write([], [unknown("u-1", AXES[0])], keep_s=LONG_S, remember_s=LONG_S)
    with running_console(console_config(tmp_path, redis_url), filled=False) as console:
        client = console.as_role("operator")
        assert json.loads(client.get(f"{API}/people").text)["items"] == []
        assert client.get(f"{API}/unknowns/u-1").json()["risk"] is None
        assert client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Anna"}).status_code == 200
        assert client.get(f"{API}/people").json()["total"] == 1


def test_an_erasure_takes_the_answers_with_it_that_may_name_the_person(console: Console, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "name-3"}
    client = console.as_role("operator")
    named = client.post(f"{API}/unknowns/u-2/name", json={"identity_name": "Xanthippe"}, headers=key).json()
    with History.open(tmp_path / "people.state") as history:
        digests = frozenset({digest_of(named["identity_id"])})
        history.erase(Erased([Erasure("e-1", "2026-01-01T00:00:00.000Z", digests)]), ["Xanthippe"])
    files = b"".join(path.read_bytes() for path in (tmp_path / "people.state").glob(f"{FILE}*"))
    assert b"Xanthippe" not in files
