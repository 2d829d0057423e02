"""How long to wait before Redis is tried again."""

from typing import Final

from redis.backoff import FullJitterBackoff

_BACKOFF: Final = FullJitterBackoff(cap=5.0, base=0.1)
_DOUBLINGS: Final = 16


def pause_s(failures: int) -> float:
    """Seconds to wait after ``failures`` tries in a row: random, up to twice as long each time, at most 5."""
    return _BACKOFF.compute(min(failures, _DOUBLINGS))
