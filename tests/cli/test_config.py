"""``facestream config`` as its users meet it."""

from pathlib import Path

import pytest
import yaml

from tests.support.command_line import ERROR
from worker.cli import run_command_line
from worker.gallery.folder import FolderGallery

Output = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "worker.yaml"


def check(file: Path, text: str, capsys: Output, code: int = 2) -> list[str]:
    """The lines that ``config check`` says of a file with ``text``."""
    file.write_text(text, encoding="utf-8")
    assert run_command_line(["config", "check", "--config", str(file)]) == code
    stdout, stderr = capsys.readouterr()
    assert bool(stdout) == (code == 0)
    assert all(line.startswith(ERROR) for line in stderr.splitlines())
    return [line.removeprefix(f"{ERROR}configuration from ") for line in (stdout + stderr).splitlines()]


def test_every_mistake_is_a_line_of_its_own(file: Path, capsys: Output) -> None:
    told = check(file, "redis: {strem: x}\ncameras:\n  - {id: a, source: 'htp://u:s3cret@h/x'}\nthreads: -1\n", capsys)
    assert [line.split(": ")[0] for line in told] == [f"{file}, line {number}" for number in (1, 4, 3)]
    assert "did you mean 'stream'?" in told[0]
    assert "did you mean http://?" in told[2]
    assert "s3cret" not in "".join(told)


@pytest.mark.parametrize(
    ("source", "says", "code"),
    [
        ("htp://h/x", "did you mean http://?", 2),
        ("rstp://h/x", "did you mean rtsp://?", 2),
        ("ftp://h/x", "only rtsp, rtsps, http, https URLs", 2),
        ("rtsp:///x", "no valid host", 2),
        ("nowhere.mp4", "there is no file or folder nowhere.mp4", 1),
        ("/nowhere/frames/", "there is no file or folder", 1),
        ("799", "there is no device /dev/video799", 1),
    ],
)
def test_a_source_that_cannot_be_read_is_told(file: Path, source: str, says: str, code: int, capsys: Output) -> None:
    [told] = check(file, f"cameras: [{{id: a, source: '{source}'}}]\n", capsys, code)
    assert told.startswith(f"{file}, line 1: cameras.0.source: ")
    assert says in told


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        ("gallery: /nowhere/people", "gallery: no gallery at /nowhere/people", 1),
        ("shadow_gallery: /nowhere/people", "shadow_gallery: no gallery at /nowhere/people", 1),
        ("classifier: /nowhere/trained", "classifier: ", 1),
        ("models_dir: /nowhere/models", "models_dir: there is no folder /nowhere/models", 1),
        ("model: vggface3", "model: ", 1),
        ("gallery_key_file: /nowhere/key", "/nowhere/key cannot be read", 2),
        ("gallery_key: short", "gallery_key", 2),
        ("preview: {token_file: /nowhere/token}", "/nowhere/token cannot be read", 2),
        ("preview: {token: short}", "preview.token has 5 characters, too few", 2),
        ("redis: {password_file: /nowhere/password}", "/nowhere/password cannot be read", 2),
        ("redis: {url: 'rediss://h', ca_file: /nowhere/ca}", "/nowhere/ca cannot be read", 2),
        ("redis: {url: 'redis://h/x'}", "does not end in the number of a database", 2),
    ],
)
def test_what_is_named_and_not_there_is_told(file: Path, text: str, says: str, code: int, capsys: Output) -> None:
    [told] = check(file, text + "\n", capsys, code)
    assert says in told
    assert told.startswith(f"{file}, line 1: ")


def test_what_is_there_is_valid(file: Path, tmp_path: Path, capsys: Output) -> None:
    FolderGallery.create(tmp_path / "people", "vggface2-resnet50", "d", 4)
    (tmp_path / "clip.mp4").touch()
    text = f"gallery: {tmp_path}/people\ncameras: [{{id: a, source: {tmp_path}/clip.mp4}}, {{id: b, source: 'rtsp://h/x'}}]\n"
    assert check(file, text, capsys, 0) == ["valid: 2 cameras"]


def test_variables_that_nothing_reads_are_warnings(file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_GALERY", "people")
    file.touch()
    assert run_command_line(["config", "check", "--config", str(file)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == "valid, with 1 warning: 0 cameras\n"
    assert "FACESTREAM_GALERY is not a setting, and is ignored; did you mean FACESTREAM_GALLERY?" in stderr


def test_what_is_not_held_to_the_hosts_that_are_allowed_is_a_warning(file: Path, capsys: Output) -> None:
    file.write_text("cameras: [{id: door, source: 'rtsp://u:s3cret@10.0.0.5/main'}]\ndecoding: {processes: 'off'}\n")
    assert run_command_line(["config", "check", "--config", str(file)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == "valid, with 1 warning: 1 camera\n"
    assert stderr.count("\n") == 1
    assert "facestream: warning: an RTSP server can lead the worker to any host" in stderr
    assert "cameras: door" in stderr
    assert "s3cret" not in stderr


def show(file: Path, text: str, capsys: Output) -> str:
    file.write_text(text, encoding="utf-8")
    assert run_command_line(["config", "show", "--config", str(file)]) == 0
    return capsys.readouterr().out


def test_only_credentials_are_masked(file: Path, capsys: Output) -> None:
    shown = show(
        file,
        "cameras: [{id: door, source: 'rtsp://u:s3cret@10.0.0.5:554/main'}, {id: file, source: clip.mp4}]\n"
        "redis: {url: 'redis://u:s3cret@h:6379/0', sentinel_password: s3cret}\ngallery: postgresql://u:s3cret@h/db?gallery=x\n"
        "preview: {token: s3cret-and-long-enough}\nrecognition: {threshold: 0.5}\n",
        capsys,
    )
    assert "s3cret" not in shown
    values = yaml.safe_load(shown)
    assert [camera["source"] for camera in values["cameras"]] == ["rtsp://***@10.0.0.5:554/main", "clip.mp4"]
    assert values["redis"]["url"] == "redis://***@h:6379/0"
    assert values["redis"]["sentinel_password"] == values["preview"]["token"] == "***"
    assert values["redis"]["password"] is None
    assert values["gallery"] == "postgresql://***@h/db?gallery=x"


def test_every_value_tells_its_origin(file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_THREADS", "2")
    lines = show(file, "log:\n  level: debug\n", capsys).splitlines()
    assert any(line.startswith("  level: debug") and line.endswith(f"# {file}, line 2") for line in lines)
    assert any(line.startswith("threads: 2") and line.endswith("# FACESTREAM_THREADS") for line in lines)
    assert "engine: auto" in lines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "threshold in force: 0.6100, from the gallery's calibration"),
        ("recognition: {threshold: 0.7}", "threshold in force: 0.7000, from recognition.threshold"),
        ("cameras: [{id: a, source: x, threshold: 0.4}]", "threshold of camera a: 0.4000, its own"),
        ("", "threshold of camera gate: 0.5500, calibrated"),
    ],
)
def test_the_threshold_in_force_is_told_with_its_origin(
    file: Path, tmp_path: Path, text: str, says: str, capsys: Output
) -> None:
    gallery = FolderGallery.create(tmp_path / "people", "vggface2-resnet50", "d", 4)
    gallery.set_thresholds(0.61, {"gate": 0.55}, {})
    assert f"# {says}" in show(file, f"gallery: {tmp_path}/people\n{text}\n", capsys).splitlines()


def test_without_a_calibration_the_model_s_threshold_is_in_force(file: Path, capsys: Output) -> None:
    assert "from the model vggface2-resnet50" in show(file, "", capsys)


def test_a_gallery_that_is_not_there_leaves_the_threshold_unknown(file: Path, capsys: Output) -> None:
    assert "# threshold in force: not known, because no gallery at /nowhere" in show(
        file, "gallery: /nowhere\n", capsys
    )


def test_a_wrong_limit_of_photos_is_told_although_no_worker_reads_it(
    file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESTREAM_PHOTO_MAX_MB", "many")
    [told] = check(file, "cameras: []\n", capsys)
    assert told.startswith("environment variable FACESTREAM_PHOTO_MAX_MB: ")
