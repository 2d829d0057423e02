"""Who an unknown person is: their faces on one sheet."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.past import sighting, unknown
from tests.support.sample_events import make_event
from worker.cli import run_command_line
from worker.config import EvidenceConfig
from worker.history.evidence import Evidence
from worker.history.evidence_store import FolderStore
from worker.history.store import History

WEEK_S = 7 * 86_400.0
GREEN = np.full((240, 320, 3), (0, 200, 0), np.uint8)


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Shows u-1, who was seen twice; ``pictures`` of the first sighting are in the store."""

    def run(store: Path | None, code: int) -> str:
        if store is not None:
            monkeypatch.setenv("FACESTREAM_EVIDENCE__STORE", str(store))
        arguments = ["--state-dir", str(tmp_path), "--sheet", str(tmp_path / "who.png")]
        assert run_command_line(["unknown", "show", "u-1", *arguments]) == code
        said = capsys.readouterr()
        return said.out + said.err

    with History.open(tmp_path, create=True) as history:
        seen = [sighting(1, unknown_id="u-1"), sighting(2, unknown_id="u-1")]
        history.write(seen, [unknown("u-1")], keep_s=WEEK_S, remember_s=WEEK_S)
    return run


def keep_pictures(folder: Path) -> None:
    past = sighting(1)
    evidence = Evidence(EvidenceConfig(store=str(folder)), FolderStore(folder))
    evidence.face(past.sighting_id, GREEN, np.array([100, 60, 140, 110], np.float32), 0.9)
    evidence.told(make_event(sighting_id=past.sighting_id, camera_id=past.camera_id, started_at=past.started_at))
    evidence.close()


def test_the_faces_of_an_unknown_person_are_drawn_on_one_sheet(show: Any, tmp_path: Path) -> None:
    keep_pictures(tmp_path / "pictures")
    told = show(tmp_path / "pictures", 0)
    assert "u-1:  first seen" in told
    assert f"wrote {tmp_path / 'who.png'}: 1 of 2 sightings" in told
    drawn = cv2.imread(str(tmp_path / "who.png"))
    assert drawn is not None
    green = (drawn[..., 1] > 150) & (drawn[..., 0] < 60) & (drawn[..., 2] < 60)
    assert green.mean() > 0.1, "the face, in its colours"


def test_where_no_pictures_are_kept_it_says_what_to_switch_on(show: Any, tmp_path: Path) -> None:
    told = show(None, 1)
    assert "Set evidence.store in the worker's configuration" in told
    assert not (tmp_path / "who.png").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_store_without_their_pictures_says_why(show: Any, tmp_path: Path, there: bool) -> None:
    store = tmp_path / "pictures"
    if there:
        store.mkdir()
    told = show(store, 1)
    assert f"no pictures of u-1 in {store}: those of 2 sightings are older than evidence.keep_days" in told
    assert store.exists() == there, "to look makes no folder"


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_list_fits_the_screen_with_its_columns_in_place(
    tmp_path: Path, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with History.open(tmp_path, create=True) as history:
        seen = [sighting(number, unknown_id="u-1", camera_id=f"camera-{number}") for number in range(1, 9)]
        history.write(seen, [unknown("u-1"), unknown("u-2")], keep_s=WEEK_S, remember_s=WEEK_S)
    assert run_command_line(["unknown", "list", "--state-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    head, *rows = [line for line in lines if not line.startswith(" ")]
    for name, value in (("first seen", "2026-"), ("last seen", "2026-")):
        at = head.index(name)
        assert {row[at : at + 5] for row in rows} == {value}
