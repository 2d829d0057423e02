"""What a consumer for blocking code and one for asyncio have in common."""

import os
import secrets
import socket
from collections.abc import Sequence

from pydantic import SecretStr, ValidationError

from worker.config import RedisConfig
from worker.errors import ConfigError
from worker.events.consumer.group import ConsumerSettings, Counts, Delivery
from worker.events.consumer.protocol import Consuming
from worker.events.consumer.streams import StreamNames


class ConsumerBase:
    """The settings of a consumer, and the steps that it has to do.

    ``redis_url`` is a URL, or a :class:`worker.config.RedisConfig` where files for TLS or a password are needed.
    ``stream`` is a key or several; with ``{camera_id}`` in it, it stands for the streams of all cameras, also of
    those that come later. The group is made where it is missing and then begins at ``start``: ``0`` (with what the
    stream holds) or ``$`` (with what is written from now on). ``consumer`` must be unique within the group; without
    a name, one is made up. ``batch`` events are fetched at once.

    A handler that fails gets the event again after ``retry_first_s``, then twice as long and so on up to
    ``retry_longest_s``; after ``max_deliveries`` the event is buried: moved to the stream of dead letters. What
    another consumer has held for ``take_over_after_s`` is taken over, so a handler must be faster than that. Which
    events are done is remembered for ``remember_s``. Streams of new cameras are looked for every ``find_every_s``.

    Raises:
        ConfigError: a URL, a file or a number is wrong.
    """

    def __init__(
        self,
        redis_url: str | RedisConfig,
        stream: str | Sequence[str] = "facestream:events",
        *,
        group: str,
        consumer: str | None = None,
        start: str = "0",
        batch: int = 10,
        max_deliveries: int = 5,
        retry_first_s: float = 1.0,
        retry_longest_s: float = 60.0,
        take_over_after_s: float = 60.0,
        remember_s: float = 86_400.0,
        find_every_s: float = 5.0,
    ) -> None:
        if not group or not stream:
            raise ConfigError("a consumer needs the name of its group and of a stream")
        self._config = _config(redis_url, stream if isinstance(stream, str) else stream[0])
        if start not in ("0", "$"):
            raise ConfigError(f"start must be '0' (all that the stream holds) or '$' (from now on), not {start!r}")
        if (
            min(batch, max_deliveries, retry_first_s, retry_longest_s, take_over_after_s, find_every_s) <= 0
            or remember_s < 1
        ):
            raise ConfigError("the numbers given to a consumer must be above 0, and remember_s at least 1")
        self._anonymous = consumer is None
        self._settings = ConsumerSettings(
            group=group,
            consumer=consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            max_deliveries=max_deliveries,
            batch=batch,
            retry_first_s=retry_first_s,
            retry_longest_s=retry_longest_s,
            take_over_after_s=take_over_after_s,
            remember_s=remember_s,
        )
        self._consuming = Consuming(self._config, StreamNames(stream, group, start, find_every_s), self._settings)
        self._outstanding: Delivery | None = None
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    @property
    def counts(self) -> Counts:
        """What became of the entries that this consumer was handed."""
        return self._consuming.counts

    @property
    def name(self) -> str:
        """The consumer's name within its group."""
        return self._settings.consumer


def _config(redis: str | RedisConfig, stream: str) -> RedisConfig:
    if isinstance(redis, RedisConfig):
        return redis.model_copy(update={"stream": stream})
    try:
        return RedisConfig(url=SecretStr(redis), stream=stream)
    except ValidationError as error:
        raise ConfigError("redis.url: " + error.errors()[0]["msg"].removeprefix("Value error, ")) from None
