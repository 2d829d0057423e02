"""Options of the commands that read events, and the settings that come of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis", metavar="URL", help="Where the events are: redis://, rediss://, redis+sentinel://, redis+cluster://."
    ),
]
StreamName = Annotated[
    str | None, typer.Option("--stream", help="Key of the event stream; with '{camera_id}': those of all cameras.")
]
ConsumerName = Annotated[
    str | None, typer.Option("--consumer", help="Name within the group; without one, a name is made up.")
]


def redis_settings(config: Path | None, url: str | None, stream: str | None) -> Any:
    """The section ``redis`` of the configuration, with what the command line says.

    Raises:
        ConfigError: unreadable file, or a wrong field.
    """
    from worker.config import load_config

    given = {name: value for name, value in {"url": url, "stream": stream}.items() if value is not None}
    return load_config(config, {"redis": given}).redis
