"""``facestream calibrate`` from the history of a worker, and the warning of people who resemble each other."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.past import AXES, MODEL, sighting
from worker.cli import run_command_line
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.history.records import Account
from worker.history.store import History


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path]:
    """A gallery of one person, and the history of two cameras: 900 strangers each, the nearest of them named."""
    gallery = FolderGallery.create(tmp_path / "gallery", MODEL.model_id, MODEL.preprocessing_digest, 16)
    gallery.add([NewSample("Ann", AXES[0], "a.jpg", "a")])
    chance = np.random.default_rng(0)
    with History.open(tmp_path / "state", create=True) as history:
        for camera, place in (("door", 0.12), ("yard", 0.18)):
            similarities = chance.gumbel(place, 0.05, 900).tolist()
            history.write(
                [
                    sighting(
                        16 * number, (value * AXES[0] + (1 - value**2) ** 0.5 * AXES[1]).astype(np.float32),
                        sighting_id=f"{camera}_{number}", camera_id=camera, account=Account(threshold=0.3),
                        identity_id="" if value < 0.3 else "ann",
                    )
                    for number, value in enumerate(similarities)
                ],
                keep_s=1e9, remember_s=1e9,
            )  # fmt: skip
    return tmp_path / "gallery", tmp_path / "state"


def test_the_history_of_a_camera_gives_its_threshold_and_its_false_alarms(
    site: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, state = site
    common = ["calibrate", "--gallery", str(gallery), "--history", "--state-dir", str(state), "--target-fpir", "0.02"]
    assert run_command_line([*common, "--camera", "yard", "--json"]) == 0
    yard = json.loads(capsys.readouterr().out)
    assert (yard["decided_by"], yard["target_status"]) == ("history", "kept")
    assert list(yard["cameras"]) == ["yard"]
    assert yard["visits_per_day"] == pytest.approx(82, rel=0.1)
    assert yard["false_alarms_per_camera_and_day"] == pytest.approx(yard["visits_per_day"] * yard["fpir"], rel=1e-3)
    assert FolderGallery.open(gallery).camera_thresholds == {"yard": yard["threshold"]}
    assert run_command_line([*common, "--camera", "door", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "some may be known people who were not recognised" in text
    assert "strangers a day (from the history)" in text
    door = float(text.split("threshold ")[1].split(" ")[0])
    assert door < yard["threshold"]


def test_without_a_history_the_command_says_where_it_looked(
    site: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, _ = site
    (tmp_path / "empty").mkdir()
    common = ["calibrate", "--gallery", str(gallery), "--history", "--target-fpir", "0.02"]
    assert run_command_line([*common, "--state-dir", str(tmp_path / "empty")]) == 1
    assert f"no history in {tmp_path / 'empty'}" in capsys.readouterr().err


def test_audit_tells_that_the_people_resemble_each_other_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(0)
    kin = chance.normal(size=(40, 64)) / 8 + np.eye(64)[0]
    gallery = FolderGallery.create(tmp_path / "gallery", "face-reidentification-retail-0095", "d", 64)
    unit = (kin / np.linalg.norm(kin, axis=1, keepdims=True)).astype(np.float32)
    gallery.add([NewSample(f"p{row}", vector, f"{row}.jpg", str(row)) for row, vector in enumerate(unit)])
    common = ["gallery", "audit", "--gallery", str(tmp_path / "gallery")]
    assert run_command_line(common) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("your people resemble each other ")
    assert "keeps the promise for them" in first
    assert "facestream calibrate --people" in first
    assert run_command_line([*common, "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert documents[0]["kind"] == "resemblance"
