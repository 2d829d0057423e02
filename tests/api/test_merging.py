"""Two enrolled people who are one, by the API: what a merge changes, who is told, and how it is taken back."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.console import (
    API,
    LONG_S,
    PASSWORD,
    Console,
    console_config,
    of_anna,
    place_of,
    running_console,
)
from tests.support.past import AXES
from tests.support.postgres import with_tables
from tests.support.publishing import stored
from tests.support.redis_servers import RedisServer
from worker.alerts.rules import Rule
from worker.api.suggestions import risk_of
from worker.audit_log import AuditLog
from worker.encryption import Keys, use
from worker.gallery.contents import NewSample
from worker.gallery.gallery import Gallery
from worker.gallery.opening import open_gallery
from worker.history.store import History
from worker.people_keys import PeopleKeys

BOBBY = "Robert Ångström"


def of_bob(number: int, **changes: Any) -> Any:
    return of_anna(number, **{"identity_id": "p-bob", "identity_name": "Bob", "template": AXES[1]} | changes)


def bobby_too(console: Console) -> None:
    """Bob has two entries: Bob, and a second one that cameras have named twice."""
    gallery = open_gallery(console.parts.gallery_path)
    like_bob = (0.7 * AXES[1] + np.sqrt(1 - 0.49) * AXES[7]).astype(np.float32)
    gallery.add([NewSample(BOBBY, like_bob, "robert.jpg", "b" * 64, quality=0.8, identity_id="p-bobby")])
    gallery.close()
    theirs = {"identity_id": "p-bobby", "identity_name": BOBBY, "template": like_bob}
    with History.open(place_of(console.parts.config)) as history:
        history.write([of_anna(20, **theirs), of_anna(21, camera_id="yard", **theirs), of_bob(22)], keep_s=LONG_S,
                      remember_s=LONG_S)  # fmt: skip


@pytest.fixture(params=["folder", "postgres"])
def two(
    request: pytest.FixtureRequest, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Console]:
    """A console over people in a folder, or in PostgreSQL where each has a key of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    if request.param == "folder":
        config = console_config(tmp_path, redis_url)
    else:
        url = with_tables(request.getfixturevalue("postgres_url"))
        key_file = tmp_path / "people.key"
        key_file.write_text(base64.b64encode(os.urandom(32)).decode())
        use(Keys(people=PeopleKeys(key_file)))
        more = {"state_dir": str(tmp_path / "state"), "encryption": {"people_file": str(key_file)}}
        config = console_config(tmp_path, redis_url, url, **more)
    with running_console(config) as console:
        bobby_too(console)
        yield console


def gallery_of(console: Console) -> Gallery:
    return open_gallery(console.parts.gallery_path)


def names(console: Console) -> list[str]:
    return [person.name for person in gallery_of(console).people()]


def seen(client: httpx.Client, identity_id: str) -> list[str]:
    answer = client.get(f"{API}/sightings", params={"identity_id": identity_id}).json()
    return [each["sighting_id"] for each in answer["items"]]


def merged(client: httpx.Client, kept: str = "p-bob", other: str = "p-bobby", **headers: str) -> httpx.Response:
    return client.post(f"{API}/people/{kept}/merge", json={"other": other}, headers=headers)


def step_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["step"])


def undone(client: httpx.Client, step: str) -> httpx.Response:
    return client.post(f"{API}/steps/{step}/undo")


def test_two_entries_become_one_person_and_two_again(two: Console, redis_url: str) -> None:
    client = two.as_role("operator")
    answer = merged(client, **{"Idempotency-Key": "m-1"})
    assert answer.json() == {
        "step": answer.json()["step"], "identity_id": "p-bob", "identity_name": "Bob", "merged": "p-bobby",
        "merged_name": BOBBY, "samples": 2, "corrected": 2,
    }  # fmt: skip
    assert merged(client, **{"Idempotency-Key": "m-1"}).json() == answer.json(), "done once"
    assert names(two) == ["Anna", "Bob"]
    assert seen(client, "p-bob") == ["door_22", "door_21", "door_20"]
    assert client.get(f"{API}/people/p-bobby").status_code == 404
    told = [(event.sighting_id, event.identity_id, event.identity_name) for event in stored(redis_url)]
    assert told == [(f"door_{number}", "p-bob", "Bob") for number in (21, 20)]
    assert {event.type for event in stored(redis_url)} == {"corrected"}
    seen_since = of_bob(30)
    with History.open(place_of(two.parts.config)) as history:
        history.write([seen_since], keep_s=LONG_S, remember_s=LONG_S)
    step = answer.json()["step"]
    assert undone(client, step).json() == {"step": step, "from": "p-bob", "to": "p-bobby"}
    assert names(two) == ["Anna", "Bob", BOBBY]
    assert [person.photo for person in gallery_of(two).person("p-bobby").samples] == ["robert.jpg"]
    assert seen(client, "p-bobby") == ["door_21", "door_20"]
    assert seen(client, "p-bob") == ["door_30", "door_22"], "what was seen since stays"
    told = [(event.sighting_id, event.identity_id, event.identity_name) for event in stored(redis_url)[2:]]
    assert told == [("door_21", "p-bobby", BOBBY), ("door_20", "p-bobby", BOBBY)]
    assert len({event.event_id for event in stored(redis_url)}) == 4
    assert undone(client, step).status_code == 409
    actions = [line["action"] for line in AuditLog(gallery_of(two).audit_folder or Path()).entries()]
    assert [action for action in actions if action in {"merged", "parted"}][-2:] == ["merged", "parted"]


def test_what_a_merge_changes_is_said_before(two: Console) -> None:
    gallery, client = gallery_of(two), two.as_role("operator")
    for group, threshold in (("staff", 0.6), ("visitors", None)):
        client.put(f"{API}/groups/{group}", json={"threshold": threshold})
    gallery.reload_if_changed()
    gallery.regroup(["p-bob"], join=["visitors"])
    gallery.regroup(["p-bobby"], join=["staff", "visitors"])
    client.put(f"{API}/people/p-bobby/consent", json={"until": "2099-01-01T00:00:00Z", "basis": "contract"})
    plan = client.get(f"{API}/people/p-bob/merge", params={"other": "p-bobby"}).json()
    assert {**plan, "risk": plan["risk"]["threshold"]} == {
        "identity_id": "p-bob", "identity_name": "Bob", "other_id": "p-bobby", "other_name": BOBBY, "samples": 2,
        "moved": 1, "groups": ["staff", "visitors"], "joined": ["staff"], "threshold": 0.6,
        "consent": {
            "since": "", "until": "2099-01-01T00:00:00.000Z", "basis": "contract", "note": "", "state": "given",
        },
        "consent_changes": True, "sightings": 2, "similarity": 0.7, "stranger_rate": None, "risk": 0.5,
    }  # fmt: skip
    assert names(two) == ["Anna", "Bob", BOBBY], "nothing was changed"
    step = step_of(merged(client))
    person = gallery_of(two).person("p-bob")
    assert (person.groups, person.consent and person.consent.basis) == (("staff", "visitors"), "contract")
    undone(client, step)
    parted = gallery_of(two)
    assert (parted.person("p-bob").groups, parted.person("p-bob").consent) == (("visitors",), None)
    other = parted.person("p-bobby")
    assert (other.groups, other.consent and other.consent.basis) == (("staff", "visitors"), "contract")


def test_a_change_of_either_since_somebody_looked_stops_the_merge(two: Console) -> None:
    client = two.as_role("operator")

    def looked() -> str:
        return client.get(f"{API}/people/p-bob/merge", params={"other": "p-bobby"}).headers["ETag"]

    for identity_id in ("p-bob", "p-bobby"):
        seen_then = looked()
        client.put(f"{API}/people/{identity_id}/consent", json={"note": "changed"})
        assert merged(client, **{"If-Match": seen_then}).status_code == 412
    assert names(two) == ["Anna", "Bob", BOBBY]
    assert merged(client, **{"If-Match": looked()}).status_code == 200


def test_a_change_while_a_merge_is_worked_out_stops_it_too(two: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    client = two.as_role("operator")

    def slow(*given: Any) -> Any:
        client.put(f"{API}/people/p-bobby/consent", json={"note": "changed"})
        return risk_of(*given)

    monkeypatch.setattr("worker.api.merging.risk_of", slow)
    shown = client.get(f"{API}/people/p-bob/merge", params={"other": "p-bobby"})
    assert shown.status_code == 200, shown.text
    assert merged(client, **{"If-Match": shown.headers["ETag"]}).status_code == 412
    assert names(two) == ["Anna", "Bob", BOBBY]


def test_a_consent_is_never_widened_and_what_was_set_since_stays(two: Console) -> None:
    client = two.as_role("operator")

    def consent(identity_id: str, **bounds: str) -> Any:
        if bounds:
            client.put(f"{API}/people/{identity_id}/consent", json=bounds)
        told = client.get(f"{API}/people/{identity_id}").json()["consent"]
        return told and (told["since"][:10], told["until"][:10], told["basis"])

    consent("p-bob", since="2020-01-01T00:00:00Z", until="2098-01-01T00:00:00Z", basis="contract")
    consent("p-bobby", since="2021-01-01T00:00:00Z", until="2099-01-01T00:00:00Z", basis="visit")
    step = step_of(merged(client))
    assert consent("p-bob") == ("2021-01-01", "2098-01-01", "contract")
    undone(client, step)
    assert consent("p-bob") == ("2020-01-01", "2098-01-01", "contract")
    step = step_of(merged(client))
    consent("p-bob", basis="by hand")
    undone(client, step)
    assert (consent("p-bob"), consent("p-bobby")[2]) == (("", "", "by hand"), "visit")
    consent("p-bob", until="2020-06-01T00:00:00Z")
    refused = merged(client)
    assert (refused.status_code, "set the consent of one of them first" in refused.json()["detail"]) == (409, True)
    assert client.get(f"{API}/people/p-bob/merge", params={"other": "p-bobby"}).status_code == 409


def test_what_was_said_not_to_show_one_of_them_shows_neither(two: Console) -> None:
    client = two.as_role("operator")
    client.post(f"{API}/sightings/door_20/correction", json={"identity_id": "p-anna"})
    client.post(f"{API}/sightings/door_21/correction", json={"identity_id": "p-bob"})

    def not_them(sighting_id: str) -> list[str]:
        return [each["identity_id"] for each in client.get(f"{API}/sightings/{sighting_id}").json()["denied"]]

    step = step_of(merged(client))
    assert not_them("door_20") == ["p-bob"]
    assert not_them("door_21") == [""], "somebody said that this is Bob: it must not keep him from being named"
    undone(client, step)
    assert (not_them("door_20"), not_them("door_21")) == (["p-bobby"], ["p-bobby"])
    assert client.delete(f"{API}/sightings/door_21/correction").json()["identity_id"] == "p-bobby"


def test_rules_follow_the_person(two: Console) -> None:
    client = two.as_role("operator")
    told = {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}
    for people in (["p-bobby"], ["p-bob", "p-bobby"], ["p-anna"]):
        two.parts.book.add(Rule.model_validate({"name": " ".join(people), "people": people, **told}))

    def about() -> dict[str, list[str]]:
        return {each.rule.name: sorted(each.rule.people) for each in two.parts.book.rules()}

    before = about()
    step = step_of(merged(client))
    assert about() == {"p-bobby": ["p-bob"], "p-bob p-bobby": ["p-bob"], "p-anna": ["p-anna"]}
    undone(client, step)
    assert about() == before


def test_a_name_that_was_given_before_can_still_be_taken_back(two: Console) -> None:
    client = two.as_role("operator")
    named = client.post(f"{API}/unknowns/u-1/name", json={"identity_name": BOBBY}).json()
    step = step_of(merged(client))
    assert undone(client, named["step"]).json() == {"step": named["step"], "from": "p-bob", "to": "u-1"}
    assert client.get(f"{API}/unknowns/u-1").json()["sightings"] == 2
    undone(client, step)
    assert seen(client, "p-bobby") == ["door_21", "door_20"]
    assert len(gallery_of(two).person("p-bobby").samples) == 1


def test_merges_are_undone_from_the_last_to_the_first(two: Console) -> None:
    client = two.as_role("operator")
    first = step_of(merged(client))
    second = step_of(merged(client, "p-anna", "p-bob"))
    refused = undone(client, first)
    assert (refused.status_code, f"step {second} came after" in refused.json()["detail"]) == (409, True)
    assert names(two) == ["Anna"]
    assert undone(client, second).status_code == undone(client, first).status_code == 200
    assert names(two) == ["Anna", "Bob", BOBBY]
    assert seen(client, "p-bobby") == ["door_21", "door_20"]


def test_what_cannot_be_taken_back_says_why_and_stays(two: Console) -> None:
    client = two.as_role("operator")
    step = step_of(merged(client))
    client.patch(f"{API}/people/p-anna", json={"identity_name": BOBBY})
    refused = undone(client, step)
    assert (refused.status_code, "give them another name first" in refused.json()["detail"]) == (409, True)
    client.patch(f"{API}/people/p-anna", json={"identity_name": "Anna"})
    gallery = gallery_of(two)
    own, theirs = gallery.person("p-bob").samples
    gallery.remove_sample(own.sample_id)
    assert "rename the person instead" in undone(client, step).json()["detail"]
    gallery.add([NewSample("Bob", AXES[9], "bob2.jpg", "c" * 64)])
    gallery.remove_sample(theirs.sample_id)
    assert "the samples were removed since" in undone(client, step).json()["detail"]
    assert seen(client, "p-bob") == ["door_22", "door_21", "door_20"]
    client.delete(f"{API}/people/p-bob")
    assert (undone(client, step).status_code, names(two)) == (409, ["Anna"])


def test_who_was_erased_does_not_come_back_by_an_undo(two: Console, tmp_path: Path) -> None:
    client = two.as_role("operator")
    step = step_of(merged(client))
    late = of_anna(23, identity_id="p-bobby", identity_name=BOBBY)
    with History.open(place_of(two.parts.config)) as history:
        history.write([late], keep_s=LONG_S, remember_s=LONG_S)
    plan = client.get(f"{API}/people/p-bob/erasure").json()
    assert (plan["people"], plan["samples"], plan["past_sightings"]) == (2, 2, 4), "with the id that has gone"
    erased = client.post(f"{API}/people/p-bob/erasure")
    assert erased.status_code == 200, erased.text
    assert (undone(client, step).status_code, names(two)) == (409, ["Anna"])
    assert seen(client, "p-bob") == seen(client, "p-bobby") == []
    for path in tmp_path.rglob("*.sqlite3*"):
        assert BOBBY.encode() not in path.read_bytes(), path


def test_to_erase_one_of_two_who_were_parted_leaves_the_other(two: Console) -> None:
    client = two.as_role("operator")
    undone(client, step_of(merged(client)))
    assert client.get(f"{API}/people/p-bobby/erasure").json()["people"] == 1
    assert client.post(f"{API}/people/p-bobby/erasure").status_code == 200
    assert names(two) == ["Anna", "Bob"]
    assert len(gallery_of(two).person("p-bob").samples) == 1
    assert seen(client, "p-bob") == ["door_22"]


def test_what_makes_no_sense_is_refused(two: Console) -> None:
    client = two.as_role("operator")
    assert merged(client, other="p-bob").status_code == 409
    assert merged(client, other="p-nobody").status_code == 404
    assert merged(client, kept="p-nobody", other="p-bob").status_code == 404
    assert names(two) == ["Anna", "Bob", BOBBY]


def test_without_redis_nothing_is_changed(tmp_path: Path, redis_server: RedisServer) -> None:
    with running_console(console_config(tmp_path, redis_server.url)) as console:
        bobby_too(console)
        client = console.as_role("operator")
        step = step_of(merged(client))
        redis_server.stop()
        assert undone(client, step).status_code == 503
        assert names(console) == ["Anna", "Bob"]
        redis_server.start()
        assert undone(client, step).status_code == 200
        redis_server.stop()
        assert merged(client).status_code == 503
        assert names(console) == ["Anna", "Bob", BOBBY]
        assert seen(client, "p-bobby") == ["door_21", "door_20"]


def test_who_sees_one_camera_is_told_of_its_sightings_alone(tmp_path: Path, redis_url: str) -> None:
    config = console_config(tmp_path, redis_url)
    with running_console(config) as console:
        bobby_too(console)
        admin = console.as_role("admin")
        admin.post(
            f"{API}/accounts", json={"name": "guard", "role": "operator", "cameras": ["yard"], "password": PASSWORD}
        )
        guard = console.anybody()
        answer = guard.post(f"{API}/session", json={"name": "guard", "password": PASSWORD})
        guard.headers["X-CSRF-Token"] = answer.json()["csrf"]
        assert guard.get(f"{API}/people/p-bob/merge", params={"other": "p-bobby"}).json()["sightings"] == 1
        done = merged(guard).json()
        assert done["corrected"] == 1
        assert len(stored(redis_url)) == 2, "all are corrected"
        assert undone(guard, done["step"]).status_code == 200
