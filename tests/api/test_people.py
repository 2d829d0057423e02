"""People by the API: what programs see of them, and how they change them."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.console import API, Console
from tests.support.past import AXES
from tests.support.stand_ins import StandInDetector, StandInEmbedder, detector_of, embedder_of
from tests.support.waiting import eventually
from worker.api.parts import Networks, Parts
from worker.audit_log import AuditLog
from worker.errors import SourceError
from worker.evaluation.audit import audit
from worker.gallery.contents import NewSample
from worker.gallery.enrolment import PhotoResult
from worker.gallery.opening import open_gallery
from worker.history.store import History
from worker.wire import rfc3339


def names(console: Console) -> list[str]:
    return [person.name for person in open_gallery(console.parts.gallery_path).people()]


def test_people_are_listed_page_by_page_and_found_by_words_of_their_names(console: Console) -> None:
    client = console.as_role("viewer")
    first = client.get(f"{API}/people", params={"limit": 1}).json()
    assert [person["identity_name"] for person in first["items"]] == ["Anna"]
    assert first["total"] == 2
    second = client.get(f"{API}/people", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    bob = {"identity_id": "p-bob", "identity_name": "Bob", "samples": 1, "groups": []}
    assert second["items"] == [bob | {"consent": None, "last_seen": None}]
    assert second["next_cursor"] is None
    assert client.get(f"{API}/people", params={"q": "NN"}).json()["total"] == 1
    refused = client.get(f"{API}/people", params={"cursor": "nonsense"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert "leave it out" in refused.json()["detail"]


def test_a_person_is_renamed_unless_somebody_else_was_quicker(console: Console) -> None:
    client = console.as_role("operator")
    seen = client.get(f"{API}/people/p-anna").headers["ETag"]
    renamed = client.patch(f"{API}/people/p-anna", json={"identity_name": "Anna Berg"}, headers={"If-Match": seen})
    assert renamed.json()["identity_name"] == "Anna Berg"
    late = client.patch(f"{API}/people/p-anna", json={"identity_name": "Anne"}, headers={"If-Match": seen})
    assert late.status_code == 412
    again = {"If-Match": renamed.headers["ETag"]}
    assert client.patch(f"{API}/people/p-anna", json={"identity_name": "Anne"}, headers=again).status_code == 200
    assert names(console) == ["Anne", "Bob"]
    taken = client.patch(f"{API}/people/p-anna", json={"identity_name": "Bob"})
    assert (taken.status_code, "choose another name" in taken.json()["detail"]) == (409, True)
    assert client.get(f"{API}/people/p-nobody").status_code == 404


def test_a_person_is_removed_with_what_was_said_of_past_sightings(console: Console, tmp_path: Path) -> None:
    client = console.as_role("operator")
    client.post(f"{API}/sightings/door_1/correction", json={})
    assert client.delete(f"{API}/people/p-anna").json() == {
        "identity_id": "p-anna", "identity_name": "Anna", "samples": 1,
    }  # fmt: skip
    assert names(console) == ["Bob"]
    with History.open(tmp_path / "people.state") as history:
        (denied,) = history.sightings(sighting_id="door_1")
    assert [denial.identity_name for denial in denied.denials] == [""]
    assert client.delete(f"{API}/people/p-anna").status_code == 404


def test_who_asks_is_told_where_each_was_seen_last_and_the_audit_log_knows_it(console: Console) -> None:
    client = console.as_role("viewer")

    def last(**asked: bool) -> list[dict[str, object] | None]:
        return [each["last_seen"] for each in client.get(f"{API}/people", params=asked).json()["items"]]

    assert last() == [None, None]
    at = {"sighting_id": "door_2", "camera_id": "door", "at": "2026-01-01T12:02:00.000Z"}
    assert last(seen=True) == [at, None]
    assert client.get(f"{API}/people/p-anna").json()["last_seen"] == at
    looked_up = [line for line in AuditLog(console.parts.audit_folder).entries() if line["action"] == "past looked up"]
    assert len(looked_up) == 2, "nobody's past was looked up by the first request"


def test_a_consent_is_noted_warned_about_and_forgotten(console: Console) -> None:
    client = console.as_role("operator")
    soon, past = (rfc3339(datetime.now(UTC) + timedelta(days=days)) for days in (10, -1))
    seen = client.get(f"{API}/people/p-anna").headers["ETag"]
    noted = client.put(
        f"{API}/people/p-anna/consent", json={"until": soon, "basis": "contract"}, headers={"If-Match": seen}
    )
    consent = {"since": "", "until": soon, "basis": "contract", "note": "", "state": "ends_soon"}
    assert noted.json()["consent"] == consent
    late = client.put(f"{API}/people/p-anna/consent", json={}, headers={"If-Match": seen})
    assert late.status_code == 412
    client.put(f"{API}/people/p-bob/consent", json={"until": past})
    told = client.get(f"{API}/people", params={"consent": "over"}).json()
    assert [each["identity_name"] for each in told["items"]] == ["Bob"]
    assert (told["consents_ending"], told["consents_over"]) == (1, 1)
    wrong = client.put(f"{API}/people/p-bob/consent", json={"since": soon, "until": past})
    assert (wrong.status_code, "give a later end" in wrong.json()["detail"]) == (422, True)
    assert client.delete(f"{API}/people/p-bob/consent").json()["consent"] is None
    assert client.get(f"{API}/people", params={"consent": "over"}).json()["items"] == []


def test_look_alikes_are_those_of_the_audit_and_are_found_anew_when_the_gallery_changes(console: Console) -> None:
    client = console.as_role("viewer")

    def findings(**asked: str) -> list[dict[str, Any]]:
        told: dict[str, Any] = eventually(
            lambda: (answer := client.get(f"{API}/findings", params=asked).json())["state"] == "ready" and answer
        )
        return list(told["items"])

    assert {each["kind"] for each in findings()} == {"poor_coverage"}, "one sample of each"
    gallery = open_gallery(console.parts.gallery_path)
    like_anna = (0.52 * AXES[0] + np.sqrt(1 - 0.52**2) * AXES[6]).astype(np.float32)
    gallery.add([NewSample("Anne", like_anna, "anne.jpg", "a" * 64, quality=0.9, identity_id="p-anne")])
    expected = audit(gallery, threshold=0.5, margin=console.parts.config.recognition.margin)
    told = findings()
    assert [each["detail"] for each in told] == [each.detail for each in expected]
    (alike,) = [each for each in told if each["kind"] == "look_alikes"]
    assert ({*alike["identity_ids"]}, alike["similarity"]) == ({"p-anna", "p-anne"}, 0.52)
    assert alike in findings(identity_id="p-anne")
    assert alike not in findings(identity_id="p-bob")
    first = client.get(f"{API}/findings", params={"limit": 1}).json()
    second = client.get(f"{API}/findings", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert first["items"] + second["items"] == told[:2]


def test_samples_are_listed_and_all_but_the_last_one_can_be_removed(console: Console) -> None:
    client = console.as_role("operator")
    client.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Anna"})
    samples = client.get(f"{API}/people/p-anna/samples").json()["items"]
    assert [sample["photo"] for sample in samples] == ["Anna.jpg", "sighting door_3", "sighting door_4"][: len(samples)]
    for sample in samples[1:]:
        assert client.delete(f"{API}/people/p-anna/samples/{sample['sample_id']}").status_code == 204
    last = client.delete(f"{API}/people/p-anna/samples/{samples[0]['sample_id']}")
    assert (last.status_code, "remove the person instead" in last.json()["detail"]) == (409, True)
    assert client.delete(f"{API}/people/p-anna/samples/none").status_code == 404


@pytest.mark.data
def test_photos_are_enrolled_and_each_refusal_has_its_reason(tmp_path: Path, redis_url: str, test_data: Path) -> None:
    from tests.support.command_line import RETAIL
    from tests.support.console import console_config, running_console

    photos = sorted((test_data / "photos" / "train" / "obama").iterdir())[:1]
    config = console_config(
        tmp_path, redis_url, model=RETAIL, models_dir=str(test_data / "models"), detection={"detector": "yunet"}
    )
    with running_console(config, filled=False) as console:
        client = console.as_role("operator")
        sent = [("photos", ("a.jpg", photos[0].read_bytes())), ("photos", ("b.txt", b"no picture"))]
        sent.append(("photos", ("../a.jpg", photos[0].read_bytes())))
        asked = {"data": {"identity_name": "Barack"}, "headers": {"Idempotency-Key": "k1"}}
        answer = client.post(f"{API}/people", files=sent, **asked)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        told = answer.json()["photos"]
        assert [(photo["path"], photo["accepted"], photo["reason"]) for photo in told] == [
            ("a.jpg", True, ""), ("b.txt", False, "unreadable"), ("a.jpg", False, "duplicate_photo"),
        ]  # fmt: skip
        assert str(tmp_path.parent) not in answer.text
        assert client.post(f"{API}/people", files=sent, **asked).json() == answer.json()  # type: ignore[arg-type]
        assert client.get(f"{API}/people").json()["items"][0]["samples"] == 1


def test_no_photo_that_is_sent_lies_in_a_folder_where_a_console_that_is_killed_would_leave_it(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    gallery = console.parts.gallery()
    embedder = StandInEmbedder(gallery.model_id)
    embedder.preprocessing_digest = gallery.preprocessing_digest
    networks = Networks(detector_of(StandInDetector()), embedder_of(embedder))
    monkeypatch.setattr(Parts, "networks", lambda _parts: networks)
    sent = b"the bytes of a photo" * 100_000
    read = []

    def enroll(named: Sequence[tuple[Path, str]], *_: object, lie_at: Mapping[Path, Path]) -> Iterator[PhotoResult]:
        for path, name in named:
            read.append((path.name, lie_at[path].read_bytes() == sent, [*folder.rglob("*")]))
            yield PhotoResult(path, "", name, False, "unreadable", detail=f"photo {path} is no picture")

    def look(path: Path) -> None:
        read.append(("found", path.read_bytes() == sent, [*folder.rglob("*")]))
        raise SourceError(f"photo {path} is no picture")

    monkeypatch.setattr("worker.api.people.enroll_named", enroll)
    monkeypatch.setattr("worker.api.search.read_photo", look)
    client = console.as_role("operator")
    photos = [("photos", ("1/a.jpg", sent)), ("photos", ("2\\a.jpg", sent))]
    told = client.post(f"{API}/people", data={"identity_name": "Carla"}, files=photos).json()["photos"]
    assert [(photo["path"], photo["detail"]) for photo in told] == [("a.jpg", "photo a.jpg is no picture")] * 2
    answer = client.post(f"{API}/faces", files={"photo": ("b.jpg", sent)})
    assert "the photo is no picture" in answer.text
    assert read == [("a.jpg", True, []), ("a.jpg", True, []), ("found", True, [])]
