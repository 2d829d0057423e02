"""Time as the scripts of a fleet see it, in the hands of a test: they ask a key instead of Redis' own clock."""

import pytest
import redis

from worker.fleet import assignment, leases
from worker.fleet import registry as camera_registry
from worker.redis.script import Script, lua

_KEY = "{facestream}:clock-of-the-test"
_ASKED = "redis.call('TIME')"


class FleetClock:
    """Stands still until it is moved. Also the clock of :mod:`worker.fleet.assignment`, which nobody can set back."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.wall_ms = 1_800_000_000_000
        self._monotonic_ms = 1_000_000
        self.keep()

    def advance(self, seconds: float) -> None:
        self._monotonic_ms += round(1000 * seconds)
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Sets the clock of Redis forward or back."""
        self.wall_ms += round(1000 * seconds)
        self.keep()

    def keep(self) -> None:
        """Redis was emptied: it knows the time all the same."""
        self._client.set(_KEY, 1000 * self.wall_ms)

    def monotonic(self) -> float:
        return self._monotonic_ms / 1000


def use_clock(monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> FleetClock:
    def with_our_clock(package: str, *names: str) -> Script:
        text = lua(package, *names).text
        assert text.count(_ASKED) == 1
        return Script(text.replace(_ASKED, f"{{0, redis.call('GET', '{_KEY}')}}"))

    for module in (leases, camera_registry):
        monkeypatch.setattr(module, "lua", with_our_clock)
    clock = FleetClock(client)
    monkeypatch.setattr(assignment, "time", clock)
    return clock
