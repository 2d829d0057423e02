"""What goes wrong in the world or on the command line: one line that says what, where and what to do."""

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import ERROR, RETAIL, facestream, running, worker_arguments
from tests.support.redis_servers import RedisServer
from tests.support.rtsp import RtspServer, write_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = "hunter2-s3cret"
PERSON = Path("lfw_dev/images/Norm_Coleman/Norm_Coleman_0007.jpg")
OTHER = Path("lfw_dev/images/Steve_Waugh/Steve_Waugh_0001.jpg")


@pytest.fixture(scope="module")
def photos(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photo of a person in many formats, and what is none."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(test_data / PERSON) as person, Image.open(test_data / OTHER) as other:
        person.save(folder / "plain.png")
        person.convert("L").save(folder / "grey.png")
        person.convert("RGBA").save(folder / "rgba.png")
        person.convert("P").save(folder / "palette.png")
        Image.fromarray(np.asarray(person.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
        person.resize((6000, 6000)).save(folder / "huge.jpg")
        person.resize((1, 1)).save(folder / "dot.png")
        pair = Image.new("RGB", (500, 250))
        pair.paste(person, (0, 0))
        pair.paste(other, (250, 0))
        pair.save(folder / "couple.png")
    Image.new("RGB", (300, 200), (90, 120, 40)).save(folder / "lawn.jpg")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    whole = (test_data / PERSON).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def gallery(photos: Path, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of one person in two versions."""
    path = tmp_path_factory.mktemp("people") / "gallery"
    people = path.parent / "photos"
    for name, photo in (("Norm", PERSON), ("Steve", OTHER)):
        (people / name).mkdir(parents=True)
        shutil.copy(test_data / photo, people / name)
        models = ("--model", RETAIL, "--models-dir", test_data / "models")
        enrolled = facestream("enroll", "--gallery", path, *models, people / name / photo.name)
        assert enrolled.code == 0, enrolled
    return path


# Photos.


@pytest.mark.data
def test_every_format_is_read_and_the_others_are_told(photos: Path) -> None:
    found = facestream("detect", "--json", photos, photos / "missing.jpg")
    assert found.code == 1
    faces = {Path(document["path"]).name: len(document["boxes"]) for document in found.documents}
    assert faces.pop("dot.png") == 0
    assert faces.pop("lawn.jpg") == 0
    assert faces.pop("couple.png") >= 2
    assert all(count >= 1 for count in faces.values())
    assert set(faces) == {"plain.png", "grey.png", "rgba.png", "palette.png", "deep.png", "huge.jpg"}
    told = found.stderr.splitlines()
    assert len(told) == 4
    assert all(line.startswith(ERROR) for line in told)
    for name, line in zip(["cut", "empty", "text", "missing"], told, strict=True):
        assert name in line


@pytest.mark.data
def test_the_person_is_found_in_every_format(photos: Path, gallery: Path, test_data: Path) -> None:
    names = ["plain.png", "grey.png", "rgba.png", "palette.png", "deep.png", "lawn.jpg", "dot.png"]
    found = facestream(
        "identify", "--gallery", gallery, "--models-dir", test_data / "models", "--json", *(photos / n for n in names)
    )
    assert (found.code, found.stderr) == (0, "")
    known = {Path(face["path"]).name for face in found.documents if face["identity_name"] == PERSON.stem}
    assert known == set(names[:5])


@pytest.mark.data
def test_enrolment_says_of_each_photo_why_not(photos: Path, test_data: Path, tmp_path: Path) -> None:
    enrolled = facestream(
        "enroll", "--gallery", tmp_path / "people", "--model", RETAIL, "--models-dir", test_data / "models",
        "--json", photos,
    )  # fmt: skip
    assert (enrolled.code, enrolled.stderr) == (0, "")
    reasons = {Path(photo["path"]).stem: photo["reason"] for photo in enrolled.documents if not photo["accepted"]}
    assert reasons == {
        "couple": "several_faces",
        "lawn": "no_face",
        "dot": "no_face",
        "text": "unreadable",
        "empty": "unreadable",
        "cut": "unreadable",
    }
    assert sum(photo["accepted"] for photo in enrolled.documents) == 6


@pytest.mark.data
def test_nothing_enrolled_is_an_error(photos: Path, test_data: Path, tmp_path: Path) -> None:
    models = ("--model", RETAIL, "--models-dir", test_data / "models")
    refused = facestream("enroll", "--gallery", tmp_path / "people", *models, photos / "lawn.jpg")
    assert refused.code == 1
    assert f"{photos / 'lawn.jpg'}: not taken: no_face" in refused.stdout
    missing = facestream("enroll", "--gallery", tmp_path / "others", *models, tmp_path / "nowhere")
    assert "nowhere" in missing.only_error(1)
    assert not (tmp_path / "others").exists()


# Models and galleries.


@pytest.mark.data
def test_models_and_galleries_that_do_not_fit(photos: Path, gallery: Path, test_data: Path, tmp_path: Path) -> None:
    photo = photos / "plain.png"
    unknown = facestream("verify", photo, photo, "--model", "nonsense")
    assert "'nonsense'" in unknown.only_error(1)
    other = facestream("identify", "--gallery", gallery, "--model", "dlib-resnet", photo)
    line = other.only_error(1)
    assert RETAIL in line
    assert "dlib-resnet" in line
    no_weights = facestream("verify", photo, photo, "--model", RETAIL, "--models-dir", tmp_path)
    assert "--models-dir" in no_weights.only_error(1)
    no_gallery = facestream("identify", "--gallery", tmp_path / "none", photo)
    assert "facestream enroll" in no_gallery.only_error(1)


@pytest.mark.data
def test_weights_with_a_flipped_bit_are_refused(photos: Path, test_data: Path, tmp_path: Path) -> None:
    (source,) = (test_data / "models").rglob(f"{RETAIL}.bin")
    shutil.copytree(source.parent, tmp_path / "models")
    flip(tmp_path / "models" / source.name)
    photo = photos / "plain.png"
    line = facestream("verify", photo, photo, "--model", RETAIL, "--models-dir", tmp_path / "models").only_error(1)
    assert source.name in line
    assert "sha256" in line.lower()


@pytest.mark.data
def test_a_damaged_gallery_falls_back_to_the_version_before(gallery: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "gallery"
    shutil.copytree(gallery, damaged)
    newest, *older = sorted((damaged / "snapshots").iterdir(), reverse=True)
    flip(newest / "embeddings.npy")
    listed = facestream("gallery", "list", "--gallery", damaged, "--json")
    assert listed.code == 0
    assert [person["identity_name"] for person in listed.documents] == [PERSON.stem]
    assert newest.name in listed.stderr
    assert len(listed.stderr.splitlines()) == 1
    for snapshot in older:
        flip(snapshot / "people.json")
    lost = facestream("gallery", "list", "--gallery", damaged)
    assert lost.code == 1
    assert lost.stderr.splitlines()[-1].startswith(ERROR)
    assert "intact" in lost.stderr.splitlines()[-1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Sources.


@pytest.fixture(scope="module")
def clips(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    whole = (test_data / "video" / "speaker_katie_hill.mp4").read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "truncated.mp4").write_bytes((test_data / "video" / "crowd_1080p.mp4").read_bytes()[:1_000_000])
    (folder / "text.mp4").write_text("this is no video\n" * 1000)
    corrupt = bytearray(whole)
    chance = np.random.default_rng(0)
    begin = whole.find(b"mdat") + 10_000
    for place in chance.integers(begin, begin + (len(whole) - begin) // 2, 300):
        corrupt[place] ^= int(chance.integers(1, 256))
    (folder / "corrupt.mp4").write_bytes(corrupt)
    return folder


@pytest.mark.data
@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "truncated.mp4", "text.mp4"])
def test_a_file_that_cannot_be_read(clips: Path, name: str) -> None:
    assert name in facestream("run", "--source", clips / name, "--metrics-port", 0).only_error(1)


@pytest.mark.data
@pytest.mark.redis
def test_a_corrupt_video_is_read_as_far_as_it_goes(clips: Path, redis_url: str, test_data: Path) -> None:
    run = facestream(
        *worker_arguments(clips / "corrupt.mp4", redis_url, test_data, "--model", RETAIL, "--json"), timeout_s=60
    )
    assert run.code == 0, run
    summary = run.documents[-1]["summary"]
    assert summary["frames"] > 50
    assert 0 < summary["dropped"]["undecodable"] <= 300
    assert run.complaints == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"ftp://u:{SECRET}@h/clip.mp4", "only rtsp"),
        ("concat:a.mp4|b.mp4", "only rtsp"),
        (f"rtsp://u:{SECRET}@", "no valid host"),
        ("", "empty"),
    ],
)
def test_a_source_that_is_never_read(source: str, says: str) -> None:
    ended = facestream("run", "--source", source, "--debug")
    assert ended.code == 2
    assert says in ended.stderr.splitlines()[-1]
    assert SECRET not in ended.stderr


# Redis.


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--requirepass", SECRET)
    server.start()
    yield server
    server.stop()


@pytest.mark.data
def test_a_redis_that_is_not_there(test_data: Path, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://u:{SECRET}@127.0.0.1:{unused.getsockname()[1]}/0"
        clip = write_clip(tmp_path / "clip.mp4", frames=5)
        run = facestream(*worker_arguments(clip, url, test_data, "--debug", "--log-level", "debug"))
        tail = facestream("tail", "--redis", url, "--no-follow")
    assert (run.code, run.stdout) == (1, "")
    for said in (run.stderr, tail.stderr):
        assert "cannot be reached" in said.splitlines()[-1]
        assert SECRET not in said
    assert tail.only_error(1)


@pytest.mark.data
@pytest.mark.redis
def test_a_wrong_password_is_refused_and_a_right_one_unseen(
    locked_redis: RedisServer, test_data: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=5)
    debug = ("--model", RETAIL, "--debug", "--log-level", "debug")
    wrong = f"{SECRET}-wrong"
    refused = facestream(*worker_arguments(clip, locked_redis.url.replace("://", f"://:{wrong}@"), test_data, *debug))
    assert (refused.code, refused.stdout) == (1, "")
    assert "refuses the login" in refused.stderr.splitlines()[-1]
    assert SECRET not in refused.stderr
    url = locked_redis.url.replace("://", f"://:{SECRET}@")
    run = facestream(*worker_arguments(clip, url, test_data, *debug))
    assert run.code == 0, run
    assert SECRET not in run.stdout + run.stderr


@pytest.mark.data
@pytest.mark.rtsp
@pytest.mark.parametrize("login", ["admin:s3cret-word", "admin:wr0ng-s3cret"])
def test_no_password_of_a_camera_is_shown(
    guarded_rtsp_server: RtspServer, redis_url: str, test_data: Path, login: str
) -> None:
    url = guarded_rtsp_server.url("/clip", login)
    debug = ("--model", RETAIL, "--camera-id", "door", "--debug", "--log-level", "debug")
    with running(*worker_arguments(url, redis_url, test_data, *debug)) as worker:
        worker.said("source streaming" if login.endswith("word") else "source waiting")
        _, metrics = worker.get("/metrics")
        _, ready = worker.get("/readyz")
        ended = worker.end(signal.SIGTERM)
    assert ended.code == 0, ended
    assert "s3cret" not in ended.stdout + ended.stderr + metrics + ready


@pytest.mark.data
@pytest.mark.redis
def test_a_port_that_is_taken(redis_url: str, test_data: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=5)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        ended = facestream(*worker_arguments(clip, redis_url, test_data), "--metrics-port", port)
    assert f"metrics.port {port}" in ended.only_error(1)


# Arguments and configuration.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "--source"),
        (["run", "--camera-id", "door"], "--source"),
        (["run", "--source", "x.mp4", "--camera-id", "front door"], "cameras.0.id"),
        (["run", "--source", "x.mp4", "--threshold", "2"], "recognition.threshold"),
        (["run", "--source", "x.mp4", "--redis", f"http://u:{SECRET}@h"], "redis.url"),
        (["run", "--source", "x.mp4", "--engine", "abacus"], "engine"),
        (["run", "--sauce", "x.mp4"], "--sauce"),
        (["detect"], "images"),
        (["detect", "x.jpg", "--min-face-px", "3"], "--min-face-px"),
        (["enroll", "photos"], "--gallery"),
        (["config", "check", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str, tmp_path: Path) -> None:
    if "x.mp4" in arguments:
        arguments = [str(write_clip(tmp_path / "x.mp4", frames=2)) if a == "x.mp4" else a for a in arguments]
    line = facestream(*arguments).only_error(2)
    assert says in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis: {strem: x}", "redis.strem: no such field"),
        ("detection: {min_face_px: many}", "detection.min_face_px"),
        ("cameras: [{id: door}]", "cameras.0.source"),
        (f"cameras: [{{id: a, source: 'rtsp://u:{SECRET}@h/'}}, {{id: a, source: x}}]", "id used twice: a"),
        ("cameras: [", "not valid YAML"),
        ("- a\n- b", "mapping"),
        ("log: {level: loud}", "log.level"),
    ],
)
def test_wrong_configuration(text: str, says: str, tmp_path: Path) -> None:
    config = tmp_path / "worker.yaml"
    config.write_text(text)
    line = facestream("run", "--config", config).only_error(2)
    assert says in line
    assert str(config) in line
    assert SECRET not in line


def test_wrong_environment_names_the_field() -> None:
    line = facestream("config", "show", FACESTREAM_REDIS__MAX_EVENTS="lots").only_error(2)
    assert "redis.max_events" in line


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    missing = ("config", "check", "--config", tmp_path / "missing.yaml")
    assert "Traceback" not in facestream(*missing).stderr
    told = facestream(*missing, "--debug")
    assert told.code == 2
    assert told.stderr.startswith("Traceback")
    assert told.stderr.splitlines()[-1].startswith(ERROR)


def test_json_errors_leave_standard_output_alone(tmp_path: Path) -> None:
    ended = facestream("gallery", "list", "--gallery", tmp_path / "none", "--json")
    assert ended.only_error(1)
    with pytest.raises(json.JSONDecodeError):
        json.loads(ended.stdout)
