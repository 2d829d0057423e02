"""``facestream enroll`` and ``gallery`` as their users meet them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from worker.cli import run_command_line
from worker.gallery.folder import FolderGallery

RETAIL = "face-reidentification-retail-0095"


@pytest.mark.data
def test_people_are_enrolled_into_a_gallery_that_was_emptied_with_the_model_that_it_has(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", str(test_data / "models"))
    photos = str(test_data / "photos" / "train" / "obama")
    gallery = ["--gallery", str(tmp_path / "g")]
    assert run_command_line(["enroll", *gallery, "--model", RETAIL, photos]) == 0
    for name in ("obama", "obama2"):
        assert run_command_line(["gallery", "remove", name, *gallery]) == 0
    assert run_command_line(["enroll", *gallery, photos]) == 0
    assert run_command_line(["gallery", "list", *gallery]) == 0
    assert f"2 people, model {RETAIL}" in capsys.readouterr().out


@pytest.mark.data
def test_photos_beside_a_misplaced_one_are_not_left_to_look_wrong(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = test_data / "five_celebrities" / "train"
    first, second = (sorted((train / who).glob("*.jpg"))[:3] for who in ("elton_john", "madonna"))
    for who, photos in (("elton", [second[0], *first[1:]]), ("madonna", [first[0], *second[1:]])):
        (tmp_path / "photos" / who).mkdir(parents=True)
        for photo in photos:
            shutil.copy(photo, tmp_path / "photos" / who / f"{photo.parent.name}-{photo.name}")
    models = ["--model", RETAIL, "--models-dir", str(test_data / "models")]
    people = ["--gallery", str(tmp_path / "people")]
    assert run_command_line(["enroll", *people, *models, str(tmp_path / "photos")]) == 0
    assert "'facestream gallery audit' says which it is" in " ".join(capsys.readouterr().out.split())


def test_what_is_removed_and_renamed_is_told_in_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION)
    added = gallery.add([sample("anna", 1), sample("ben", 2), sample("ben", 3)])
    where = ["--gallery", str(tmp_path / "g"), "--json"]
    assert run_command_line(["gallery", "rename", "anna", "Anna", *where]) == 0
    assert added[1] is not None
    assert run_command_line(["gallery", "remove-sample", added[1].sample_id, *where]) == 0
    assert run_command_line(["gallery", "remove", "ben", *where]) == 0
    renamed, sample_gone, gone = map(json.loads, capsys.readouterr().out.splitlines())
    assert (renamed["identity_name"], renamed["previous_name"]) == ("Anna", "anna")
    assert (sample_gone["sample_id"], sample_gone["photo"]) == (added[1].sample_id, "2.jpg")
    assert (gone["identity_name"], gone["samples"]) == ("ben", 1)
    assert renamed["version"] < sample_gone["version"] < gone["version"]


def test_one_is_not_told_as_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION).add([sample("anna", 1)])
    where = ["--gallery", str(tmp_path / "g")]
    assert run_command_line(["gallery", "list", *where]) == 0
    assert run_command_line(["gallery", "audit", *where, "--threshold", "0.5"]) == 0
    assert run_command_line(["gallery", "remove", "anna", *where]) == 0
    told = capsys.readouterr().out
    assert "1 person, model tiny" in told
    assert "1 person, 1 sample, threshold" in told
    assert "removed anna (1 sample);" in told
