"""The console as a process: a port, and what is said at the start."""

import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from worker.api.metrics import probes
from worker.config import ConsoleConfig
from worker.errors import ConfigError, FacestreamError

_GOODBYE_S: Final = 5
"""How long a stop waits for requests that are at work."""
_BACKLOG: Final = 128


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Those who listen to live events would keep their connections for ever.
        self.config.loaded_app.state.live.close()
        await super().shutdown(sockets)


def serve(app: FastAPI, config: ConsoleConfig, started: Callable[[str], None]) -> None:
    """Serves ``app`` until SIGTERM or Ctrl-C; ``started`` is told its address once the port is open.

    Raises:
        ConfigError: only one of certificate and key is given, or they cannot be read.
        FacestreamError: the address is taken, or is not one of this machine.
    """
    if (config.cert_file is None) != (config.key_file is None):
        raise ConfigError("console.cert_file and console.key_file go together: give both")
    opened = _open(config)
    port = opened.getsockname()[1]
    options = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        ssl_certfile=config.cert_file,
        ssl_keyfile=config.key_file,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    try:
        options.load()
    except OSError as error:
        opened.close()
        raise ConfigError(f"console.cert_file or console.key_file cannot be read: {error.strerror or error}") from None
    host = f"[{config.host}]" if ":" in config.host else config.host
    parts = app.state.parts
    with probes(parts.config, parts.metrics, parts.database_trouble, parts.redis_trouble):
        started(f"http{'s' if config.cert_file else ''}://{host}:{port}")
        _Server(options).run(sockets=[opened])


def _open(config: ConsoleConfig) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((config.host, config.port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise FacestreamError(
            f"console.port {config.port} on {config.host} cannot be opened ({error.strerror or error}); "
            "choose another console.port (0 takes a free one) or console.host"
        ) from None
    return opened
