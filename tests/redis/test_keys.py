import pytest
from redis.crc import key_slot

from worker.config import RedisConfig
from worker.redis.keys import beside, event_stream


def test_all_cameras_share_the_default_stream() -> None:
    stream = RedisConfig().stream
    assert event_stream(stream, "a") == event_stream(stream, "b") == "facestream:events"


def test_a_placeholder_gives_each_camera_its_own_stream() -> None:
    assert event_stream("events:{camera_id}", "door.1") == "events:door.1"


def test_other_braces_are_left_alone() -> None:
    assert event_stream("{shop}:events:{0}", "door") == "{shop}:events:{0}"


@pytest.mark.parametrize(
    "stream", ["facestream:events", "{shop}:events", "events:{door}", "a{b", "{a", "a{{b}c}", "{a}{b}", "door 1"]
)
def test_what_is_beside_a_stream_is_in_its_slot_of_a_cluster(stream: str) -> None:
    neighbour = beside(stream, "fence")
    assert neighbour != stream
    assert key_slot(neighbour.encode()) == key_slot(stream.encode())


def test_a_stream_without_a_slot_for_two_has_a_neighbour_all_the_same() -> None:
    assert beside("a}b", "fence") != beside("a}b", "other")
