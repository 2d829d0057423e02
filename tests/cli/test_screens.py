"""What is written by others is shown, and a terminal obeys none of it."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from rich.cells import cell_len

from tests.support.past import sighting, unknown
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from tests.support.terminal import shown
from worker.cli import run_command_line
from worker.cli.screen import complain, json_line, say, table, wrapped
from worker.config import FleetConfig
from worker.fleet.registry import CameraRegistry, Definition
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.history.store import History
from worker.wire import rfc3339

STREAM = "facestream:events"
HOSTILE = [
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # fills the clipboard
    "\x1b]0;another title\x07",
    "\x1b[2J\x1b[H",  # clears the screen
    "\x9b2J\x9d0;x\x9c",  # the same in one character each
    "[bold red]x[/] [/] [link=http://x]",  # markup of the library that draws the tables
    "Bob\nworker-9  ready  a row of its own",
    "\r\x08\x7f\u202egnp.exe\u2066",
    "\ud800 \u200b",
]
Screen = Callable[..., str]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Screen:
    """What a command writes, on both outputs."""

    def written(*arguments: object, code: int = 0) -> str:
        assert run_command_line([str(argument) for argument in arguments]) == code, capsys.readouterr().err
        return "".join(capsys.readouterr())

    return written


def assert_harmless(written: str) -> None:
    bad = {character for character in written if character != "\n" and not character.isprintable()}
    assert not bad, (bad, written)
    assert not set(written) & set("\u202e\u2066\u200b"), written


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_tail_shows_events_of_any_text(redis_url: str, screen: Screen, text: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        hostile = {
            name: utf8(text) for name in ("identity_name", "camera_id", "sighting_id", "worker_id", "unknown_id")
        }
        client.xadd(STREAM, stream_fields(make_event(), **hostile))
        client.xadd(STREAM, {"schema": utf8(text)})
        client.xadd(STREAM, stream_fields(make_event(1), similarity=utf8(text)))
        client.xadd(STREAM, stream_fields(make_event(2), identity_name="Zoë"))
    table = screen("tail", "--redis", redis_url, "--from", "0", "--no-follow")
    assert_harmless(table)
    assert len([line for line in table.splitlines() if "updated" in line]) == 2
    assert "Zoë" in table
    documents = screen("tail", "--redis", redis_url, "--from", "0", "--no-follow", "--json")
    assert_harmless(documents)
    shown = [json.loads(line) for line in documents.splitlines() if line.startswith('{"schema"')]
    assert shown[0]["identity_name"].encode() == utf8(text).decode("utf-8", "replace").encode()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_dead_letters_of_any_text_are_listed(redis_url: str, screen: Screen, text: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(STREAM, stream_fields(make_event()))
        client.xgroup_create(STREAM, "desk", "0")
        letter: dict[Any, Any] = {
            name: utf8(text) for name in ("dead_reason", "dead_entry_id", "dead_deliveries", "camera_id", "event_id")
        }
        client.xadd("{facestream:events}:dead:desk", letter)
        client.xadd("{facestream:events}:dead:desk", {"nothing": "else"})
    listed = screen("events", "dead", "--redis", redis_url)
    assert_harmless(listed)
    assert listed.splitlines()[-1] == "2 dead letters"
    assert len(listed.splitlines()) == 3
    assert_harmless(screen("events", "dead", "--redis", redis_url, "--json"))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_the_status_of_workers_of_any_text_is_shown(redis_url: str, screen: Screen, text: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{facestream}:status", "a", json.dumps(status(worker_id=text, state=text, reason=text)))
        client.hset("{facestream}:status", utf8(text), "{")
        client.hset("{facestream}:status", "good", json.dumps(status()))
        CameraRegistry(client, FleetConfig()).seed([Definition("gate", 1, False, "{}")])
    table = screen("status", "--redis", redis_url, "--once")
    assert_harmless(table)
    assert "kiosk" in table
    assert_harmless(screen("status", "--redis", redis_url, "--json"))


@pytest.mark.parametrize(
    "changes",
    [
        {"uptime_s": 1e308}, {"uptime_s": float("nan")}, {"uptime_s": "x"}, {"at": "x"},
        {"at": "9999-12-31T23:59:59-14:00"}, {"at": "0001-01-01T00:00:00+14:00"}, {"at": 7}, {"cameras": {}},
        {"cameras": [None]}, {"reasons": []}, {"reasons": {"x": {}}}, {"gallery_people": 1e30}, {"load": float("inf")},
        {"worker_id": None}, {"ready": "[/]"}, {"warnings": "[/]"},
    ],
    ids=str,
)  # fmt: skip
def test_a_status_of_wrong_types_is_named_and_the_others_are_shown(
    redis_url: str, screen: Screen, changes: dict[str, Any]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{facestream}:status", "damaged:1", json.dumps(status(worker_id="damaged") | changes))
        client.hset("{facestream}:status", "good:1", json.dumps(status()))
    shown = screen("status", "--redis", redis_url, "--once")
    assert "kiosk" in shown
    assert "the status of worker damaged:1 cannot be read" in " ".join(shown.split())


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_cameras_of_any_text_are_listed(redis_url: str, screen: Screen, text: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        registry = CameraRegistry(client, FleetConfig())
        client.hset("{facestream}:cameras", utf8(text), json.dumps({"id": text, "source": text, text: text}))
        client.hset("{facestream}:epochs", utf8(text), b"7 " + utf8(text) + b":1")
        client.zadd("{facestream}:changes", {utf8(text): 1})
        client.hset("{facestream}:state", "change", 1)
        registry.seed([Definition("gate", 2, False, '{"id": "gate", "source": "rtsp://10.0.0.1/"}')])
    listed = screen("camera", "list", "--redis", redis_url)
    assert_harmless(listed)
    assert listed.splitlines()[-1] == "2 cameras, 1 unowned"
    assert len(listed.splitlines()) == 4
    assert_harmless(screen("camera", "list", "--redis", redis_url, "--json"))
    if text.isascii() or text.isprintable():
        assert_harmless(screen("camera", "remove", text, "--redis", redis_url))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_people_of_any_name_are_listed(tmp_path: Path, screen: Screen, text: str) -> None:
    gallery = FolderGallery.create(tmp_path / "people", "m", "digest", 8)
    name = f"A {text}".encode("utf-8", "replace").decode()
    gallery.add([NewSample(name, np.eye(8, dtype=np.float32)[0], f"photo {name}", "sha", identity_id=name)])
    for arguments in (("list",), ("show", name), ("list", "--json")):
        assert_harmless(screen("gallery", *arguments, "--gallery", tmp_path / "people"))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_every_way_to_write_takes_out_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str], text: str) -> None:
    say(text)
    complain(text)
    out, err = capsys.readouterr()
    assert_harmless(out + err)
    assert (out + err).count("\n") == 2
    line = json_line({"text": text})
    assert_harmless(line.replace("\\ud800", ""))
    assert json.loads(line) == {"text": text}


def status(worker_id: str = "kiosk", state: str = "streaming", reason: str = "") -> dict[str, Any]:
    """What a worker reported a moment ago."""
    return {
        "worker_id": worker_id, "at": rfc3339(datetime.now(UTC) - timedelta(seconds=1)), "version": "1", "uptime_s": 60,
        "ready": True, "reasons": {state: reason}, "outbox_events": 0, "gallery_people": 1, "gallery_version": 1,
        "warnings": {reason: state},
        "cameras": [{"camera_id": state, "state": state, "reason": reason}],
    }  # fmt: skip


def test_commands_have_one_way_to_write() -> None:
    commands = (REPOSITORY / "worker" / "cli").glob("*.py")
    direct = {path.name for path in commands if re.search(r"\btyper\.echo\(|(?<![\w.])print\(", path.read_text())}
    assert direct == {"screen.py"}


WIDE_NAMES = ["李小龍・山田太郎", "👩‍👩‍👧 Família", "Zoë Müller", "नमस्ते", "x" * 90, "Eileen Collins"]


@pytest.fixture
def walked(redis_url: str, tmp_path: Path) -> dict[str, list[str]]:
    """Commands by what they show, all of it with names of many scripts; among them errors about long paths."""
    gallery, state = tmp_path / "people", tmp_path / "past"
    vectors = np.eye(8, dtype=np.float32)
    FolderGallery.create(gallery, "m", "digest", 8).add(
        [
            NewSample(name, vectors[number], f"/photos/of the {name}/{number}.jpg", str(number), identity_id=name)
            for number, name in enumerate(WIDE_NAMES)
        ]
    )
    with History.open(state, create=True) as history:
        seen = [sighting(number, unknown_id="u-1", camera_id=name) for number, name in enumerate(WIDE_NAMES, 1)]
        history.write(seen, [unknown("u-1")], keep_s=1e6, remember_s=1e6)
    with redis.Redis.from_url(redis_url) as client:
        for number, name in enumerate(WIDE_NAMES):
            found = status(worker_id=name, state="waiting", reason=f"rtsp://10.0.0.{number}/: no answer from {name}")
            client.hset("{facestream}:status", name, json.dumps(found))
            client.xadd(STREAM, stream_fields(make_event(number), identity_name=name, camera_id=name))
        cameras = [
            Definition(name, number, False, json.dumps({"id": name, "source": f"rtsp://10.0.0.{number}/stream"}))
            for number, name in enumerate(WIDE_NAMES, 1)
        ]
        CameraRegistry(client, FleetConfig()).seed(cameras)
    long = str(tmp_path / "a folder with blanks" / "-".join(["part"] * 30) / "nobody.jpg")
    return {
        "status": ["status", "--once", "--redis", redis_url],
        "cameras": ["camera", "list", "--redis", redis_url],
        "events": ["tail", "--redis", redis_url, "--from", "0", "--no-follow"],
        "people": ["gallery", "list", "--gallery", str(gallery)],
        "person": ["gallery", "show", WIDE_NAMES[0], "--gallery", str(gallery)],
        "unknown": ["unknown", "list", "--state-dir", str(state)],
        "sightings": ["unknown", "show", "u-1", "--state-dir", str(state)],
        "models": ["models", "list"],
        "no gallery": ["gallery", "list", "--gallery", long],
        "no such person": ["gallery", "show", WIDE_NAMES[0] * 9, "--gallery", str(gallery)],
        "no such option": ["run", "--" + "no-such-option" * 12],
        "no configuration": ["config", "check", long],
        "no photo": ["verify", long, long],
    }


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_longer_than_the_terminal_and_no_word_is_cut(
    walked: dict[str, list[str]], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, arguments in walked.items():
        on_terminal, piped = shown(arguments, columns, monkeypatch), shown(arguments, None, monkeypatch)
        assert max(map(cell_len, on_terminal)) <= columns, (what, on_terminal)
        assert max(map(cell_len, piped)) > 80, (what, "it is too short to show something")
        # A word that fits into the terminal stands there in one piece, and nothing is left out.
        words = {word.strip(":") for line in piped for word in line.split() if cell_len(word) <= columns - 24}
        assert words <= {word.strip(":") for line in on_terminal for word in line.split()}, what
        if what != "status":  # which says below a row what it says elsewhere in a column
            assert "".join("".join(on_terminal).split()) == "".join("".join(piped).split()), what


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two", ["one two"]),
        ("a" * 19 + " b", ["a" * 19, "    b"]),
        (
            "wrote /photos/of-the-year/2026-11-28.jpg",
            ["wrote", "    /photos/of-the-", "    year/2026-11-28.", "    jpg"],
        ),
        ("李小龍" * 5, ["李小龍李小龍李小", "    龍李小龍李小龍"]),
        ("e\u0301" * 30, ["e\u0301" * 16, "    " + "e\u0301" * 14]),
        ("  1,2,3  score", ["  1,2,3  score"]),
        ("word " * 4 + "  apart", ["word word word word", "    apart"]),
        ("x" * 30, ["x" * 16, "    " + "x" * 14]),
    ],
)
def test_lines_are_broken_between_words_by_their_columns(text: str, lines: list[str]) -> None:
    assert wrapped(text, 20, "", below="    ").split("\n") == lines


def test_columns_stand_below_their_heads_in_any_script() -> None:
    rows = [["camera", "state", "source"], *([name, "owned", "rtsp://10.0.0.1/"] for name in WIDE_NAMES[:4])]
    for width in (None, 60, 30):
        begins = {cell_len(line[: line.index("owned")]) for line in table(rows, width).split("\n") if "owned" in line}
        assert begins == {max(cell_len(name) for name in WIDE_NAMES[:4]) + 2}
