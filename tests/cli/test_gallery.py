from pathlib import Path

import pytest

from worker.cli import run_command_line

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
