"""``facestream calibrate`` from the history of a worker, and the warning of people who resemble each other."""

import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from tests.support.past import AXES, MODEL, sighting
from worker.cli import run_command_line
from worker.cli.calibration_report import ask_visits
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
    assert "some of which may be known people who were not recognised" in " ".join(text.split())
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


@dataclass
class Terminal:
    """The person's end of a terminal."""

    end: int

    def types(self, text: str) -> None:
        os.write(self.end, text.encode())

    @property
    def shows(self) -> str:
        """All that has been written so far, and what was typed."""
        shown = b""
        while select.select([self.end], [], [], 0)[0]:
            shown += os.read(self.end, 4096)
        return shown.decode()


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Within the block standard input and standard error are a terminal."""
    person, process = os.openpty()
    with (
        os.fdopen(process, "r", closefd=False) as typed,
        os.fdopen(process, "w", 1) as shown,
        patch.multiple(sys, stdin=typed, stderr=shown),
    ):
        yield Terminal(person)
    os.close(person)


@pytest.mark.parametrize(
    ("typed", "visits", "mistakes"),
    [("400\n", 400.0, 0), ("\n", None, 0), ("\x04", None, 0), ("1,000\nnan\n-1\n 12.5 \n", 12.5, 3)],
    ids=["number", "enter", "end of input", "mistakes first"],
)
def test_who_sits_at_a_terminal_is_asked_how_many_strangers_pass(
    typed: str, visits: float | None, mistakes: int
) -> None:
    with terminal() as person:
        person.types(typed)
        assert ask_visits("door") == visits
        shown = person.shows
    assert "How many strangers pass camera door in a day?" in shown
    assert shown.count("write it like 400 or 12.5") == mistakes


@pytest.mark.parametrize(
    ("more", "asks"),
    [([], True), (["--json"], False), (["--visits-per-day", "4"], False), (["--history"], False)],
    ids=["nothing said", "for a program", "said", "counted from the history"],
)
def test_the_question_comes_before_the_work_and_only_where_it_is_open(
    site: tuple[Path, Path], tmp_path: Path, more: list[str], *, asks: bool
) -> None:
    gallery, _ = site
    (tmp_path / "nobody").mkdir()
    common = ["calibrate", "--gallery", str(gallery), "--target-fmr", "0.02", "--people", str(tmp_path / "nobody")]
    with terminal() as person:
        person.types("\n")
        assert run_command_line([*common, *more]) == 1
        shown = person.shows
    assert ("Strangers a day" in shown) == asks
    assert "error" in shown


def test_nobody_is_asked_where_there_is_no_terminal(
    site: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, _ = site
    (tmp_path / "nobody").mkdir()
    arguments = ["calibrate", "--gallery", str(gallery), "--target-fmr", "0.02", "--people", str(tmp_path / "nobody")]
    assert run_command_line(arguments) == 1
    assert "Strangers a day" not in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "1,000", "many"])
def test_a_number_of_visits_that_is_none_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["calibrate", "--gallery", "g", "--target-fmr", "0.02", "--people", ".", "--visits-per-day", number]
    assert run_command_line(arguments) == 2
    assert "write it like 400 or 12.5" in capsys.readouterr().err
