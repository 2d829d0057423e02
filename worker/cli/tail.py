"""``facestream tail``: follow the events."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, print_json, quiet_logs


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(tail)


def tail(
    redis: Annotated[str | None, typer.Option("--redis", metavar="URL", help="Where the events are.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Key of the event stream.")] = None,
    start: Annotated[
        str, typer.Option("--from", help="'$' for new events only, '0' for all that are kept, or an entry id.")
    ] = "$",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after this many events.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for further events; --no-follow ends at the last one.")] = True,
    json_output: AsJson = False,
) -> int:
    """Print events as they land in the stream, as a table or --json."""
    from worker.config import load_config
    from worker.events import encode
    from worker.redis_client import connect
    from worker.tail import read_events

    quiet_logs()
    flags = {"url": redis, "stream": stream}
    config = load_config(None, {"redis": {key: value for key, value in flags.items() if value is not None}}).redis
    client = connect(config, read_only=True)
    entries = read_events(client, config.stream, start=start, follow=follow)
    if not json_output:
        typer.echo(table_header())
    for _entry_id, event in _first(entries, count):
        if json_output:
            print_json(encode(event))
        else:
            typer.echo(table_row(event))
    return 0


def _first(entries: Iterator[Any], count: int | None) -> Iterator[Any]:
    for number, entry in enumerate(entries, start=1):
        yield entry
        if number == count:
            return


def table_header() -> str:
    """Column heads of :func:`table_row`."""
    return f"{'captured at':<24}  {'camera':<16}  {'event':<9}  {'who':<24}  {'cosine':>6}  {'quality':>7}  sighting"


def table_row(event: Any) -> str:
    """One event as a line of a table."""
    who = event.identity_name or "(unknown)"
    cosine = "" if event.similarity is None else f"{event.similarity:.3f}"
    quality = "" if event.quality is None else f"{event.quality:.2f}"
    when = event.captured_at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return (
        f"{when:<24}  {event.camera_id:<16}  {event.type:<9}  {who:<24}  {cosine:>6}  {quality:>7}  {event.sighting_id}"
    )
