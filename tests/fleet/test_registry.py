"""Definitions of cameras in Redis, and what workers remember of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from worker.config import CameraConfig, FleetConfig
from worker.errors import ConfigError
from worker.fleet.registry import CameraRegistry, Definition, RegistryCopy, decode_camera, encode_camera
from worker.redis.keys import fleet_key

FLEET = FleetConfig()


@pytest.fixture
def registry(client: redis.Redis) -> CameraRegistry:
    return CameraRegistry(client, FLEET)


def camera(camera_id: str = "door", source: str = "rtsp://admin:secret@10.0.0.1/1", **fields: object) -> CameraConfig:
    return CameraConfig(id=camera_id, source=source, **fields)


def ids(registry: CameraRegistry) -> list[str]:
    return [row.definition.camera_id for row in registry.cameras()]


def test_a_camera_comes_back_as_it_was_defined(registry: CameraRegistry) -> None:
    defined = camera(transport="udp", read_timeout_s=2.5, threshold=0.4, start_time="2026-01-01T00:00:00Z")
    assert registry.add(defined) == "added"
    [row] = registry.cameras()
    assert decode_camera(row.definition.document or "", "door") == defined
    assert (row.definition.paused, row.owner, row.epoch) == (False, "", 0)


def test_to_add_it_again_is_to_change_it(registry: CameraRegistry) -> None:
    registry.add(camera())
    [before] = registry.cameras()
    assert registry.add(camera()) == "unchanged"
    assert registry.cameras() == [before]
    assert registry.add(camera(source="rtsp://10.0.0.2/")) == "changed"
    [after] = registry.cameras()
    assert after.definition.revision > before.definition.revision


def test_a_paused_camera_stays_paused_when_it_is_changed(registry: CameraRegistry) -> None:
    registry.add(camera())
    assert registry.pause("door")
    registry.add(camera(source="rtsp://10.0.0.2/"))
    assert registry.cameras()[0].definition.paused
    assert registry.resume("door")
    assert not registry.cameras()[0].definition.paused


def test_a_removed_camera_is_gone_until_it_is_added_again(registry: CameraRegistry) -> None:
    registry.add(camera())
    assert registry.remove("door")
    assert registry.cameras() == []
    assert not any([registry.remove("door"), registry.pause("door"), registry.resume("door")])
    assert registry.add(camera()) == "added"
    assert ids(registry) == ["door"]


@pytest.mark.parametrize("source", ["video.mp4", "/", "0", "ftp://host/x", "rtsp://", " "])
def test_what_not_every_worker_can_read_is_refused(registry: CameraRegistry, source: str) -> None:
    with pytest.raises(ConfigError):
        registry.add(camera(source=source))
    assert registry.cameras() == []


def test_fleets_of_other_names_are_left_alone(client: redis.Redis, registry: CameraRegistry) -> None:
    registry.add(camera())
    assert CameraRegistry(client, FleetConfig(name="other")).cameras() == []


def test_no_password_shows_in_a_representation(registry: CameraRegistry) -> None:
    registry.add(camera())
    assert "secret" not in repr(registry.cameras())


def test_a_damaged_definition_is_an_error_without_a_password() -> None:
    with pytest.raises(ConfigError) as error:
        decode_camera(encode_camera(camera()).replace('"door"', '"not a door"'), "not a door")
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_more_cameras_than_a_page_are_all_read(registry: CameraRegistry) -> None:
    registry.seed(Definition(f"c{number:04}", 1, False, "{}") for number in range(500))
    assert ids(registry) == [f"c{number:04}" for number in range(500)]


def test_only_what_changed_is_read_after_a_change(registry: CameraRegistry) -> None:
    for camera_id in ("a", "b", "c"):
        registry.add(camera(camera_id))
    last = registry.read()[-1].change
    registry.pause("a")
    registry.remove("c")
    changed = [row.definition for row in registry.read(last)]
    assert [(row.camera_id, row.paused, row.document is None) for row in changed] == [
        ("a", True, False),
        ("c", False, True),
    ]


def test_seeds_add_what_is_missing_or_older_and_change_nothing_else(registry: CameraRegistry) -> None:
    registry.add(camera())
    [known] = registry.cameras()
    revision = known.definition.revision
    assert registry.seed([Definition("door", revision - 1, True, "{}"), Definition("door", revision, True, "{}")]) == 0
    assert registry.cameras() == [known]
    assert registry.seed([Definition("door", revision + 1, True, "{}"), Definition("gate", 5, False, "{}")]) == 2
    assert ids(registry) == ["door", "gate"]
    assert registry.cameras()[0].definition.paused


def test_a_tombstone_keeps_an_old_copy_from_bringing_a_camera_back(registry: CameraRegistry) -> None:
    registry.add(camera())
    [known] = registry.cameras()
    registry.remove("door")
    assert registry.seed([known.definition]) == 0
    assert registry.cameras() == []


def test_tombstones_do_not_stay_for_ever(client: redis.Redis, registry: CameraRegistry) -> None:
    registry.add(camera("old"))
    registry.remove("old")
    client.zadd(fleet_key(FLEET.name, "removed"), {"old": 1})
    registry.add(camera("new"))
    assert [row.definition.camera_id for row in registry.read()] == ["new"]


def follow(copy: RegistryCopy, client: redis.Redis, steps: int = 4) -> None:
    for _ in range(steps):
        found: Any = client.hmget(fleet_key(FLEET.name, "state"), "incarnation", "change")
        incarnation, change = found
        copy.follow((incarnation or b"").decode(), int(change or 0))


def empty(client: redis.Redis) -> None:
    """Redis comes back without anything, and a worker has beaten since."""
    client.flushall()
    client.hset(fleet_key(FLEET.name, "state"), "incarnation", "new")


def test_a_copy_brings_back_what_redis_lost(client: redis.Redis, registry: CameraRegistry) -> None:
    for camera_id in ("read", "paused", "removed"):
        registry.add(camera(camera_id))
    registry.pause("paused")
    registry.remove("removed")
    before = [row.definition for row in registry.cameras()]
    [tombstone] = [row.definition for row in registry.read() if row.definition.document is None]
    copy = RegistryCopy(registry)
    follow(copy, client)
    empty(client)
    follow(copy, client)
    assert [row.definition for row in registry.cameras()] == before
    assert tombstone in [row.definition for row in registry.read()]


def test_a_copy_does_not_undo_what_was_defined_meanwhile(client: redis.Redis, registry: CameraRegistry) -> None:
    registry.add(camera("a"))
    registry.add(camera("b"))
    copy = RegistryCopy(registry)
    follow(copy, client)
    empty(client)
    registry.add(camera("a", source="rtsp://10.0.0.9/"))
    follow(copy, client)
    assert ids(registry) == ["a", "b"]
    assert "10.0.0.9" in (registry.cameras()[0].definition.document or "")


def test_two_copies_bring_everything_back_once(client: redis.Redis, registry: CameraRegistry) -> None:
    registry.seed(Definition(f"c{number:04}", 7, False, "{}") for number in range(450))
    copies = [RegistryCopy(registry), RegistryCopy(registry)]
    for copy in copies:
        follow(copy, client)
        assert len(copy) == 450
    empty(client)
    for _ in range(8):
        for copy in copies:
            follow(copy, client, 1)
    assert len(ids(registry)) == 450
    assert [row.definition.revision for row in registry.cameras()] == [7] * 450


def test_a_copy_that_was_forgotten_is_read_again(client: redis.Redis, registry: CameraRegistry) -> None:
    registry.add(camera())
    copy = RegistryCopy(registry)
    follow(copy, client)
    copy.forget()
    assert len(copy) == 0
    follow(copy, client)
    assert len(copy) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"password_file": "/etc/passwd", "source": "rtsp://me@10.0.0.9/"},
        {"password_file": None},
        {"source": "/var/lib/secret.mp4"},
        {"source": "0"},
        {"source": "/dev/video0"},
        {"source": "file:///etc/passwd"},
        {"source": "concat:/etc/passwd"},
        {"id": "gate"},
        {"id": "door\n"},
        {"id": None},
        {"source": 7.5},
        {"threshold": "high"},
    ],
    ids=str,
)
def test_a_definition_names_its_own_camera_and_nothing_of_this_machine(changes: dict[str, Any]) -> None:
    document = json.dumps({"id": "door", "source": "rtsp://10.0.0.1/"} | changes)
    with pytest.raises(ConfigError, match=r"its definition in Redis|source "):
        decode_camera(document, "door")


@pytest.mark.parametrize("document", ["", "[]", "null", "7", "{", "[" * 100_000, '{"id":' * 5000, "\0", "\ud800"])
def test_what_is_no_definition_is_told_in_one_line(document: str) -> None:
    with pytest.raises(ConfigError) as told:
        decode_camera(document, "door")
    assert "\n" not in str(told.value)


def test_the_file_with_the_password_of_a_camera_is_not_told_to_the_fleet(
    registry: CameraRegistry, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("hunter22\n")
    registry.add(camera(source="rtsp://admin@10.0.0.1/1", password_file=tmp_path / "password"))
    [row] = registry.cameras()
    assert "password" not in (row.definition.document or "").replace("hunter22", "")
    read = decode_camera(row.definition.document or "", "door")
    assert read.source.get_secret_value() == "rtsp://admin:hunter22@10.0.0.1/1"
