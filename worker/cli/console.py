"""``facestream console``: pages for people who open no terminal, and an API for programs."""

from typing import Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, settings
from worker.cli.options import ConfigFile, RedisUrl, StreamName
from worker.cli.screen import say
from worker.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Adds the command of this chapter to ``app``."""
    app.command("console")(console)


def console(
    config: ConfigFile = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = None,
) -> None:
    """Serve pages and an API for people, sightings and unknown people, until SIGTERM or Ctrl-C.

    It is a process of its own beside the workers, with the same gallery and Redis.
    """
    from worker.logs import configure

    settings_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    if port is not None:
        settings_ = settings_.model_copy(update={"console": settings_.console.model_copy(update={"port": port})})
    configure(settings_.log)
    require_console()
    from worker.api.parts import Parts
    from worker.api.server import serve
    from worker.console.app import make_console

    app = make_console(Parts(settings_))

    def started(address: str) -> None:
        say(f"The console is at {address}")
        if code := app.state.first_code.code:
            say(f"Nobody has an account yet. Make the first one, an admin, here, once: {address}/setup#{code}")

    serve(app, settings_.console, started)


def require_console() -> None:
    """
    Raises:
        ConfigError: what the console needs is not installed.
    """
    try:
        import worker.api.server
        import worker.console.app  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the console needs the extra 'console': pip install 'facestream[console]' ({error})"
        ) from None
