"""Publishers of events under test: their configuration, what they observe and what they stored."""

from typing import Any

import redis
from pydantic import SecretStr

from worker.config import RedisConfig
from worker.events.codec import decode
from worker.observer import Observer
from worker.types import Event

STREAM = "facestream:events"


class Recorder(Observer):
    def __init__(self) -> None:
        self.published: list[tuple[str, str]] = []
        self.dropped: list[str] = []
        self.latencies_s: list[float] = []
        self.depths: list[int] = []
        self.up: list[bool] = []

    def event_published(self, camera_id: str, event_type: str) -> None:
        self.published.append((camera_id, event_type))

    def event_dropped(self, camera_id: str, reason: str) -> None:
        self.dropped.append(reason)

    def event_latency(self, camera_id: str, seconds: float) -> None:
        self.latencies_s.append(seconds)

    def queue_depth(self, queue: str, depth: int) -> None:
        assert queue == "outbox"
        self.depths.append(depth)

    def sink_up(self, up: bool) -> None:
        self.up.append(up)


def config_for(url: str, **changes: Any) -> RedisConfig:
    return RedisConfig(**({"url": SecretStr(url), "timeout_s": 1.0} | changes))


def stored(url: str, stream: str = STREAM) -> list[Event]:
    with redis.Redis.from_url(url) as client:
        return [decode(fields) for _, fields in client.xrange(stream)]
