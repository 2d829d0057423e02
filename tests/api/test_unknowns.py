"""Unknown people by the API: named with the risk beside the name, merged, undone, forgotten."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.support.console import API, LONG_S, Console, console_config, of_anna, running_console
from tests.support.past import AXES, unknown
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


def test_one_id_of_two_people_is_split_and_joined_again(console: Console) -> None:
    client = console.as_role("operator")
    split = client.post(f"{API}/unknowns/u-1/split", json={"sighting_ids": ["door_4"]}).json()
    new_id = split["new_unknown_id"]
    assert (split["unknown_id"], split["sightings"]) == ("u-1", 1)
    for unknown_id, cameras in (("u-1", ["door"]), (new_id, ["yard"])):
        assert client.get(f"{API}/unknowns/{unknown_id}").json()["cameras"] == cameras
    assert client.post(f"{API}/steps/{split['step']}/undo").json()["to"] == "u-1"
    assert client.get(f"{API}/unknowns/u-1").json()["sightings"] == 2
    for wrong in (["door_3", "door_4"], ["door_5"]):
        assert client.post(f"{API}/unknowns/u-1/split", json={"sighting_ids": wrong}).status_code == 409


def test_nobody_is_asked_about_those_who_are_ignored_until_somebody_wants_to(console: Console, tmp_path: Path) -> None:
    client = console.as_role("operator")

    def listed(**query: str) -> list[str]:
        items = client.get(f"{API}/unknowns", params=query).json()["items"]
        assert all(item["ignored"] is bool(query) for item in items)
        return [item["unknown_id"] for item in items]

    assert client.put(f"{API}/unknowns/u-1/ignored").status_code == 204
    assert (listed(), listed(ignored="true")) == (["u-2"], ["u-1"])
    with History.open(tmp_path / "people.state") as history:  # a worker sees the person again
        history.write([], [unknown("u-1", AXES[2])], keep_s=LONG_S, remember_s=LONG_S)
    assert listed(ignored="true") == ["u-1"]
    assert client.delete(f"{API}/unknowns/u-1/ignored").status_code == 204
    assert listed() == ["u-1", "u-2"]
    assert client.put(f"{API}/unknowns/u-9/ignored").status_code == 404


def test_a_name_is_taken_back_as_if_it_had_never_been_given(console: Console, redis_url: str, tmp_path: Path) -> None:
    client = console.as_role("operator")
    named = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Carla"}).json()
    seen_since = of_anna(6, identity_id=named["identity_id"], identity_name="Carla")
    corrected = of_anna(7, identity_id=named["identity_id"], identity_name="Carla")
    with History.open(tmp_path / "people.state") as history:
        history.write([seen_since, corrected], keep_s=LONG_S, remember_s=LONG_S)
    client.post(f"{API}/sightings/door_7/correction", json={"identity_id": "p-bob"})
    undone = client.post(f"{API}/steps/{named['step']}/undo")
    assert undone.json() == {"step": named["step"], "from": named["identity_id"], "to": "u-1"}
    assert [person.name for person in open_gallery(console.parts.gallery_path).people()] == ["Anna", "Bob"]
    assert client.get(f"{API}/unknowns/u-1").json()["sightings"] == 3
    theirs = client.get(f"{API}/sightings", params={"unknown_id": "u-1"}).json()["items"]
    assert [item["sighting_id"] for item in theirs] == ["door_6", "door_4", "door_3"]
    assert client.get(f"{API}/sightings/door_7").json()["identity_name"] == "Bob"
    told = [(event.type, event.identity_id, event.unknown_id) for event in stored(redis_url)[3:]]
    assert told == [("corrected", "", "u-1")] * 3
    assert client.post(f"{API}/steps/{named['step']}/undo").status_code == 409
    again = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Clara"}).json()
    assert (again["identity_name"], again["corrected"]) == ("Clara", 3)


def test_a_name_taken_back_leaves_the_person_what_they_had_before(console: Console) -> None:
    client = console.as_role("operator")
    named = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Anna"}).json()
    assert client.get(f"{API}/people/p-anna").json()["samples"] == 2
    assert client.post(f"{API}/steps/{named['step']}/undo").status_code == 200
    assert client.get(f"{API}/people/p-anna").json()["samples"] == 1
    assert [
        item["sighting_id"] for item in client.get(f"{API}/sightings", params={"identity_id": "p-anna"}).json()["items"]
    ] == ["door_2", "door_1"]


def test_unknown_people_who_resemble_one_person_are_suggested_with_how_often_that_is_wrong(
    console: Console, tmp_path: Path
) -> None:
    def like(number: int, similarity: float) -> np.ndarray:
        vector: np.ndarray = similarity * AXES[0] + np.sqrt(1 - similarity**2) * AXES[number]
        return vector.astype(np.float32)

    day_ago = datetime.now(UTC) - timedelta(days=1)
    measured = {
        "fmr": 0.001,
        "impostors": {"mean": 0.1, "sd": 0.1, "one_percent": 0.3, "threshold": 0.5, "at_threshold": 0.001},
    }
    open_gallery(console.parts.gallery_path).set_thresholds(0.5, {}, {"default": measured})
    with History.open(tmp_path / "people.state") as history:
        for known in ("u-1", "u-2"):
            history.drop_unknown(known)
        people = [unknown(f"u-{n}", like(n, 0.25 + n / 100), first_seen=day_ago, last_seen=day_ago) for n in (3, 6, 9)]
        seen = [of_anna(10 + n, unknown_id="u-9", template=like(9, 0.34)) for n in range(2)]
        history.write(seen, people, keep_s=LONG_S, remember_s=LONG_S)
    client = console.as_role("viewer")
    (found,) = client.get(f"{API}/suggestions").json()["items"]
    assert (found["identity_name"], found["unknown_ids"], found["sightings"]) == ("Anna", ["u-9", "u-6"], 2)
    assert (found["least"], found["most"]) == (0.31, 0.34)
    assert found["stranger_days"] == pytest.approx(1 / (3 * 0.001), rel=0.01)
    operator = console.as_role("operator")
    operator.post(f"{API}/unknowns/u-9/name", json={"identity_name": "Anna"})
    operator.post(f"{API}/sightings/door_10/correction", json={})
    assert operator.get(f"{API}/sightings/door_10").json()["unknown_id"]
    assert [each["unknown_ids"] for each in client.get(f"{API}/suggestions").json()["items"]] == [["u-6"]]
    denied = operator.get(f"{API}/sightings/door_10").json()["unknown_id"]
    assert "Anna" not in [one["identity_name"] for one in client.get(f"{API}/unknowns/{denied}").json()["suggestions"]]


def test_a_forgotten_person_cannot_be_recognised_any_more(console: Console, tmp_path: Path) -> None:
    client = console.as_role("operator")
    seen = {"If-Match": client.get(f"{API}/unknowns/u-2").headers["ETag"]}
    assert client.delete(f"{API}/unknowns/u-2", headers={"If-Match": '"other"'}).status_code == 412
    assert client.delete(f"{API}/unknowns/u-2", headers=seen).status_code == 204
    assert client.get(f"{API}/unknowns/u-2").status_code == 404
    assert client.get(f"{API}/sightings/door_5").json()["unknown_id"] == ""


def test_without_a_gallery_the_first_name_makes_one(tmp_path: Path, redis_url: str) -> None:
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
