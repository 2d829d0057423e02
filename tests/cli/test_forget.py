"""``facestream forget``: nothing of a person is left, and nothing brings them back."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from tests.support.remembered import ANNA, ANNAS, BEN, OUTBOX, Site, make_site, sample, waiting
from tests.support.sample_events import make_event, stream_fields
from worker.cli import run_command_line
from worker.config import OutboxConfig
from worker.erased import FILE as ERASED
from worker.events.outbox import Outbox
from worker.gallery.folder import FolderGallery
from worker.history.store import History

STREAM = "facestream:events"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FACESTREAM_EVIDENCE__STORE", str(tmp_path / "pictures"))
    return make_site(tmp_path)


@pytest.fixture
def run(site: Site, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        given = ["forget", *map(str, arguments), "--gallery", str(site.gallery)]
        code = run_command_line(given)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def receipt_of(answer: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = answer
    assert code == 0, (out, err)
    document: dict[str, Any] = json.loads(out)
    return document


def test_no_file_holds_the_name_or_a_vector_afterwards(site: Site, run: Run) -> None:
    before = site.files_with(*site.traces)
    assert {Path(name).parts[0] for name in before} == {"people", "people.state"}
    receipt = receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    assert site.files_with(*site.traces) == []
    assert receipt["searched"]["found_in"] == []
    assert receipt["searched"]["byte_strings"] >= 6
    assert all(place["logical_at"] for place in receipt["places"])
    assert all(place["physical_at"] for place in receipt["places"])


def test_what_others_have_stays(site: Site, run: Run) -> None:
    receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    for path in (site.gallery, site.gallery / "previous"):
        assert [person.name for person in FolderGallery.open(path).people()] == [BEN]
    with History.open(site.state) as history:
        left = {past.sighting_id: past for past in history.sightings()}
        unknowns = [person.unknown_id for person in history.unknowns()[0]]
    assert set(left) == {"door_3", "door_4", "door_5"}
    assert (left["door_3"].account.nearest, left["door_3"].account.runner_up) == (BEN, "")
    assert [denial.identity_id for denial in left["door_4"].denials] == [""], "it was a counter-example of Anna"
    assert unknowns == ["u-2"], "Anna was u-1 before she was enrolled"
    pictures = {path.name.split(".")[0] for path in site.pictures.rglob("*.jpg")}
    assert pictures == {"door_3", "door_4", "door_5"}
    event, state = waiting(site)
    assert event["identity_name"] == BEN
    assert [one["sighting_id"] for one in state["sightings"]] == ["b"]


def test_an_unknown_person_is_erased_by_their_id(site: Site, run: Run) -> None:
    receipt = receipt_of(run("u-2", "--no-events", "--yes", "--json"))
    assert receipt["found"] == {
        "people": 0, "samples": 0, "crops": 0, "unknown_people": 1, "past_sightings": 1, "frames_of_others": 0,
    }  # fmt: skip
    with History.open(site.state) as history:
        assert "door_5" not in {past.sighting_id for past in history.sightings()}
    assert len(FolderGallery.open(site.gallery)) == 2


def test_it_asks_and_changes_nothing_without_a_yes(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = site.files_with(*site.traces)
    code, out, err = run(ANNA, "--no-events")
    assert code == 130
    assert ANNA in out
    assert "Erase all of this?" in err
    assert site.files_with(*site.traces) == before
    assert not (site.gallery / ERASED).exists()


def test_nobody_of_that_name_is_one_line(run: Run) -> None:
    code, _, err = run("Nobody", "--no-events", "--yes")
    assert code == 1
    assert "knows nobody called 'Nobody'" in err


def test_without_redis_nothing_is_changed_unless_asked(site: Site, run: Run) -> None:
    before = site.files_with(*site.traces)
    code, _, err = run(ANNA, "--yes", "--redis", "redis://127.0.0.1:1/0")
    assert code == 1
    assert "nothing was changed" in err
    assert "--no-events" in err
    assert site.files_with(*site.traces) == before


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["people.json", "embeddings.npy", "manifest.json"])
def test_a_backup_or_a_damaged_file_brings_nobody_back(site: Site, run: Run, file: str) -> None:
    shutil.copytree(site.gallery, site.folder / "backup")
    receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    FolderGallery.open(site.gallery).rename(BEN, "Ben")
    current = site.gallery / "snapshots" / (site.gallery / "CURRENT").read_text()
    flip(current / file, len((current / file).read_bytes()) // 2)
    assert [person.name for person in FolderGallery.open(site.gallery).people()] == [BEN], "the version before"
    # The whole folder goes back to what it was.
    shutil.rmtree(site.gallery)
    shutil.move(site.folder / "backup", site.gallery)
    assert [person.name for person in FolderGallery.open(site.gallery).people()] == [BEN]
    assert [person.name for person in FolderGallery.open(site.gallery / "previous").people()] == [BEN]
    assert site.files_with(*site.traces) == [], "who had come back is removed from the disk too"


def test_a_restored_past_brings_nobody_back(site: Site, run: Run) -> None:
    shutil.copy(site.state / "history.sqlite3", site.folder / "kept")
    receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    shutil.move(site.folder / "kept", site.state / "history.sqlite3")
    with History.open(site.state) as history:
        assert {past.sighting_id for past in history.sightings()} == {"door_3", "door_4", "door_5"}


def test_a_damaged_list_of_erased_people_is_read_from_its_other_copy(site: Site, run: Run) -> None:
    shutil.copytree(site.gallery / "snapshots", site.folder / "backup")
    receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    shutil.rmtree(site.gallery / "snapshots")
    shutil.move(site.folder / "backup", site.gallery / "snapshots")
    (site.gallery / "CURRENT").unlink()
    flip(site.gallery / ERASED, 120)
    assert [person.name for person in FolderGallery.open(site.gallery).people()] == [BEN]
    flip(site.state / ERASED, 120)
    assert run("anybody", "--no-events", "--yes")[0] == 1
    assert "nobody who was erased may come back" in run("anybody", "--no-events", "--yes")[2]


def test_somebody_who_is_enrolled_again_later_is_known(site: Site, run: Run) -> None:
    receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    FolderGallery.open(site.gallery).add([sample(ANNA, ANNAS[0])])
    assert {person.name for person in FolderGallery.open(site.gallery).people()} == {ANNA, BEN}


def test_an_outbox_that_a_worker_uses_is_left_to_it(site: Site, run: Run) -> None:
    outbox = Outbox(OutboxConfig(), path=site.state / OUTBOX)
    code, out, _ = run(ANNA, "--no-events", "--yes", "--json")
    outbox.close()
    places = {place["place"]: place for place in json.loads(out)["places"]}
    assert places["events that wait"]["removed"] == "what its worker says"
    assert code == 1, "the bytes were still found"


def entries(url: str) -> list[dict[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [cast("dict[str, str]", fields) for _, fields in cast("list[Any]", client.xrange(STREAM))]


@pytest.mark.redis
def test_consumers_are_told_and_entries_deleted_where_asked(site: Site, run: Run, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.xadd(STREAM, stream_fields(make_event(1, identity_id=site.anna, identity_name=ANNA)))
    client.xadd(STREAM, stream_fields(make_event(2, identity_id="b", identity_name=BEN)))
    dead = f"{{{STREAM}}}:dead:archive"
    client.xadd(dead, stream_fields(make_event(3, identity_id=site.anna, identity_name=ANNA)))
    receipt_of(run(ANNA, "--yes", "--json", "--redis", redis_url))
    told = [fields for fields in entries(redis_url) if fields["type"] == "erased"]
    assert client.xlen(STREAM) == 2 + len(told)
    assert {(event["identity_id"], event["unknown_id"]) for event in told} == {(site.anna, ""), ("", "u-1")}
    assert {event["sighting_id"] for event in told} >= {"door_1", "door_2"}
    assert all(not event["identity_name"] for event in told)
    assert client.xlen(dead) == 1
    FolderGallery.open(site.gallery).add([sample(ANNA, ANNAS[0])])
    again = FolderGallery.open(site.gallery).person(ANNA).identity_id
    client.xadd(STREAM, stream_fields(make_event(4, identity_id=again, identity_name=ANNA)))
    client.xadd(dead, stream_fields(make_event(5, identity_id=again, identity_name=ANNA)))
    receipt_of(run(ANNA, "--yes", "--json", "--redis", redis_url, "--delete-entries"))
    left = [fields["identity_id"] for fields in entries(redis_url) if fields["type"] != "erased"]
    assert left == [site.anna, "b"], "only what this erasure is about"
    assert client.xlen(dead) == 1
    client.close()


def test_a_receipt_is_signed_and_names_nobody(site: Site, run: Run) -> None:
    file = site.folder / "receipt.json"
    receipt_of(run(ANNA, "--no-events", "--yes", "--json", "--receipt", file))
    assert ANNA not in file.read_text()
    assert json.dumps(ANNA) not in file.read_text()
    assert site.anna not in file.read_text()
    told = receipt_of(run(ANNA, "--verify", file, "--json"))
    assert (told["signature"], told["signed_here"], told["in_force"], told["about"]) == ("right", True, True, True)
    code, out, _ = run(BEN, "--verify", file)
    assert code == 1
    assert "not about this person" in out


def test_a_receipt_that_was_changed_is_refused(site: Site, run: Run) -> None:
    file = site.folder / "receipt.json"
    receipt_of(run(ANNA, "--no-events", "--yes", "--json", "--receipt", file))
    document = json.loads(file.read_text())
    document["places"][0]["removed"] = "everything"
    file.write_text(json.dumps(document))
    code, _, err = run("--verify", file)
    assert code == 1
    assert "was changed after it was signed" in err


def test_a_receipt_of_another_installation_is_told(site: Site, run: Run) -> None:
    file = site.folder / "receipt.json"
    receipt_of(run(ANNA, "--no-events", "--yes", "--json", "--receipt", file))
    (site.state / "erased.key").unlink()
    receipt_of(run(BEN, "--no-events", "--yes", "--json"))
    code, out, _ = run("--verify", file)
    assert code == 1
    assert "signed with another key" in out


def test_the_receipt_says_what_is_out_of_reach(run: Run) -> None:
    receipt = receipt_of(run(ANNA, "--no-events", "--yes", "--json"))
    said = " ".join(remains["what"] for remains in receipt["remains"])
    for word in ("consumers", "entries of the stream", "Redis", "backups", "disk"):
        assert word in said
