"""``facestream camera`` as its users meet it."""

import io
import json
from typing import Any

import pytest
import redis

from worker.cli import run_command_line
from worker.config import FleetConfig
from worker.fleet.leases import Leases
from worker.fleet.registry import CameraRegistry, Definition

SOURCE = "rtsp://admin:secret@10.0.0.1/1"


class Command:
    """``facestream camera`` on one Redis."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys
        self.stderr = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run_command_line(["camera", *arguments, "--redis", self._url]) == code
        stdout, self.stderr = self._capsys.readouterr()
        assert "secret" not in stdout + self.stderr
        return stdout

    def documents(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]


@pytest.fixture
def command(redis_url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(redis_url, capsys)


def test_a_camera_is_added_listed_paused_resumed_and_removed(command: Command) -> None:
    assert command.documents("add", "door", SOURCE) == [{"camera_id": "door", "outcome": "added"}]
    [row] = command.documents("list")
    assert row | {"revision": 0} == {
        "camera_id": "door", "state": "unowned", "owner": "", "epoch": 0, "source": "rtsp://***@10.0.0.1/1",
        "reason": "", "revision": 0,
    }  # fmt: skip
    command("pause", "door")
    assert command.documents("list")[0]["state"] == "paused"
    command("resume", "door")
    assert command.documents("list")[0]["state"] == "unowned"
    command("remove", "door")
    assert command.documents("list") == []


def test_the_table_shows_who_reads_what(command: Command, redis_url: str) -> None:
    command("add", "door", SOURCE)
    command("add", "gate", SOURCE)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{facestream}:state", "claims_from_ms", 0)
        leases = Leases(client, FleetConfig(), "kiosk-1:abcd")
        [claim] = leases.beat([], max_cameras=1, most_claims=1).claimed
    table = command("list").splitlines()
    [owned] = [line for line in table if claim.camera_id in line]
    assert "owned" in owned
    assert "kiosk-1 " in owned
    assert str(claim.epoch) in owned
    assert table[-1] == "2 cameras, 1 unowned"


def test_options_become_part_of_the_definition(command: Command, redis_url: str) -> None:
    picture = ("--rotate", "180", "--flip", "horizontal", "--pixel-aspect", "4:2", "--snapshot-interval-s", "5")
    more = ("--threshold", "0.5", "--decode-on", "gpu")
    command("add", "door", SOURCE, "--transport", "udp", "--read-timeout-s", "2", *more, *picture)
    with redis.Redis.from_url(redis_url) as client:
        [row] = CameraRegistry(client, FleetConfig()).cameras()
    document = json.loads(row.definition.document or "")
    assert document == {
        "id": "door", "source": SOURCE, "transport": "udp", "decode_on": "gpu", "read_timeout_s": 2.0, "threshold": 0.5,
        "rotate": 180, "flip": "horizontal", "pixel_aspect": "2:1", "snapshot_interval_s": 5.0,
    }  # fmt: skip


def test_a_source_with_a_password_need_not_stand_on_the_command_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(SOURCE + "\n"))
    command("add", "door", "-")
    assert command.documents("list")[0]["source"] == "rtsp://***@10.0.0.1/1"


def test_a_definition_that_is_there_is_changed(command: Command) -> None:
    command("add", "door", SOURCE)
    assert command.documents("add", "door", SOURCE)[0]["outcome"] == "unchanged"
    assert command.documents("add", "door", "rtsp://10.0.0.2/")[0]["outcome"] == "changed"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("add", "door", "video.mp4"), "recording"),
        (("add", "door", "."), "recording"),
        (("add", "door", "0"), "belongs to one machine"),
        (("add", "door", "ftp://host/x"), "only rtsp, rtsps, http, https"),
        (("add", "a door", SOURCE), "cameras.0.id"),
        (("add", "door", SOURCE, "--transport", "pigeon"), "cameras.0.transport"),
        (("list", "--fleet-name", "{x}"), "fleet.name"),
    ],
)
def test_mistakes_are_told_by_their_name(command: Command, arguments: tuple[str, ...], complaint: str) -> None:
    command(*arguments, code=2)
    assert complaint in command.stderr
    assert len(command.stderr.splitlines()) == 1


def test_those_that_are_there_are_paused_though_one_is_not(command: Command) -> None:
    command("add", "door", SOURCE)
    command("pause", "gate", "door", code=1)
    assert "no camera gate" in command.stderr
    assert command.documents("list")[0]["state"] == "paused"


def test_fleets_have_names(command: Command) -> None:
    command("add", "door", SOURCE, "--fleet-name", "north")
    assert command.documents("list") == []
    assert len(command.documents("list", "--fleet-name", "north")) == 1


def test_without_redis_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["camera", "list", "--redis", "redis://127.0.0.1:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_a_definition_that_names_a_file_of_this_machine_is_listed_with_the_reason_and_the_others_as_ever(
    command: Command, redis_url: str
) -> None:
    command("add", "door", SOURCE)
    with redis.Redis.from_url(redis_url) as client:
        document = '{"id": "gate", "source": "rtsp://me@10.0.0.9/", "password_file": "/etc/hostname"}'
        CameraRegistry(client, FleetConfig()).seed([Definition("gate", 1, False, document)])
    door, gate = command.documents("list")
    assert (door["state"], door["reason"]) == ("unowned", "")
    assert (gate["state"], gate["source"]) == ("refused", "")
    assert "names a file of this machine (password_file)" in gate["reason"]
    assert "password_file" in command("list")
