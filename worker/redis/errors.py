"""What each error of Redis means to a user, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.backoff import FullJitterBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from worker.config import RedisConfig
from worker.errors import SinkError
from worker.redaction import redact

REDIS_ERRORS: Final = (RedisError, OSError)
"""What a client raises where Redis is away or refuses."""
_PASSING_CODES: Final = (
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "LOADING",
    "BUSY",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
)
# redis-py takes the code away where it has a class for it.
_PASSING: Final = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
_FULL: Final = "max number of clients reached"
_LOGIN_CODES: Final = ("WRONGPASS", "NOAUTH")
_PLAIN_PORT: Final = ("WRONG_VERSION_NUMBER", "wrong version number", "RECORD_LAYER_FAILURE", "record layer failure")


def address(config: RedisConfig) -> str:
    """Where that Redis is, without credentials."""
    return redact(config.url.get_secret_value())


def is_wrong_type(error: BaseException) -> bool:
    """Whether Redis refused because the key holds another type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def is_final(error: BaseException) -> bool:
    """Whether waiting cannot help: the login or the command is refused, or the key is of another type."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return True
    return isinstance(error, ResponseError) and not (isinstance(error, AskError | OutOfMemoryError) or is_busy(error))


def is_busy(error: BaseException) -> bool:
    """Whether Redis answers that it cannot serve for now: it is loading, at its limit of clients, and such."""
    if not isinstance(error, RedisError):
        return False
    reply = reply_of(error)
    return isinstance(error, _PASSING) or reply.startswith(_PASSING_CODES) or _FULL in reply


def reply_of(error: Exception) -> str:
    """What Redis said, without the failed command, credentials or line breaks."""
    # redis-py puts the failed command, with its arguments, before the reply of a pipeline.
    reply = redact(str(error)).rpartition("caused error: ")[2]
    return " ".join(reply.split()) or type(error).__name__


def explain(error: Exception, config: RedisConfig) -> str:
    """One line for a user: what failed, where, and what to do. Holds no credentials and no field of an event."""
    where = f"Redis at {address(config)}"
    reply = reply_of(error)
    if is_wrong_type(error):
        return (
            f"{where}: the key '{config.stream}' holds no stream; set redis.stream to another key, or delete that one"
        )
    if isinstance(error, MasterNotFoundError):
        return f"{where}: {_without_primary(str(error))}"
    if isinstance(error, NoPermissionError) or "EXEC without MULTI" in reply:
        return (
            f"{where} does not permit this user what is needed ({reply}); "
            "its ACL must allow +ping +type +multi +exec +xadd on the key of the stream, and what docs/redis.md names "
            "for each part"
        )
    if isinstance(error, AuthenticationError | AuthorizationError) or reply.startswith(_LOGIN_CODES):
        return f"{where} refuses the login ({reply}); check user and password in redis.url"
    if isinstance(error, OutOfMemoryError):
        return f"{where} is out of memory; raise its maxmemory, or lower redis.max_events"
    if isinstance(error, AskError):
        return f"{where} is part of a Cluster; write redis+cluster://host:port,host:port in redis.url"
    if "cluster support disabled" in reply:
        return f"{where} is not a Cluster; write redis://host:port in redis.url"
    if isinstance(error, ResponseError):
        return f"{where} refuses: {reply}"
    return f"{where} {_busy(error, reply) or _unreachable(reply, tls=address(config).startswith('rediss'))}"


def _busy(error: Exception, reply: str) -> str:
    if isinstance(error, BusyLoadingError):
        return f"is loading its data from disk ({reply}); try again when it has them"
    if _FULL in reply:
        return f"is at its limit of clients ({reply}); raise its maxclients, or end clients that are not needed"
    return ""


def _without_primary(text: str) -> str:
    # Only the names of the errors are taken from the text: it lists the connections with their options.
    if "Authentication" in text or "NOAUTH" in text:
        return "the Sentinels refuse the login; check redis.sentinel_username and redis.sentinel_password_file"
    if "ConnectionError" in text or "TimeoutError" in text:
        return "no Sentinel that answers knows a primary of that service; are they running, and is redis.url right?"
    return "the Sentinels know no such service, or no primary of it is up; check the service's name in redis.url"


def _unreachable(reply: str, *, tls: bool) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reply:
        if "ostname mismatch" in reply or "IP address mismatch" in reply or "not valid for" in reply:
            return f"shows a certificate for another host ({reply}); use the name in the certificate"
        return f"shows a certificate that is not trusted ({reply}); name the CA that signed it in redis.ca_file"
    if any(code in reply for code in _PLAIN_PORT):
        return f"does not speak TLS on that port ({reply}); correct the port, or write redis:// instead of rediss://"
    if "EOF occurred in violation of protocol" in reply:
        return f"ended the TLS connection ({reply}); if it wants a certificate of ours, name one in redis.cert_file"
    if "_ALERT_" in reply:
        return f"refuses our certificate, or wants one ({reply}); correct redis.cert_file and redis.key_file"
    if "closed by server" in reply or "reset by peer" in reply:
        return (
            f"cannot be reached ({reply}); if that port speaks TLS, write rediss:// in redis.url, else is it running?"
        )
    if tls and "Timeout" in reply:
        return f"cannot be reached ({reply}); is it running, and does it speak TLS on that port?"
    return f"cannot be reached ({reply}); is it running, and is redis.url right?"


_BACKOFF: Final = FullJitterBackoff(cap=5.0, base=0.1)
_DOUBLINGS: Final = 16


def pause_s(failures: int) -> float:
    """Seconds to wait after ``failures`` tries in a row: random, up to twice as long each time, at most 5."""
    return _BACKOFF.compute(min(failures, _DOUBLINGS))


@contextmanager
def told_redis_errors(config: RedisConfig) -> Iterator[None]:
    """Turns an error of Redis in the block into a :class:`SinkError` that says what to do.

    Raises:
        SinkError: Redis cannot be reached, or refuses a command.
    """
    try:
        yield
    except REDIS_ERRORS as error:
        raise SinkError(explain(error, config)) from None
