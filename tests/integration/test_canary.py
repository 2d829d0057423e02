"""One password goes through every door and every way to fail, and is seen nowhere."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.support.command_line import RETAIL, running
from tests.support.hostile_servers import endless_body, serving
from tests.support.repository import REPOSITORY
from tests.support.waiting import eventually
from worker.cli import run_command_line
from worker.encryption import parse_keys, use
from worker.gallery.folder import FolderGallery

CANARY = "c4n4ry-hunter22-Zx"
NOBODY = f"u:{CANARY}@127.0.0.1:9"
"""A server that is not there, with the password before it."""

SECRETS: dict[str, Any] = {
    "cameras": [{"id": "door", "source": f"rtsp://{NOBODY}/1?password={CANARY}"}],
    "redis": {"url": f"redis://{NOBODY}/0", "password": CANARY, "sentinel_password": CANARY},
    "gallery": f"redis://{NOBODY}/0?gallery=people",
    "gallery_key": CANARY,
    "encryption": {"key": CANARY},
    "evidence": {"store": f"s3://u:{CANARY}@faces/x", "s3_endpoint": f"https://{NOBODY}"},
    "tracing": {"endpoint": f"http://{NOBODY}/v1/traces"},
    "preview": {"token": CANARY},
    "metrics": {"token": CANARY},
}
WRONG: list[dict[str, Any]] = [
    {"cameras": f"rtsp://{NOBODY}/1"},
    {"cameras": [f"rtsp://{NOBODY}/1"]},
    {"cameras": [{"id": f"rtsp://{NOBODY}", "source": "0"}]},
    {"cameras": [{"id": "a", "source": [f"rtsp://{NOBODY}"]}]},
    {"cameras": [{"id": "a", "source": f"rtsp//{NOBODY}"}]},
    {"cameras": [{"id": "a", "source": f"gopher://{NOBODY}"}]},
    {"cameras": [{"id": "a", "sauce": f"rtsp://{NOBODY}"}]},
    {"redis": f"redis://{NOBODY}"},
    {"redis": {"url": f"http://{NOBODY}"}},
    {"redis": {"url": f"redis://u:{CANARY} {CANARY}@h:nan/0"}},
    {"redis": {"password": {"is": CANARY}}},
    {"redis": {"port": f"redis://{NOBODY}"}},
    {"evidence": {"store": {"s3": CANARY}}},
    {"evidence": {"s3_endpoint": [f"https://{NOBODY}"]}},
    {"tracing": {"endpoint": {"a": f"https://{NOBODY}"}}},
    {"preview": {"token": [CANARY]}},
    {"metrics": {"token": {"a": CANARY}}},
    {"gallery_key": [CANARY]},
    {"encryption": {"key": [CANARY]}},
    {"encryption": CANARY},
    {"encryption": {"key_file": [CANARY]}},
    {"gallery": [f"redis://{NOBODY}/0?gallery=x"]},
]
COMMANDS = [
    ("run", "--source", f"rtsp://{NOBODY}/1", "--threshold", "7"),
    ("run", "--source", f"rtsp:/{NOBODY}/1"),
    ("run", "--source", f"gopher://{NOBODY}/1"),
    ("run", "--source", f"rtsp://{NOBODY}/1", "--redis", f"http://{NOBODY}"),
    ("run", "--sauce", f"rtsp://{NOBODY}/1"),
    ("run", "--source", f"rtsp://u:{CANARY}@[/1", "--redis", f"redis://{NOBODY}/0"),
    ("camera", "add", "door", f"gopher://{NOBODY}"),
    ("camera", "add", "a door", f"rtsp://{NOBODY}"),
    ("camera", "add", f"rtsp://{NOBODY}", "rtsp://10.0.0.1/"),
    ("camera", "list", "--redis", f"redis://{NOBODY}/0"),
    ("tail", "--redis", f"redis://{NOBODY}/0", "--no-follow", "--from", "0"),
    ("tail", "--redis", f"redis+sentinel://{NOBODY}/main/0", "--no-follow"),
    ("events", "dead", "--redis", f"redis+cluster://{NOBODY}"),
    ("status", "--once", "--redis", f"redis://{NOBODY}/0"),
    ("status", "--once", "--worker", f"http://{NOBODY}"),
    ("status", "--once", "--worker", f"http://u:{CANARY}@[::1"),
    ("forward", "--group", "g", "--secret-file", "{secret}", "--url", f"http://{NOBODY}/hooks/{CANARY}", "--redis",
     f"redis://{NOBODY}/0"),
    ("forward", "--group", "g", "--secret-file", "{secret}", "--url", f"http://u:{CANARY}@far.example/{CANARY}"),
    ("gallery", "list", "--gallery", f"redis://{NOBODY}/0?gallery=x"),
    ("gallery", "list", "--gallery", f"redis://{NOBODY}/0"),
    ("search", "{secret}", "--gallery", f"redis://{NOBODY}/0?gallery=x"),
    ("models", "pull", "{manifest}"),
    ("enroll", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x", "{secret}"),
    ("identify", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x", "{secret}"),
    ("database", "check", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x?sslpassword={CANARY}"),
    ("database", "backup", "--output", "{secret}x", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x"),
    ("explain", "s", "--gallery", f"postgresql://u:{CANARY}@[::1/x"),
    ("unknown", "list", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x"),
    ("forget", "somebody", "--yes", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x"),
    ("encryption", "check", "--gallery", f"postgresql://u:{CANARY}@127.0.0.1:9/x"),
    ("status", "--once", "--worker", f"https://{NOBODY}", "--ca-file", "{secret}"),
    ("config", "set", f"rtsp://{NOBODY}"),
]  # fmt: skip
Say = Callable[..., str]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """What a command says on both outputs, where the password must not be."""

    def said(*arguments: object) -> str:
        run_command_line([str(argument) for argument in arguments])
        text = "".join(capfd.readouterr())
        assert CANARY not in text, text
        assert "c4n4ry" not in text, text
        return text

    return said


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["", "debug"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_no_command_says_it_when_it_fails(
    say: Say, tmp_path: Path, command: tuple[str, ...], debug: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESTREAM_REDIS__TIMEOUT_S", "0.5")
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "secret").write_text(CANARY)
    shipped = yaml.safe_load((REPOSITORY / "models" / f"{RETAIL}.yaml").read_text())
    for file in shipped["files"]:
        file["url"] = f"http://u:{CANARY}@[::1/{file['name']}"
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(shipped | {"id": "tiny"}))
    places = {"secret": tmp_path / "secret", "manifest": tmp_path / "manifest.yaml"}
    assert say(
        *(part.format(**places) if part in ("{secret}", "{manifest}", "{secret}x") else part for part in command),
        *debug,
    )


@pytest.mark.parametrize(
    "command", [("gallery", "list", "--gallery", "{place}"), ("encryption", "apply"), ("encryption", "check"),
                ("run", "--source", "rtsp://127.0.0.1:9/1", "--debug", "--metrics-port", "0"),
                ("identify", "--gallery", "{place}", "x.jpg")]
)  # fmt: skip
@pytest.mark.parametrize(
    "key", [CANARY, f"{CANARY} {'ab' * 32}", f"{'ab' * 32} {CANARY}"], ids=["alone", "first", "second"]
)
def test_no_command_says_a_key_that_is_none(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], key: str
) -> None:
    use(parse_keys("ab" * 32))
    FolderGallery.create(tmp_path / "people", "tiny", "digest", 8)
    (tmp_path / "key").write_text(key)
    for name, value in (("KEY", key), ("KEY_FILE", str(tmp_path / "key"))):
        with monkeypatch.context() as patch:
            patch.setenv(f"FACESTREAM_ENCRYPTION__{name}", value)
            said = say(*(part.format(place=tmp_path / "people") for part in command))
        assert "32 bytes in base64 or hex" in said
        assert "ab" * 32 not in said


def test_the_configuration_is_shown_without_it(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump(SECRETS))
    shown = say("config", "show", "--config", path)
    assert "rtsp://***@127.0.0.1:9/1" in shown
    assert "https://***@127.0.0.1:9" in shown
    say("config", "check", "--config", path)
    say("run", "--config", path, "--debug")


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("command", [("config", "check"), ("config", "show"), ("run", "--debug")], ids=str)
def test_a_mistake_in_the_configuration_is_told_without_it(
    say: Say, tmp_path: Path, wrong: dict[str, Any], command: tuple[str, ...]
) -> None:
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump(wrong))
    assert say(*command, "--config", path)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("by", ["standard input", "file", "environment", "argument"])
def test_a_worker_whose_camera_and_redis_need_it_shows_it_nowhere(
    redis_url: str, test_data: Path, tmp_path: Path, by: str
) -> None:
    def read(path: str, port: int) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "u", "on", f">{CANARY}", "~*", "&*", "+@all")
    guarded = redis_url.replace("redis://", f"redis://u:{CANARY}@")
    with serving(endless_body(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x")) as camera:
        source = camera.url.replace("http://", f"http://u:{CANARY}@") + f"/stream?password={CANARY}"
        (tmp_path / "source").write_text(source + "\n")
        given: dict[str, tuple[list[object], dict[str, str]]] = {
            "standard input": (["--source", "-"], {}),
            "file": (["--source-file", tmp_path / "source"], {}),
            "environment": ([], {"FACESTREAM_SOURCE": source}),
            "argument": (["--source", source], {}),
        }
        arguments, environment = given[by]
        config = tmp_path / "worker.yaml"
        config.write_text(json.dumps({"log": {"level": "debug"}, "redis": {"url": guarded}}))
        more = ["--config", config, "--models-dir", test_data / "models", "--model", RETAIL, "--metrics-port", 0]
        standard_input = source + "\n" if by == "standard input" else None
        with running("run", *arguments, *more, standard_input=standard_input, **environment) as command:
            eventually(lambda: any("health are served" in line for line in command.stderr))
            (line,) = [line for line in command.stderr if "health are served" in line]
            port = int(json.loads(line)["port"])
            command.until(lambda: len(camera.requests) > 1, 90)
            listed = Path(f"/proc/{command.process.pid}/cmdline").read_bytes().decode()
            everything = "".join(read(path, port) for path in ("/metrics", "/status", "/readyz", "/healthz", "/x"))
            command.process.send_signal(signal.SIGTERM)
            ended = command.ended(60)
    everything += listed + ended.stdout + ended.stderr
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            everything += repr(client.dump(key))
    assert "camera" in everything
    assert CANARY not in everything
    assert ended.code == 0


def test_the_arguments_are_blanked_before_anything_else_is_imported() -> None:
    script = (
        "import sys, worker.arguments as a, worker.__main__ as m\n"
        "def told(): print([n for n in sys.modules if n.startswith('worker.cli')]); sys.exit(0)\n"
        "m.blank_secrets = told\n"
        "m.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert ended.stdout == "[]\n"
