"""``facestream encryption``: one setting and one command, both ways; and what is said where a key or a worker is in the
way."""

import json
import stat
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import facestream
from tests.support.kept_people import NAME, PEOPLE, keep_everything, plain_traces
from worker.cli import run_command_line
from worker.encryption import new_key
from worker.history.store import History
from worker.video.photos import read_photo

NO_TRACE = {"name": 0, "vector": 0, "template": 0, "jpeg": 0}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worked-with folder, its cache the one of the user, and a key file beside it that nothing names yet."""
    kept = tmp_path / "kept"
    keep_everything(kept)
    (tmp_path / "key").write_text(new_key() + "\n")
    (tmp_path / "key").chmod(0o600)
    settings = {"gallery": str(kept / "gallery"), "evidence": {"store": str(kept / "evidence")}}
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(settings))
    settings["encryption"] = {"key_file": str(tmp_path / "key")}
    (tmp_path / "sealed.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(kept / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
    return tmp_path


def command(place: Path, name: str, *more: str, config: str = "sealed.yaml") -> int:
    return run_command_line(["encryption", name, "--config", str(place / config), *more])


def known(place: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The people whom ``gallery list`` names, with the key from the environment."""
    capsys.readouterr()
    assert run_command_line(["gallery", "list", "--gallery", str(place / "kept" / "gallery"), "--json"]) == 0
    return [json.loads(line)["identity_name"] for line in capsys.readouterr().out.splitlines()]


def test_everything_is_encrypted_by_one_command_and_made_plain_by_another(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(place, "check") == 1
    assert "not encrypted" in capsys.readouterr().out
    assert command(place, "apply") == 0
    said = capsys.readouterr().out
    assert "pictures" in said
    assert "not encrypted" not in said
    assert plain_traces(place / "kept") == NO_TRACE
    assert command(place, "check", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {store["kind"] for store in found} == {"gallery", "crops", "database", "pictures"}
    assert all(set(store["files"]) == {"current"} for store in found)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (place / "kept").rglob("*") if path.is_file()}
    assert modes == {0o600}
    monkeypatch.setenv("FACESTREAM_ENCRYPTION__KEY_FILE", str(place / "key"))
    names = known(place, capsys)
    assert len(names) == PEOPLE
    assert NAME in names
    assert command(place, "undo") == 0
    monkeypatch.delenv("FACESTREAM_ENCRYPTION__KEY_FILE")
    assert known(place, capsys) == names
    traces = plain_traces(place / "kept")
    assert min(traces["name"], traces["template"], traces["jpeg"]) > 0


def test_a_new_key_takes_the_place_of_the_old_one_in_the_file_and_everywhere(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(place, "apply") == 0
    old = (place / "key").read_text()
    assert command(place, "rotate") == 0
    new = (place / "key").read_text()
    assert len(new.split()) == 1
    assert old.strip() not in new
    assert stat.S_IMODE((place / "key").stat().st_mode) == 0o600
    assert command(place, "check") == 0
    monkeypatch.setenv("FACESTREAM_ENCRYPTION__KEY_FILE", str(place / "key"))
    assert len(known(place, capsys)) == PEOPLE
    (place / "key").write_text(old)
    assert run_command_line(["gallery", "list", "--gallery", str(place / "kept" / "gallery")]) == 1
    error = capsys.readouterr().err
    assert "is encrypted with another key" in error
    assert len(error.splitlines()) == 1


def test_what_is_in_use_stays_as_it_is_and_both_keys_stay_in_the_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(place, "apply") == 0
    with History.open(place / "kept" / "gallery.state") as history:
        capsys.readouterr()
        assert command(place, "rotate") == 1
        error = capsys.readouterr().err
        assert "history.sqlite3 is in use: stop the workers" in error
        assert len((place / "key").read_text().split()) == 2
        assert len(history.sightings()) == 1
    assert command(place, "check") == 1
    assert "encrypted with an older key" in capsys.readouterr().out
    assert command(place, "apply") == 0
    assert command(place, "check") == 0


def test_a_picture_is_opened_for_people_to_look_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (picture,) = (place / "kept" / "evidence").rglob("*.face.jpg")
    plain = picture.read_bytes()
    assert command(place, "apply") == 0
    assert command(place, "open", str(picture), "--output", str(place / "out.jpg")) == 0
    assert (place / "out.jpg").read_bytes() == plain
    assert read_photo(place / "out.jpg").shape[2] == 3
    assert command(place, "open", str(picture), "--output", str(picture)) == 1
    capsys.readouterr()
    assert command(place, "open", str(picture), "--output", str(place / "x"), config="worker.yaml") == 1
    assert "there is no key" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["apply", "undo", "rotate"])
def test_without_a_key_a_command_says_how_to_make_one(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(place, name, config="worker.yaml") == 2
    assert "openssl rand -base64 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [("short", "must be 32 bytes"), ("", "must be 32 bytes"), (None, "cannot be read: No such file")],
)
def test_a_key_that_is_none_is_a_mistake_in_the_configuration(
    place: Path, redis_url: str, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        (place / "key").unlink()
    else:
        (place / "key").write_text(content)
    for arguments in (
        ["encryption", "check"],
        ["run", "--source", "rtsp://127.0.0.1:9/x", "--redis", redis_url],
        ["config", "check"],
    ):
        assert run_command_line([*arguments, "--config", str(place / "sealed.yaml")]) == 2
        assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize("given", ["none", "another"])
def test_a_worker_without_the_right_key_does_not_start_and_damages_nothing(
    place: Path, redis_url: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(place, "apply") == 0
    before = {path: path.read_bytes() for path in (place / "kept").rglob("*") if path.is_file()}
    if given == "another":
        monkeypatch.setenv("FACESTREAM_ENCRYPTION__KEY", new_key())
    arguments = ["--gallery", place / "kept" / "gallery", "--redis", redis_url]
    ended = facestream("run", "--source", "rtsp://127.0.0.1:9/x", *arguments)
    assert ended.code == 1, ended
    assert [line for line in ended.complaints if "is encrypted" in line] == ended.complaints[-1:], ended
    assert {path: path.read_bytes() for path in before} == before
