"""The state of live cameras is kept in time, and gone when their sightings have ended."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenes import ALICE, Scene
from worker.config import OutboxConfig
from worker.events.outbox import Outbox
from worker.events.states import LocalStates
from worker.service.loop import StateKeeper


class OneCamera:
    """As much of a pipeline as keeps the sightings of a camera."""

    def __init__(self) -> None:
        self.scene = Scene(linger_s=1.0)

    def state(self, camera_id: str) -> dict[str, Any]:
        assert camera_id == "door"
        return self.scene.sightings.state()


@pytest.fixture
def states(tmp_path: Path) -> Iterator[LocalStates]:
    with closing(Outbox(OutboxConfig(), path=tmp_path / "a.sqlite3")) as outbox:
        yield LocalStates(outbox)


@pytest.fixture
def camera() -> OneCamera:
    return OneCamera()


@pytest.fixture
def keeper(camera: OneCamera, states: LocalStates) -> StateKeeper:
    keeper = StateKeeper(camera, states, interval_s=3600.0)  # type: ignore[arg-type]
    keeper.begin("door", 0)
    return keeper


def test_an_event_is_followed_by_the_state(camera: OneCamera, keeper: StateKeeper, states: LocalStates) -> None:
    keeper.keep()
    assert states.load("door") is None
    camera.scene.frames(5, {1: ALICE})
    keeper.keep()
    assert states.load("door") is None, "neither an event nor the time asks for it"
    keeper.changed("door")
    keeper.changed("a recording")
    keeper.keep()
    assert states.load("door") == json.loads(json.dumps(camera.scene.sightings.state()))


def test_time_alone_is_followed_by_the_state(camera: OneCamera, states: LocalStates) -> None:
    keeper = StateKeeper(camera, states, interval_s=0.0)  # type: ignore[arg-type]
    keeper.begin("door", 0)
    keeper.keep()
    camera.scene.frames(5, {1: ALICE})
    keeper.keep()
    assert states.load("door") == json.loads(json.dumps(camera.scene.sightings.state()))


@pytest.mark.parametrize("how", ["everybody has left", "the worker stops"])
def test_nothing_is_left_where_all_have_ended(
    camera: OneCamera, keeper: StateKeeper, states: LocalStates, how: str
) -> None:
    camera.scene.frames(5, {1: ALICE})
    keeper.changed("door")
    keeper.keep()
    assert states.load("door")
    if how == "everybody has left":
        camera.scene.frame({}, ended=(1,))
        assert camera.scene.absent(2.0)
        keeper.changed("door")
        keeper.keep()
    else:
        keeper.end("door")
    assert states.load("door") is None


def test_whoever_takes_over_keeps_it_from_then_on(camera: OneCamera, keeper: StateKeeper, states: LocalStates) -> None:
    keeper.hand_over("door")
    camera.scene.frames(5, {1: ALICE})
    keeper.changed("door")
    keeper.keep()
    assert states.load("door") is None
