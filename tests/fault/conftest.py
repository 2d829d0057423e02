"""Cameras and a gallery of the people whom they show, made once for all tests that break things."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.support.command_line import RETAIL, facestream
from tests.support.rtsp import require_rtsp


@pytest.fixture(scope="session")
def cameras(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[Cameras]:
    """Twelve cameras that show six people each, again and again."""
    require_rtsp()
    found = Cameras(tmp_path_factory.mktemp("cameras"), test_data / "lfw_dev", 12)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, cameras: Cameras, test_data: Path) -> Path:
    """The six people."""
    folder = tmp_path_factory.mktemp("gallery") / "people"
    enrolled = facestream("enroll", "--gallery", folder, "--model", RETAIL, "--models-dir", test_data / "models",
                          cameras.truth.enroll_folder)  # fmt: skip
    assert enrolled.code == 0, enrolled
    return folder
