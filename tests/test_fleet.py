"""A worker of a fleet takes cameras up and hands them on, whatever goes wrong in between."""

from collections.abc import Callable, Mapping
from queue import Queue
from typing import Any, cast

import pytest
import redis

from tests.redis_servers import eventually
from worker.config import CameraConfig, Config, FleetConfig, RedisConfig
from worker.fleet.member import FleetMember
from worker.fleet.registry import CameraRegistry
from worker.observer import Observer
from worker.redis.client import connect
from worker.service.loop import Loop


class Reader:
    """Stands for the pipeline's thread: takes orders, opens no camera, and keeps a state that cannot be written."""

    load = staticmethod(lambda: 0.0)

    def __init__(self) -> None:
        self.orders: Queue[Callable[[], None]] = Queue()
        self.order = self.orders.put
        self.epochs: list[int] = []

    def start_camera(self, _camera: CameraConfig, epoch: int, _state: Mapping[str, Any] | None) -> None:
        self.epochs.append(epoch)

    def hand_over(self, _camera_id: str) -> Mapping[str, Any]:
        return {"started_at": object()}


def test_a_camera_whose_state_cannot_be_kept_is_handed_on_all_the_same(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FleetConfig(enabled=True, lease_s=1.0)
    config = Config(worker_id="w", redis=RedisConfig.model_validate({"url": redis_url}), fleet=fleet)
    registry = CameraRegistry(redis.Redis.from_url(redis_url, decode_responses=True), fleet)

    def define(source: str) -> None:
        registry.add(CameraConfig.model_validate({"id": "door", "source": source}))

    define("rtsp://127.0.0.1/one")
    reader = Reader()
    member = FleetMember(connect(config.redis), config, cast(Loop, reader), Observer())

    def owned_times(count: int) -> bool:
        while not reader.orders.empty():
            reader.orders.get()()
        return len(reader.epochs) == count

    member.start()
    try:
        eventually(lambda: owned_times(1))
        define("rtsp://127.0.0.1/two")
        eventually(lambda: owned_times(2))
    finally:
        member.leave({})
    assert reader.epochs[0] < reader.epochs[1]
    assert "changed hands with a fault" in caplog.text
