"""Clients of Redis in all its forms, checked once at the start, and what each of their errors means to a user.

This is the only module that tells a Cluster from a single server: what differs between the two has a function here.
"""

import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

import redis
import redis.asyncio as async_redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from worker.config import RedisConfig
from worker.errors import ConfigError, SinkBusyError, SinkError
from worker.redis.address import RedisAddress, parse_redis_url
from worker.redis.errors import REDIS_ERRORS, address, explain, is_busy, is_wrong_type, pause_s
from worker.redis.keys import CAMERA_PLACEHOLDER


def address_and_options(config: RedisConfig) -> tuple[RedisAddress, dict[str, Any]]:
    """Where ``config`` points to, and with what to connect there.

    Raises:
        ConfigError: a wrong URL, two passwords, a file that cannot be read, or files for TLS without TLS.
    """
    address = parse_redis_url(config.url.get_secret_value())
    password = config.read_password()
    if password and address.password:
        raise ConfigError("redis.password and redis.password_file: the URL holds a password too; give only one of them")
    options: dict[str, Any] = {
        "username": address.username or None,
        "password": password or address.password or None,
        "socket_timeout": config.timeout_s,
        "socket_connect_timeout": config.timeout_s,
        # Every server and Sentinel speaks version 2, and its replies have one shape in all versions of redis-py.
        "protocol": 2,
    }
    return address, options | _tls_options(address, config)


def _tls_options(address: RedisAddress, config: RedisConfig) -> dict[str, Any]:
    files = {"ca_file": config.ca_file, "cert_file": config.cert_file, "key_file": config.key_file}
    for name, path in files.items():
        if path is not None and not address.tls:
            raise ConfigError(f"redis.{name} is given, but redis.url does not ask for TLS; write rediss:// in it")
        if path is not None:
            _require_readable(name, path)
    if not address.tls:
        return {}
    if config.key_file and not config.cert_file:
        raise ConfigError("redis.key_file is given without redis.cert_file; name the certificate that it belongs to")
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        "ssl_ca_certs": str(config.ca_file) if config.ca_file else None,
        "ssl_certfile": str(config.cert_file) if config.cert_file else None,
        "ssl_keyfile": str(config.key_file) if config.key_file else None,
    }


def _require_readable(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"redis.{name}: {path} cannot be read ({error.strerror or error})") from None


def sentinel_options(config: RedisConfig, options: dict[str, Any]) -> dict[str, Any]:
    """With what to connect to the Sentinels: ``options``, with the Sentinels' own login."""
    own = {"username": config.sentinel_username, "password": config.read_sentinel_password()}
    return {name: value for name, value in options.items() if name not in own} | own


__all__ = [
    "REDIS_ERRORS",
    "AsyncClient",
    "Client",
    "address",
    "close_async",
    "connect",
    "connect_async",
    "connect_when_ready",
    "explain",
    "find_servers_again",
    "is_cluster",
    "is_wrong_type",
    "longest_block_s",
    "one_transaction_each",
    "server_time_ms",
    "socket_timeout_s",
]

# A Cluster's client takes the same calls: only this module needs to know which of the two it holds.
Client: TypeAlias = redis.Redis
AsyncClient: TypeAlias = async_redis.Redis

_SOCKET_SHARE: Final = 0.5
_P = ParamSpec("_P")
_T = TypeVar("_T")


def connect(config: RedisConfig, *, read_only: bool = False) -> Client:
    """A client of the Redis at ``config.url`` that was seen to answer, and whose stream key is free or a stream.

    ``read_only`` leaves unasked whether this user may write. The client itself never retries (redis-py would, ten
    times): its user knows what may be repeated. All its errors are ``RedisError`` or ``OSError``.

    Raises:
        ConfigError: the URL is not a Redis URL, or a file that the configuration names cannot be read.
        SinkBusyError: Redis is loading, at its limit of clients, or cannot serve for now for another reason.
        SinkError: no connection, wrong password, no permission, or the key holds something other than a stream.
    """
    place, options = address_and_options(config)
    client: Client | None = None
    try:
        client = _client(place, config, options)
        # If MULTI is not permitted, a batch is written and yet fails, and so it would be written again and again.
        client.ping()
        if not read_only:
            _try_transaction(client, config)
        if CAMERA_PLACEHOLDER not in config.stream:
            _check_key(client, config)
    except (RedisError, RedisClusterException, OSError) as error:
        if client is not None:
            client.close()
        told = _as_redis_error(error)
        raise (SinkBusyError if is_busy(told) else SinkError)(explain(told, config)) from None
    except SinkError:
        if client is not None:
            client.close()
        raise
    return client


def connect_when_ready(
    config: RedisConfig, tell: Callable[[str], None], wait: Callable[[float], object] = time.sleep
) -> Client:
    """As :func:`connect`, but a Redis that says that it cannot serve for now is waited for, however long it takes.

    ``tell`` is called with the reason when it changes, and with '' at the end.

    Raises:
        ConfigError: see :func:`connect`.
        SinkError: Redis cannot be reached, or refuses.
    """
    reason, tries = "", 0
    while True:
        try:
            client = connect(config)
        except SinkBusyError as error:
            if str(error) != reason:
                reason = str(error)
                tell(reason)
            tries += 1
            wait(pause_s(tries))
        else:
            if reason:
                tell("")
            return client


def connect_async(config: RedisConfig) -> AsyncClient:
    """The same client for asyncio; it was not yet seen to answer, and connects when it is first used.

    Raises:
        ConfigError: see :func:`connect`.
    """
    place, options = address_and_options(config)
    no_retry = async_redis.retry.Retry(NoBackoff(), 0)
    if place.form == "cluster":
        nodes = [async_redis.cluster.ClusterNode(host, port) for host, port in place.nodes]
        cluster = _AsyncCluster(startup_nodes=nodes, retry=no_retry, dynamic_startup_nodes=False, **options)
        return cast(AsyncClient, cluster)
    if place.form == "sentinel":
        sentinel = _untyped(async_redis.sentinel.Sentinel)(
            place.nodes, sentinel_kwargs=sentinel_options(config, options) | {"retry": no_retry}
        )
        return cast(AsyncClient, sentinel.master_for(place.service, db=place.database, retry=no_retry, **options))
    return async_redis.Redis(db=place.database, retry=no_retry, **_place(place), **options)


def longest_block_s(config: RedisConfig) -> float:
    """How long a blocking command may wait before the client would take the silence for a broken connection."""
    return _SOCKET_SHARE * config.timeout_s


async def close_async(client: AsyncClient) -> None:
    """Give up the connections of ``client``, and those to its Sentinels."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


def socket_timeout_s(client: Client) -> float | None:
    """After how many seconds of silence the client takes a connection for broken; None: never."""
    # mypy knows a Cluster's client by the type of the other, which lacks this.
    options = (
        cast(Any, client).nodes_manager.connection_kwargs if is_cluster(client) else client.get_connection_kwargs()
    )
    timeout_s: float | None = options.get("socket_timeout")
    return timeout_s


def server_time_ms(client: Client) -> int:
    """Redis' clock, by which machines agree whose own clocks do not; on a Cluster, the earliest of its servers'.

    Raises:
        redis.RedisError: Redis cannot be asked, or this user may not ask for the time.
    """
    answer: Any = client.time()
    seconds, microseconds = min(answer.values()) if isinstance(answer, dict) else answer
    return int(seconds) * 1000 + int(microseconds) // 1000


def one_transaction_each(client: Client | AsyncClient, keys: Iterable[str]) -> list[list[str]]:
    """``keys``, in their order, in groups. One command, transaction or script may touch all keys of a group.

    On a Cluster there is a group for each slot, elsewhere one group.
    """
    keys = list(keys)
    if not is_cluster(client):
        return [keys] if keys else []
    groups: dict[int, list[str]] = {}
    for key in keys:
        groups.setdefault(key_slot(key.encode()), []).append(key)
    return list(groups.values())


def is_cluster(client: object) -> bool:
    """Whether keys lie in slots: only keys with one hash tag may be touched together."""
    return isinstance(client, RedisCluster | async_redis.RedisCluster)


def find_servers_again(client: Client) -> None:
    """Drop idle connections, so that the next command asks again which server is the primary."""
    if is_cluster(client):
        cast(Any, client).disconnect_connection_pools()
    else:
        client.connection_pool.disconnect(inuse_connections=False)


def _client(address: RedisAddress, config: RedisConfig, options: dict[str, Any]) -> Client:
    no_retry = Retry(NoBackoff(), 0)
    if address.form == "cluster":
        nodes = [_untyped(ClusterNode)(host, port) for host, port in address.nodes]
        return cast(Client, _Cluster(startup_nodes=nodes, retry=no_retry, dynamic_startup_nodes=False, **options))
    if address.form == "sentinel":
        sentinel = _untyped(Sentinel)(
            address.nodes, sentinel_kwargs=sentinel_options(config, options) | {"retry": no_retry}
        )
        return cast(Client, sentinel.master_for(address.service, db=address.database, retry=no_retry, **options))
    return redis.Redis(db=address.database, retry=no_retry, **_place(address), **options)


def _untyped(call: Any) -> Any:
    """Some of redis-py has no annotations."""
    return call


def _place(address: RedisAddress) -> dict[str, Any]:
    if address.form == "socket":
        return {"unix_socket_path": address.path}
    host, port = address.nodes[0]
    return {"host": host, "port": port}


def _try_transaction(client: Client, config: RedisConfig) -> None:
    with client.pipeline(transaction=True) as pipeline:
        if is_cluster(client):
            # PING has no key, and so no place in a transaction on a Cluster.
            pipeline.type(config.stream)
        else:
            pipeline.ping()
        pipeline.execute()


def _check_key(client: Client, config: RedisConfig) -> None:
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


def _as_redis_error(error: Exception) -> Exception:
    """redis-py's errors of a Cluster that cannot be reached are no ``RedisError``: callers need not know."""
    if not isinstance(error, RedisClusterException) or isinstance(error, RedisError):
        return error
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, ResponseError):
        origin = origin.__cause__ or origin.__context__
    return origin or redis.ConnectionError(str(error))


class _Cluster(RedisCluster):
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        return _translate(super().execute_command)(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        pipeline = _untyped(super().pipeline)(transaction, shard_hint)
        pipeline.execute = _translate(pipeline.execute)
        return pipeline


class _AsyncCluster(async_redis.RedisCluster):
    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        return await _translate_async(super().execute_command)(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        pipeline = _untyped(super().pipeline)(transaction, shard_hint)
        pipeline.execute = _translate_async(pipeline.execute)
        return pipeline


def _translate(call: Callable[_P, _T]) -> Callable[_P, _T]:
    @wraps(call)
    def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return call(*args, **kwargs)
        except RedisClusterException as error:
            raise _as_redis_error(error) from error

    return translated


def _translate_async(call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    @wraps(call)
    async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(*args, **kwargs)
        except RedisClusterException as error:
            raise _as_redis_error(error) from error

    return translated
