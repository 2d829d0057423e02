"""What a Redis URL names: one server, a socket, Sentinels with a service, or the nodes of a Cluster."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from worker.errors import ConfigError
from worker.redaction import redact_url

Form = Literal["server", "socket", "sentinel", "cluster"]

SERVER_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_FORMS: Final[dict[str, tuple[Form, bool]]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """``nodes`` are the server, the Sentinels or some nodes of the Cluster; ``service`` is what Sentinels call it."""

    form: Form
    tls: bool
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)


def parse_redis_url(url: str) -> RedisAddress:
    """The address that ``url`` names; user, password, path and service are percent-decoded.

    Raises:
        ConfigError: it is not a Redis URL, or a part is missing or not allowed. The text names the part, and holds no
            credentials.
    """
    try:
        parts = urlsplit(url)
        # What follows a "#" would be dropped in silence: it is the rest of a password that was not encoded.
        form, tls = _FORMS["" if parts.fragment else parts.scheme]
        username, password = _login(parts)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        nodes = () if form == "socket" else tuple(_nodes(parts, SENTINEL_PORT if form == "sentinel" else SERVER_PORT))
    except (KeyError, ValueError):
        # The parser's own words may quote a piece of the password.
        raise ConfigError(
            f"redis.url: '{redact_url(url)}' is not a Redis URL; write redis://host:6379/0, rediss://..., "
            "unix:///path, redis+sentinel://host:26379,host:26379/SERVICE/0 or redis+cluster://host:6379,host:6379, "
            "with special characters of a password percent-encoded"
        ) from None
    path = "" if form != "socket" else unquote(parts.path)
    service, database = _service_and_database(url, form, "" if path else parts.path, options.pop("db", ""))
    password = password or options.pop("password", "")
    if form == "socket" and not path:
        raise ConfigError(f"redis.url: '{redact_url(url)}' names no socket; write unix:///path/to/socket")
    if options:
        raise ConfigError(
            f"redis.url: '{redact_url(url)}' has the option '{next(iter(options))}', which no Redis URL takes here; "
            "files for TLS are named in redis.ca_file, redis.cert_file and redis.key_file"
        )
    return RedisAddress(form, tls, nodes, path, service, database, username, password)


def _login(parts: SplitResult) -> tuple[str, str]:
    login = parts.netloc.rpartition("@")[0]
    username, _, password = login.partition(":")
    return unquote(username), unquote(password)


def _nodes(parts: SplitResult, default_port: int) -> Iterator[tuple[str, int]]:
    for host in parts.netloc.rpartition("@")[2].split(","):
        node = urlsplit(f"//{host}")
        yield node.hostname or "localhost", default_port if node.port is None else node.port


def _service_and_database(url: str, form: Form, path: str, option: str) -> tuple[str, int]:
    names = [unquote(name) for name in path.strip("/").split("/") if name]
    service = ""
    if form == "sentinel":
        if not names:
            raise ConfigError(
                f"redis.url: '{redact_url(url)}' names no service; write redis+sentinel://host:26379/SERVICE/0, "
                "with the name that the Sentinels monitor the primary under"
            )
        service = names.pop(0)
    database = option or "/".join(names) or "0"
    if not database.isascii() or not database.isdecimal():
        raise ConfigError(f"redis.url: '{redact_url(url)}' does not end in the number of a database, such as 0")
    if form == "cluster" and int(database):
        raise ConfigError(f"redis.url: '{redact_url(url)}' names a database; a Cluster has only database 0")
    return service, int(database)
