"""The state of live cameras is kept in time, and gone when their sightings have ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.test_publisher import config_for
from tests.test_sightings import ALICE, Scene
from worker.config import OutboxConfig
from worker.events.outbox import Outbox
from worker.events.publisher import Publisher
from worker.service.loop import StateKeeper


class OneCamera:
    """As much of a pipeline as keeps the sightings of a camera."""

    def __init__(self) -> None:
        self.scene = Scene(linger_s=1.0)

    def state(self, camera_id: str) -> dict[str, Any]:
        assert camera_id == "door"
        return self.scene.sightings.state()


@pytest.fixture
def publisher(redis_url: str, tmp_path: Path) -> Iterator[Publisher]:
    with redis.Redis.from_url(redis_url) as client:
        made = Publisher(client, config_for(redis_url), outbox=Outbox(OutboxConfig(), path=tmp_path / "a.sqlite3"))
        yield made
        made.close(0)


@pytest.fixture
def camera() -> OneCamera:
    return OneCamera()


@pytest.fixture
def keeper(camera: OneCamera, publisher: Publisher) -> StateKeeper:
    return keeping(camera, publisher, 3600.0)


def keeping(camera: OneCamera, publisher: Publisher, interval_s: float) -> StateKeeper:
    keeper = StateKeeper(camera, publisher, interval_s=interval_s)  # type: ignore[arg-type]
    keeper.begin("door", 0)
    return keeper


def test_an_event_is_followed_by_the_state(camera: OneCamera, keeper: StateKeeper, publisher: Publisher) -> None:
    keeper.keep()
    assert publisher.load_state("door") is None
    camera.scene.frames(5, {1: ALICE})
    keeper.keep()
    assert publisher.load_state("door") is None, "neither an event nor the time asks for it"
    keeper.changed("door")
    keeper.changed("a recording")
    keeper.keep()
    assert publisher.load_state("door") == camera.scene.sightings.state()


def test_time_alone_is_followed_by_the_state(camera: OneCamera, publisher: Publisher) -> None:
    keeper = keeping(camera, publisher, 0.0)
    keeper.keep()
    camera.scene.frames(5, {1: ALICE})
    keeper.keep()
    assert publisher.load_state("door") == camera.scene.sightings.state()


@pytest.mark.parametrize("how", ["everybody has left", "the worker stops"])
def test_nothing_is_left_where_all_have_ended(
    camera: OneCamera, keeper: StateKeeper, publisher: Publisher, how: str
) -> None:
    camera.scene.frames(5, {1: ALICE})
    keeper.changed("door")
    keeper.keep()
    assert publisher.load_state("door")
    if how == "everybody has left":
        camera.scene.frame({}, ended=(1,))
        assert camera.scene.absent(2.0)
        keeper.changed("door")
        keeper.keep()
    else:
        keeper.end("door")
    assert publisher.load_state("door") is None


def test_whoever_takes_over_keeps_it_from_then_on(camera: OneCamera, keeper: StateKeeper, publisher: Publisher) -> None:
    keeper.hand_over("door")
    camera.scene.frames(5, {1: ALICE})
    keeper.changed("door")
    keeper.keep()
    assert publisher.load_state("door") is None
