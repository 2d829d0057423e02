"""A connection to Redis that fails when a test wants it to."""

from typing import Any

import redis


class Wire:
    """A client whose connection a test cuts, or whose next reply it loses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.cut = False
        self.lose_reply = False

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if self.cut:
                raise redis.ConnectionError("cut")
            reply = getattr(self._client, name)(*arguments)
            if self.lose_reply:
                self.lose_reply = False
                raise redis.TimeoutError("the reply was lost")
            return reply

        return call
