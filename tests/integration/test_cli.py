"""The commands for photos, galleries and models, and the help of all of them."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import RETAIL, facestream
from worker import __version__

PHOTOS = Path("photos")

HELP_OF_ALL = """
import contextlib, io, json, sys
import typer
from worker.cli import app, run_command_line

def paths(command, path):
    yield path
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from paths(child, [*path, name])

def descriptions(command, path):
    for name in path:
        command = command.commands[name]
    return [parameter.help or "" for parameter in command.params if hasattr(parameter, "help")]

shown, written = {}, {}
for path in paths(typer.main.get_command(app), []):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = run_command_line([*path, "--help"])
    shown[" ".join(path)] = [code, text.getvalue()]
    written[" ".join(path)] = descriptions(typer.main.get_command(app), path)
heavy = {"numpy", "redis", "sqlalchemy", "structlog"}
heavy |= {"tensorflow", "keras", "openvino", "cv2", "faiss", "av", "sklearn", "scipy", "dlib", "matplotlib", "skimage"}
print(json.dumps({"shown": shown, "written": written, "heavy": sorted(heavy & set(sys.modules))}))
"""


@pytest.fixture(scope="module")
def help_of_all() -> dict[str, Any]:
    command, wide = [sys.executable, "-c", HELP_OF_ALL], os.environ | {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}
    run = subprocess.run(command, env=wide, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return dict(json.loads(run.stdout))


def test_every_command_has_help(help_of_all: dict[str, Any]) -> None:
    shown = help_of_all["shown"]
    contract = {"demo", "run", "enroll", "identify", "detect", "verify", "tail", "models pull", "config check"}
    contract |= {f"gallery {name}" for name in ("list", "show", "remove", "rename", "export")}
    assert contract <= set(shown)
    for path, (code, text) in shown.items():
        assert code == 0, path
        usage, *panels = re.split(r" (?:Arguments|Options) ", " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split()))
        assert usage.startswith(f"Usage: facestream {path}".strip()), usage
        assert usage.endswith("."), f"{path} is not described: {usage}"
        assert "--help" in panels[-1]


def test_help_is_printed_as_it_is_written(help_of_all: dict[str, Any]) -> None:
    # Rich takes words in square brackets for its markup, and prints nothing of them.
    for path, (_, text) in help_of_all["shown"].items():
        printed = re.sub(r"[\s│]", "", text)
        lost = [said for said in help_of_all["written"][path] if re.sub(r"\s", "", said) not in printed]
        assert lost == [], path
        assert all(help_of_all["written"][path]), f"an option of {path} is not described"


def test_help_loads_nothing_heavy(help_of_all: dict[str, Any]) -> None:
    assert help_of_all["heavy"] == []


def test_help_as_users_call_it() -> None:
    for arguments in (["--help"], ["run", "-h"], ["gallery", "list", "--help"]):
        ended = facestream(*arguments)
        assert (ended.code, ended.stderr) == (0, "")
        assert "Usage: facestream" in ended.stdout
    alone = facestream()
    assert alone.code == 2
    assert "Usage: facestream" in alone.stdout + alone.stderr


def test_the_version_is_told_either_way() -> None:
    told = {facestream(argument).stdout for argument in ("--version", "version")}
    assert told == {f"{__version__}\n"}


@pytest.fixture(scope="module")
def models(test_data: Path) -> tuple[object, ...]:
    return ("--models-dir", test_data / "models")


@pytest.fixture(scope="module")
def people(test_data: Path, models: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of the people in ``photos/train``."""
    path = tmp_path_factory.mktemp("cli") / "people"
    enrolled = facestream(
        "enroll", "--gallery", path, "--model", RETAIL, *models, "--json", test_data / PHOTOS / "train"
    )
    assert (enrolled.code, enrolled.stderr) == (0, ""), enrolled
    for photo in enrolled.documents:
        assert {"path", "identity_id", "accepted", "reason", "quality"} <= photo.keys()
        assert photo["accepted"], photo
        assert 0 < photo["quality"] <= 1
    return path


@pytest.mark.data
@pytest.mark.slow
def test_people_are_identified_in_other_photos(people: Path, models: tuple[object, ...], test_data: Path) -> None:
    tests = test_data / PHOTOS / "test"
    found = facestream("identify", "--gallery", people, *models, "--json", tests)
    assert (found.code, found.stderr) == (0, "")
    named: dict[str, set[str]] = {}
    for face in found.documents:
        assert {"box", "score", "identity_id", "threshold", "reason"} <= face.keys()
        assert face["distance"] == pytest.approx(math.sqrt(2 - 2 * face["similarity"]), abs=1e-3)
        assert bool(face["identity_id"]) == (face["similarity"] >= face["threshold"]) == bool(face["identity_name"])
        named.setdefault(Path(face["path"]).stem, set()).add(face["identity_name"])
    assert "obama" in named["obama1"]
    assert {"obama", "biden"} <= named["obama_and_biden"]
    assert named["johnsnow_test1"] == {"kit_harington"}
    assert {"kit_harington", "rose_leslie"} <= named["kit_with_rose"]


@pytest.mark.data
@pytest.mark.slow
def test_two_enrolments_make_one_gallery(models: tuple[object, ...], test_data: Path, tmp_path: Path) -> None:
    people = ("obama", "biden")
    arguments = ("enroll", "--gallery", tmp_path / "new", "--model", RETAIL, *models)
    for name in people:
        (tmp_path / "photos" / name).mkdir(parents=True)
        photos = test_data / PHOTOS / "train" / name
        shutil.copytree(photos, tmp_path / "photos" / name / "of" / name)
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda name: facestream(*arguments, tmp_path / "photos" / name / "of"), people))
    assert [ended.code for ended in both] == [0, 0], both
    listed = facestream("gallery", "list", "--gallery", tmp_path / "new", "--json")
    assert sorted(person["identity_name"] for person in listed.documents) == sorted(people)


@pytest.mark.data
@pytest.mark.slow
def test_names_of_files_that_are_no_utf8_are_told(models: tuple[object, ...], test_data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos" / os.fsdecode(b"Kat\xe9")
    photos.mkdir(parents=True)
    source = min((test_data / PHOTOS / "train" / "obama").iterdir())
    shutil.copy(source, photos / os.fsdecode(b"\xe9.jpg"))
    gallery = ("--gallery", tmp_path / "people")
    for utf8 in ("1", "0"):
        environment: dict[str, Any] = {
            "PYTHONUTF8": utf8,
            "PYTHONIOENCODING": "utf-8:strict" if utf8 == "1" else "ascii:strict",
        }
        enrolled = facestream("enroll", *gallery, "--model", RETAIL, *models, tmp_path / "photos", **environment)
        assert enrolled.code == (0 if utf8 == "1" else 1), enrolled  # the second time it is a duplicate
        listed = facestream("gallery", "list", *gallery, **environment)
        assert listed.code == 0, listed
        found = facestream("identify", *gallery, *models, "--json", tmp_path / "photos", **environment)
        assert (found.code, found.stderr) == (0, ""), found
        (face,) = found.documents
        assert face["identity_name"] == "Katé"
        assert Path(face["path"]) == photos / os.fsdecode(b"\xe9.jpg")


@pytest.mark.data
@pytest.mark.slow
def test_the_life_of_a_gallery(people: Path, tmp_path: Path) -> None:
    listed = facestream("gallery", "list", "--gallery", people, "--json")
    assert (listed.code, listed.stderr) == (0, "")
    samples = {person["identity_name"]: person["samples"] for person in listed.documents}
    assert samples == {"alex_lacamoire": 1, "biden": 2, "kit_harington": 2, "obama": 2, "rose_leslie": 2}
    assert facestream("gallery", "rename", "biden", "Joe Biden", "--gallery", people).code == 0
    shown = facestream("gallery", "show", "Joe Biden", "--gallery", people, "--json")
    (person,) = shown.documents
    assert {sample["photo"] for sample in person["samples"]} == {"biden.jpg", "biden2.jpg"}
    assert facestream("gallery", "remove", "alex_lacamoire", "--gallery", people).code == 0
    assert "alex_lacamoire" in facestream("gallery", "show", "alex_lacamoire", "--gallery", people).only_error(1)
    assert facestream("gallery", "export", "--gallery", people, "--npz", tmp_path / "all.npz").code == 0
    with np.load(tmp_path / "all.npz", allow_pickle=False) as exported:
        assert sorted(set(exported["names"].tolist())) == ["Joe Biden", "kit_harington", "obama", "rose_leslie"]
        assert np.linalg.norm(exported["embeddings"], axis=1) == pytest.approx(np.ones(8), abs=1e-4)


@pytest.mark.data
@pytest.mark.slow
def test_verify_tells_people_apart(models: tuple[object, ...], test_data: Path, tmp_path: Path) -> None:
    train = test_data / PHOTOS / "train"
    one, two, other = train / "obama" / "obama.jpg", train / "obama" / "obama2.jpg", train / "biden" / "biden.jpg"
    model = ("--model", RETAIL, *models)
    same = facestream("verify", one, two, *model, "--json", "--draw", tmp_path / "pair.png")
    (verdict,) = same.documents
    assert verdict["same"] is True
    assert verdict["model_id"] == RETAIL
    assert verdict["similarity"] >= verdict["threshold"]
    with Image.open(tmp_path / "pair.png") as pair:
        assert min(pair.size) > 100
    different = facestream("verify", one, other, *model)
    assert (different.code, different.stderr) == (0, "")
    assert different.stdout.startswith("different people: cosine ")
    assert len(different.stdout.splitlines()) == 1


@pytest.mark.data
@pytest.mark.slow
def test_detect_gives_boxes_scores_and_landmarks(test_data: Path, tmp_path: Path) -> None:
    photo = test_data / PHOTOS / "test" / "kit_with_rose.jpg"
    found = facestream("detect", photo, "--json", "--draw", tmp_path)
    assert (found.code, found.stderr) == (0, "")
    (document,) = found.documents
    assert len(document["boxes"]) == len(document["scores"]) == len(document["landmarks"]) == 2
    for box, landmarks in zip(document["boxes"], document["landmarks"], strict=True):
        left_eye, right_eye, nose, left_mouth, right_mouth = landmarks
        assert box[0] < left_eye[0] < right_eye[0] < box[2]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1] < box[3]
    assert document["ms"] > 0
    with Image.open(photo) as before, Image.open(tmp_path / "kit_with_rose.jpg") as after:
        assert before.size == after.size


@pytest.mark.data
def test_models_are_listed_with_the_state_of_their_weights(models: tuple[object, ...]) -> None:
    listed = facestream("models", "list", *models, "--json")
    assert (listed.code, listed.stderr) == (0, "")
    states = {model["model_id"]: model["weights"] for model in listed.documents}
    assert {"vggface2-resnet50", "dlib-resnet", RETAIL} <= set(states)
    assert states[RETAIL] == "present"
    checked = facestream("models", "check", RETAIL, *models)
    assert checked.code == 0
    assert facestream("models", "check", "vggface2-resnet50", *models).code == (
        0 if states["vggface2-resnet50"] == "present" else 1
    )


def test_configuration_is_shown_without_secrets(tmp_path: Path) -> None:
    config = tmp_path / "worker.yaml"
    config.write_text(
        "cameras: [{id: door, source: 'rtsp://u:s3cret@h/x'}]\nredis: {url: 'redis://:s3cret@h:6379/0'}\n"
    )
    checked = facestream("config", "check", "--config", config)
    assert (checked.code, checked.stdout, checked.stderr) == (0, "valid: 1 camera\n", "")
    shown = facestream("config", "show", "--config", config, FACESTREAM_DETECTION__MIN_FACE_PX="33")
    assert (shown.code, shown.stderr) == (0, "")
    assert "min_face_px: 33" in shown.stdout
    assert "s3cret" not in shown.stdout
    schema = facestream("config", "schema")
    assert "cameras" in json.loads(schema.stdout)["properties"]
