"""``facestream forget`` where a site is more than folders: a bucket, a Cluster, encryption, a console, classifiers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.console import API, console_config, running_console
from tests.support.past import AXES, sighting
from tests.support.redis_servers import cluster, cluster_url, redis_binary
from tests.support.remembered import ANNA, BEN, WEEK_S, Site, make_site
from tests.support.s3_server import S3, s3_server
from tests.support.sample_events import make_event, stream_fields
from worker.cli import run_command_line
from worker.config import EvidenceConfig, RedisConfig
from worker.encryption import new_key, parse_keys, use
from worker.gallery.classifier import identity_id_of, write_classifier
from worker.gallery.folder import FolderGallery
from worker.history.evidence_store import open_store, paths_of, picture_path
from worker.history.store import History
from worker.redis.client import connect
from worker.training import svm

SHARDED = "facestream:events:{camera_id}"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    return monkeypatch


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server(tmp_path / "server", monkeypatch) as server:
        yield server


def forget(site: Site, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """The receipt of Anna."""
    code = run_command_line(["forget", ANNA, "--gallery", str(site.gallery), "--yes", "--json", *more])
    said = capsys.readouterr()
    assert code == 0, said
    receipt: dict[str, Any] = json.loads(said.out)
    return receipt


def test_pictures_in_a_bucket_go_and_those_of_others_stay(
    tmp_path: Path, settings: pytest.MonkeyPatch, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path / "site")
    shutil.rmtree(site.pictures)
    bucket = {"store": "s3://faces/site-a", "s3_endpoint": s3.endpoint}
    store = open_store(EvidenceConfig(**bucket))
    with History.open(site.state) as history:
        past = {seen.sighting_id: seen for seen in history.sightings()}
    for one in past.values():
        for path in paths_of(picture_path(one.camera_id, one.started_at, one.sighting_id)):
            store.put(path, b"JPEG")
    for name, value in bucket.items():
        settings.setenv(f"FACESTREAM_EVIDENCE__{name.upper()}", value)
    receipt = forget(site, capsys, "--no-events")
    left = sorted(path.name.removesuffix(".jpg") for path in s3.folder.rglob("*.jpg"))
    # Anna's are door_1 and door_2; door_4 was named so by mistake, and nobody was there at the same time.
    assert left == sorted(f"door_{number}.{kind}" for number in (3, 4, 5) for kind in ("face", "frame"))
    (place,) = (place for place in receipt["places"] if place["place"] == "pictures of sightings")
    assert (place["where"], place["removed"]) == ("s3://faces/site-a", "4 pictures")
    assert place["physical_at"] is None, "what a bucket does with its disks, nobody can see from here"
    assert any("bucket keeps versions" in one["what"] for one in receipt["remains"])


def test_in_a_cluster_every_camera_is_told_and_entries_go_on_every_node(
    tmp_path: Path, settings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path / "site")
    settings.setenv("FACESTREAM_EVIDENCE__STORE", str(site.pictures))
    cameras = [f"camera-{number}" for number in range(6)]
    with cluster(redis_binary(), tmp_path / "cluster") as nodes:
        client: Any = connect(RedisConfig(url=cluster_url(nodes[:1])))
        for number, camera in enumerate(cameras):
            of_anna = make_event(number, camera_id=camera, identity_id=site.anna, identity_name=ANNA)
            of_ben = make_event(number + 100, camera_id=camera, identity_id="b", identity_name=BEN)
            for key in (f"facestream:events:{camera}", f"{{facestream:events:{camera}}}:dead:archive"):
                client.xadd(key, stream_fields(of_anna))
                client.xadd(key, stream_fields(of_ben))
        held = [len(client.get_redis_connection(node).keys("*")) for node in client.get_primaries()]
        assert sum(count > 0 for count in held) > 1, "the streams lie on more than one node"
        receipt = forget(site, capsys, "--redis", cluster_url(nodes), "--stream", SHARDED, "--delete-entries")
        for camera in cameras:
            entries = [fields for _, fields in client.xrange(f"facestream:events:{camera}")]
            assert {text(fields, "type") for fields in entries} >= {"erased"}
            named = {text(fields, "identity_name") for fields in entries}
            assert named == {BEN, ""}
            (letter,) = client.xrange(f"{{facestream:events:{camera}}}:dead:archive")
            assert text(letter[1], "identity_name") == BEN
        client.close()
    (place,) = (place for place in receipt["places"] if place["place"] == "event streams")
    assert place["removed"] == "12 entries deleted"


def text(fields: dict[Any, Any], name: str) -> str:
    found = fields.get(name, fields.get(name.encode(), b""))
    return found.decode() if isinstance(found, bytes) else found


def test_encrypted_files_are_searched_for_people_by_what_is_in_them_and_nobody_is_left(
    tmp_path: Path, settings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = new_key()
    settings.setenv("FACESTREAM_ENCRYPTION__KEY", key)
    settings.setenv("FACESTREAM_EVIDENCE__STORE", str(tmp_path / "pictures"))
    use(parse_keys(key))
    site = make_site(tmp_path)
    assert site.files_with(*site.traces) == []
    before = {path: path.read_bytes() for path in site.gallery.rglob("*") if path.is_file()}
    receipt = forget(site, capsys, "--no-events")
    assert receipt["whole"]
    assert all(place["physical_at"] for place in receipt["places"] if place["place"] != "consumers")
    gallery = FolderGallery.open(site.gallery)
    assert [person.name for person in gallery.people()] == [BEN]
    previous = gallery.previous()
    assert previous is not None
    assert [person.name for person in previous.people()] == [BEN]
    with History.open(site.state) as history:
        assert {seen.sighting_id for seen in history.sightings()} == {"door_3", "door_4", "door_5"}
    # Whatever holds a vector was written anew: what was sealed with Anna in it is in no file any more.
    of_vectors = [content for path, content in before.items() if path.name.endswith((".npy", ".vectors"))]
    assert of_vectors
    assert not any(path.read_bytes() in of_vectors for path in site.gallery.rglob("*") if path.is_file())


def test_a_console_that_runs_shows_nothing_of_them_from_the_next_request_on(
    tmp_path: Path, settings: pytest.MonkeyPatch, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = console_config(tmp_path, redis_url)
    settings.setenv("FACESTREAM_EVIDENCE__STORE", str(config.evidence.store))
    with running_console(config) as console:
        reader = console.as_role("operator")
        seen = [reader.get(f"{API}/{what}").text for what in ("people", "sightings", "unknowns")]
        assert all("Anna" in one for one in seen[:2])
        code = run_command_line(["forget", "Anna", "--gallery", str(config.gallery), "--yes", "--redis", redis_url])
        assert code == 0, capsys.readouterr().err
        for what in ("people", "sightings", "unknowns", "people/p-anna", "cameras", "audit"):
            answer = reader.get(f"{API}/{what}")
            assert "Anna" not in answer.text, what
            assert "p-anna" not in answer.text or answer.status_code == 404, what
        assert reader.get(f"{API}/people/p-anna").status_code == 404
        assert [person["identity_name"] for person in reader.get(f"{API}/people").json()["items"]] == ["Bob"]


def test_a_classifier_that_was_trained_on_them_is_named_as_stale(
    tmp_path: Path, settings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path)
    settings.setenv("FACESTREAM_EVIDENCE__STORE", str(site.pictures))
    owners, faces = np.repeat(np.arange(2), 6), np.repeat(np.eye(2, 16, dtype=np.float32), 6, axis=0)
    for folder, people in (("with her", (ANNA, BEN)), ("without", (BEN, "Cleo"))):
        write_classifier(
            tmp_path / folder, svm.fit(faces, owners, 0), faces, owners, kind="svm", created_at="", model_id="m",
            preprocessing_digest="d", dimension=16, people=people, threshold=0.5, least_probability=0.5,
        )  # fmt: skip
    named = [argument for folder in ("with her", "without") for argument in ("--classifier", str(tmp_path / folder))]
    receipt = forget(site, capsys, "--no-events", *named)
    stale = [one["what"] for one in receipt["remains"] if "trained on this person" in one["what"]]
    assert stale == [f"the classifier {tmp_path / 'with her'} was trained on this person"]
    config = tmp_path / "classifier.yaml"
    config.write_text(json.dumps({"classifier": str(tmp_path / "with her"), "state_dir": str(tmp_path / "past")}))
    of_anna: dict[str, Any] = {"identity_id": identity_id_of(ANNA), "identity_name": ANNA}
    with History.open(tmp_path / "past", create=True) as history:
        history.write([sighting(1, AXES[0], **of_anna), sighting(2, AXES[1])], keep_s=WEEK_S, remember_s=WEEK_S)
    assert run_command_line(["forget", ANNA, "--config", str(config), "--yes", "--json", "--no-events"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["found"]["past_sightings"] == 1
    assert any("with her" in one["what"] for one in receipt["remains"]), "which goes on naming her"
    assert run_command_line(["forget", BEN, "--gallery", str(site.gallery), "--yes", "--classifier", "none"]) == 1
    assert [person.name for person in FolderGallery.open(site.gallery).people()] == [BEN], "nothing was changed"
