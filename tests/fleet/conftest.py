"""What the tests of fleets share: a client of a real Redis, and a clock that the tests move."""

from collections.abc import Iterator

import pytest
import redis

from tests.support.fleet_clock import FleetClock, use_clock


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


@pytest.fixture
def clock(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> FleetClock:
    return use_clock(monkeypatch, client)
