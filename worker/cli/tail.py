"""``facestream tail``: follow the events."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, ConfigFile, print_json, quiet_logs
from worker.cli.redis_options import ConsumerName, RedisUrl, StreamName, redis_settings
from worker.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(tail)


def tail(
    redis: RedisUrl = None,
    stream: StreamName = None,
    start: Annotated[
        str, typer.Option("--from", help="'$' for new events only, '0' for all that are kept, or an entry id.")
    ] = "$",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after this many events.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for further events; --no-follow ends at the last one.")] = True,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Read as a consumer of this group, which remembers what was printed."),
    ] = None,
    consumer: ConsumerName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Print events as they land in the stream, as a table or --json."""
    from worker.events.codec import encode

    if consumer and not group:
        raise ConfigError("--consumer is a name within a group: give --group as well")
    quiet_logs()
    settings = redis_settings(config, redis, stream)
    rows = 0

    def show(event: Any) -> None:
        nonlocal rows
        if json_output:
            print_json(encode(event))
            return
        if not rows:
            typer.echo(table_header())
        rows += 1
        typer.echo(table_row(event))

    if group:
        _show_group(settings, group, consumer, start, follow, count, show)
    else:
        for event in _first(_all_events(settings, start, follow), count):
            show(event)
    return 0


def _all_events(settings: Any, start: str, follow: bool) -> Iterator[Any]:
    from worker.events.consumer.tail import read_events
    from worker.redis.client import connect

    client = connect(settings, read_only=True)
    for _entry_id, event in read_events(client, settings.stream, start=start, follow=follow):
        yield event


def _show_group(
    settings: Any,
    group: str,
    consumer: str | None,
    start: str,
    follow: bool,
    count: int | None,
    show: Callable[[Any], None],
) -> None:
    from worker.events.consumer.blocking import Consumer

    shown = 0
    with Consumer(settings, settings.stream, group=group, consumer=consumer, start=start) as reader:
        while shown != count:
            delivery = reader.poll(1.0 if follow else 0.0)
            if delivery is not None:
                show(delivery.event)
                reader.done(delivery)
                shown += 1
            elif not follow:
                return


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
