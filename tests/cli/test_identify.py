import errno
import os
from pathlib import Path

import pytest

from worker.cli import run_command_line


@pytest.mark.data
@pytest.mark.parametrize("command", ["detect", "report"])
def test_pictures_that_cannot_be_written_are_told_in_one_line(
    command: str, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", str(test_data / "models"))
    photo = str(test_data / "photos" / "train" / "obama" / "obama.jpg")
    (tmp_path / "file").write_text("in the way")
    below = str(tmp_path / "file" / "pictures")
    options = {
        "detect": ["--draw", below],
        "report": ["--probe", photo, "--model", "face-reidentification-retail-0095", "--output", below],
    }
    assert run_command_line([command, *options[command], photo]) == 1
    error = capsys.readouterr().err
    assert error == f"facestream: error: cannot write {below}: {os.strerror(errno.ENOTDIR)}\n"
