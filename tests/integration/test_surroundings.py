"""What is around a command does not change what it says: locale, optimisation, warnings, encoding, a folder to read
only. (Closed streams and full disks: ``tests/test_files.py``, ``tests/fault/test_disk.py``.)"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import facestream
from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from worker.gallery.folder import FolderGallery

NAME = "Zoë Ångström 明"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("Ünïcode ordner") / "people"
    FolderGallery.create(path, MODEL, DIGEST, DIMENSION).add([sample(NAME, 1)])
    return path


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "LANG": ""},
        {"LC_ALL": "tr_TR.UTF-8", "LANGUAGE": "tr"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"},
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONDEVMODE": "1", "TERM": "dumb", "NO_COLOR": "1"},
    ],
    ids=["C without UTF-8", "POSIX", "Turkish", "ASCII", "optimised, warnings are errors", "development mode"],
)
def test_names_of_people_come_whole_as_json(gallery: Path, environment: dict[str, Any]) -> None:
    listed = facestream("gallery", "list", "--gallery", gallery, "--json", **environment)
    assert (listed.code, listed.stderr) == (0, "")
    assert [document["identity_name"] for document in listed.documents] == [NAME]


@pytest.mark.data
def test_networks_run_optimised_and_with_warnings_as_errors(test_data: Path) -> None:
    photo = test_data / "photos" / "train" / "obama" / "obama.jpg"
    plain = facestream("detect", "--json", photo)
    (document,) = plain.documents
    strict = facestream("detect", "--json", photo, PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
    assert (strict.code, strict.stderr) == (0, "")
    (again,) = strict.documents
    assert again["boxes"] == document["boxes"]


@pytest.mark.data
def test_a_face_in_a_panorama_is_found(test_data: Path, tmp_path: Path) -> None:
    from PIL import Image

    wide = Image.new("RGB", (9000, 500), (90, 120, 140))
    portrait = Image.open(test_data / "photos" / "train" / "obama" / "obama.jpg").convert("RGB")
    portrait.thumbnail((480, 480))
    wide.paste(portrait, (7000, 10))
    wide.save(tmp_path / "wide.jpg", quality=92)
    found = facestream("detect", "--json", "--min-face-px", 60, tmp_path / "wide.jpg")
    assert found.code == 0, found
    boxes = json.loads(found.stdout)["boxes"]
    assert any(left >= 7000 and right <= 7480 for left, _top, right, _bottom in boxes)


def test_a_gallery_that_is_mounted_to_be_read_only_can_be_read(gallery: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    script = f"mount --bind {str(gallery)!r} {mounted} && mount -o remount,ro,bind {mounted}"
    if subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        listed = facestream("gallery", "list", "--gallery", mounted, "--json")
        assert (listed.code, listed.stderr) == (0, "")
        refused = facestream("gallery", "rename", NAME, "Zoe", "--gallery", mounted)
        assert "Read-only file system" in refused.only_error(1)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
