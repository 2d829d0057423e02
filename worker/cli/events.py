"""``facestream events``: what consumer groups could not handle."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, ConfigFile, print_json, quiet_logs
from worker.cli.redis_options import RedisUrl, StreamName, redis_settings

_app = typer.Typer(help="Events that were given up by a consumer group.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(_app, name="events")


@_app.callback()
def _family() -> None:
    pass


@_app.command()
def dead(
    redis: RedisUrl = None,
    stream: StreamName = None,
    group: Annotated[str | None, typer.Option("--group", help="Only of this group.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Put them back into their stream.")] = False,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """List the dead letters with their reasons; --retry puts each back, for its group to try again."""
    from worker.errors import SinkError
    from worker.events.consumer.group import dead_letters, put_back
    from worker.redis.client import REDIS_ERRORS, connect, explain

    quiet_logs()
    settings = redis_settings(config, redis, stream)
    client = connect(settings, read_only=not retry)
    found = 0
    try:
        for letter in dead_letters(client, settings.stream, group):
            found += 1
            if json_output:
                print_json(asdict(letter))
            else:
                typer.echo(_line(letter))
            if retry:
                put_back(client, letter)
    except REDIS_ERRORS as error:
        raise SinkError(explain(error, settings)) from None
    finally:
        client.close()
    if not json_output:
        typer.echo(f"{found} dead letters" + (" put back" if retry else ""))


def _line(letter: Any) -> str:
    return (
        f"{letter.letter_id}  {letter.group}  {letter.fields.get('camera_id', '?')}  {letter.event_id or '?'}  "
        f"{letter.deliveries} deliveries: {letter.reason}"
    )
