"""What people build with Keras, dlib and faces today, done with the commands here, on real photos and footage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import RETAIL, facestream, worker_arguments
from worker.cli import run_command_line
from worker.faces.networks.parity import write_random_weights

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(180)]

IN_THE_PHOTOS = {
    "alex_lacamoire1.jpg": ["alex_lacamoire"],
    "johnsnow_test1.jpg": ["kit_harington"],
    "kit_with_rose.jpg": ["kit_harington", "rose_leslie"],
    "obama1.jpg": ["obama"],
    "obama_and_biden.jpg": ["", "biden", "obama"],
}


def test_one_photo_each_names_everybody_in_the_test_photos_and_nobody_else(test_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    flat = tmp_path / "images"
    flat.mkdir()
    for person in (test_data / "photos" / "train").iterdir():
        first = min(person.iterdir())
        shutil.copyfile(first, flat / f"{person.name}{first.suffix}")
    enrolled = facestream("enroll", "--gallery", tmp_path / "g", flat, "--model", "dlib-resnet")
    assert enrolled.code == 0, enrolled
    assert "5 photos taken, 0 not; 5 people" in enrolled.stdout
    found = facestream("identify", "--gallery", tmp_path / "g", test_data / "photos" / "test", "--json")
    assert found.code == 0, found
    named: dict[str, list[str]] = {}
    for face in found.documents:
        named.setdefault(Path(face["path"]).name, []).append(face["identity_name"])
        assert face["distance"] == pytest.approx((2 - 2 * face["similarity"]) ** 0.5, abs=2e-3)
        assert (face["identity_name"] != "") == (face["similarity"] >= face["threshold"])
    assert {name: sorted(people) for name, people in named.items()} == IN_THE_PHOTOS
    without = facestream("gallery", "remove", "--gallery", tmp_path / "g", "obama")
    assert without.code == 0, without
    stranger = facestream("identify", "--gallery", tmp_path / "g", test_data / "photos" / "test" / "obama1.jpg")
    assert "unknown" in stranger.stdout
    assert "biden" not in stranger.stdout


def report(test_data: Path, *arguments: object) -> list[object]:
    return ["report", "--model", RETAIL, "--models-dir", test_data / "models", *arguments]


def test_a_report_shows_each_face_with_its_verdict(test_data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(test_data / "photos" / "test", photos)
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(photos / "wall.png")
    (photos / "broken.jpg").write_bytes(b"not a picture")
    probe, output = test_data / "photos" / "train" / "obama" / "obama.jpg", tmp_path / "out" / "report"
    ended = facestream(*report(test_data, "--probe", probe, photos, "--output", output, "--json"))
    assert ended.code == 1, "a photo could not be read"
    assert ended.stderr.count("facestream: error:") == 1
    assert "broken.jpg" in ended.stderr
    faces = [document for document in ended.documents if not document["reason"]]
    same = sorted(Path(face["path"]).name for face in faces if face["same"])
    assert same == ["obama1.jpg", "obama_and_biden.jpg"]
    assert len(faces) == sum(map(len, IN_THE_PHOTOS.values()))
    others = {Path(d["path"]).name: d["reason"] for d in ended.documents if d["reason"]}
    assert others == {"broken.jpg": "unreadable", "wall.png": "no_face"}
    assert [json.loads(line) for line in (output / "report.jsonl").read_text().splitlines()] == ended.documents
    pictures = {face["picture"] for face in faces}
    assert len(pictures) == len(faces)
    assert {path.name for path in output.iterdir()} == pictures | {"probe.png", "summary.png", "report.jsonl"}
    sizes = {}
    for name in pictures | {"summary.png"}:
        with Image.open(output / name) as picture:
            sizes[name] = picture.size
    assert all(max(sizes[name]) == 480 for name in pictures)
    rows = -(-(1 + len(ended.documents)) // 4)
    assert sizes["summary.png"][1] > rows * 220, "the sheet has a tile for each of them"


@pytest.mark.parametrize(
    ("images", "probe", "message"),
    [
        ("empty", "photos/train/obama/obama.jpg", "no photos in"),
        ("photos/test", "wall.png", "wall.png: no face found"),
        ("photos/test", "nowhere.jpg", "nowhere.jpg"),
        ("nowhere", "photos/train/obama/obama.jpg", "no photo or folder at"),
    ],
)
def test_a_report_that_cannot_be_made_says_why_in_one_line(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, probe: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(tmp_path / "wall.png")

    def place(name: str) -> Path:
        return next((root / name for root in (test_data, tmp_path) if (root / name).exists()), tmp_path / name)

    arguments = report(test_data, "--probe", place(probe), place(images), "--output", tmp_path / "out")
    assert run_command_line([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.redis
@pytest.mark.parametrize("detector", ["yunet", "dlib-hog"])
def test_the_worker_publishes_the_same_events_with_another_detector(
    test_data: Path, tmp_path: Path, redis_url: str, detector: str
) -> None:
    if detector == "dlib-hog":
        pytest.importorskip("dlib")
    clip = test_data / "video" / "speaker_katie_hill.mp4"
    still = tmp_path / "katie_hill.png"
    Image.fromarray(_first_frame(clip)).save(still)
    made = facestream(
        "enroll", "--gallery", tmp_path / "g", still, "--model", RETAIL, "--models-dir", test_data / "models",
        "--detector", detector,
    )  # fmt: skip
    assert made.code == 0, made
    ended = facestream(
        *worker_arguments(clip, redis_url, test_data, "--gallery", tmp_path / "g", "--detector", detector, "--json")
    )
    assert ended.code == 0, ended.stderr[-2000:]
    *events, summary = ended.documents
    assert [(event["type"], event["identity_name"]) for event in events] == [
        ("started", "katie_hill"),
        ("ended", "katie_hill"),
    ]
    assert summary["summary"]["tracks"] == 1


def _first_frame(clip: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    import av

    with av.open(str(clip)) as container:
        picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return picture


def test_a_network_of_keras_enrols_and_identifies(test_data: Path, tmp_path: Path) -> None:
    # The seed of the parity tests: what they have converted is not converted again.
    manifest = write_random_weights("facenet", tmp_path / "facenet.h5", seed=4)
    train = test_data / "photos" / "train"
    enrolled = facestream("enroll", "--gallery", tmp_path / "g", train, "--model", manifest)
    assert enrolled.code == 0, enrolled
    photo = train / "obama" / "obama.jpg"
    found = facestream("identify", "--gallery", tmp_path / "g", "--model", manifest, photo, "--json")
    assert found.code == 0, found
    (face,) = found.documents
    # Random weights tell nobody apart, but the very photo that was enrolled is nearest to itself.
    assert face["similarity"] > 0.9999
