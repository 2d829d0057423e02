from worker.config import RedisConfig
from worker.keys import event_stream


def test_all_cameras_share_the_default_stream() -> None:
    stream = RedisConfig().stream
    assert event_stream(stream, "a") == event_stream(stream, "b") == "facestream:events"


def test_a_placeholder_gives_each_camera_its_own_stream() -> None:
    assert event_stream("events:{camera_id}", "door.1") == "events:door.1"


def test_other_braces_are_left_alone() -> None:
    assert event_stream("{shop}:events:{0}", "door") == "{shop}:events:{0}"
