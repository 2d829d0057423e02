"""With what a client connects to Redis: login, timeouts, certificates."""

import ssl
from pathlib import Path
from typing import Any

from worker.config import RedisConfig
from worker.errors import ConfigError
from worker.redis.address import RedisAddress, parse_redis_url


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
    """With what to connect to the Sentinels: ``options``, but their own login."""
    own = {"username": config.sentinel_username, "password": config.read_sentinel_password()}
    return {name: value for name, value in options.items() if name not in own} | own
