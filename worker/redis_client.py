"""The connection to Redis, checked once at the start, and what each of its errors means to a user."""

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from worker.config import RedisConfig
from worker.errors import ConfigError, SinkError
from worker.keys import CAMERA_PLACEHOLDER
from worker.redaction import redact


def connect(config: RedisConfig, *, read_only: bool = False) -> redis.Redis:
    """A client of the Redis at ``config.url`` that was seen to answer, and whose stream key is free or a stream.

    ``read_only`` leaves unasked whether this user may write. The client itself never retries (redis-py would, ten
    times): whoever uses it knows what may be repeated.

    Raises:
        ConfigError: the URL is none of Redis.
        SinkError: no connection, wrong password, no permission, or the key holds something else than a stream.
    """
    client = _client(config)
    try:
        # Without leave for MULTI, a batch would be written and yet fail, and so be written again and again.
        with client.pipeline(transaction=not read_only) as pipeline:
            pipeline.ping()
            pipeline.execute()
        if CAMERA_PLACEHOLDER not in config.stream:
            _check_key(client, config)
    except (RedisError, OSError) as error:
        client.close()
        raise SinkError(explain(error, config)) from None
    except SinkError:
        client.close()
        raise
    return client


def address(config: RedisConfig) -> str:
    """Where that Redis is, without credentials."""
    return redact(config.url.get_secret_value())


def is_wrong_type(error: BaseException) -> bool:
    """Whether Redis refused because the key holds another type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def explain(error: Exception, config: RedisConfig) -> str:
    """One line for a user: what failed, where, and what to do. Holds no credentials and no field of an event."""
    where = f"Redis at {address(config)}"
    # redis-py puts the failed command, with its arguments, before the reply of a pipeline.
    reply = " ".join(redact(str(error)).rpartition("caused error: ")[2].split()) or type(error).__name__
    if is_wrong_type(error):
        return (
            f"{where}: the key '{config.stream}' holds no stream; set redis.stream to another key, or delete that one"
        )
    if isinstance(error, NoPermissionError) or "EXEC without MULTI" in reply:
        return (
            f"{where} does not permit this user what is needed ({reply}); "
            "its ACL must allow +ping +type +multi +exec +xadd (to read: +ping +type +exists +xinfo|stream +xread) "
            "on the key of the stream"
        )
    if isinstance(error, AuthenticationError | AuthorizationError) or reply.startswith(("WRONGPASS", "NOAUTH")):
        return f"{where} refuses the login ({reply}); check user and password in redis.url"
    if isinstance(error, OutOfMemoryError):
        return f"{where} is out of memory; raise its maxmemory, or lower redis.max_events"
    if isinstance(error, ResponseError):
        return f"{where} refuses: {reply}"
    return f"{where} cannot be reached ({reply}); is it running, and is redis.url right?"


def _client(config: RedisConfig) -> redis.Redis:
    url = config.url.get_secret_value()
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError):
        # The parser's own words may quote a piece of the password.
        raise ConfigError(
            f"redis.url: '{redact(url)}' is not a Redis URL; write redis://host:6379/0, rediss://... or "
            "unix:///path, with special characters of a password percent-encoded"
        ) from None


def _check_key(client: redis.Redis, config: RedisConfig) -> None:
    try:
        held = client.type(config.stream)
    except NoPermissionError:
        return
    if held not in (b"stream", b"none", "stream", "none"):
        kind = held.decode() if isinstance(held, bytes) else held
        raise SinkError(
            f"Redis at {address(config)}: the key '{config.stream}' holds a {kind}, not a stream; "
            "set redis.stream to another key, or delete that one"
        )
