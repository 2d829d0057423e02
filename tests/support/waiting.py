"""How tests wait: for what they wait for, and no longer."""

import time
from collections.abc import Callable
from typing import Any

import redis

PATIENCE_S = 90.0


def eventually(condition: Callable[[], Any]) -> Any:
    """What ``condition`` answers as soon as that is true; errors of a Redis that is not ready yet count as false."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if answer := condition():
                return answer
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)
