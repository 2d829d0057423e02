"""Pauses before Redis is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from worker.redis.errors import pause_s


@given(st.integers(0, 1_000_000))
def test_a_pause_is_short_however_long_redis_is_away(failures: int) -> None:
    assert 0 <= pause_s(failures) <= 5
