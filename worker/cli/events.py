"""``facestream tail``, ``forward`` and ``events``: read the events that workers have published."""

import dataclasses
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import signals
from worker.cli.options import (
    AsJson,
    ConfigFile,
    RedisUrl,
    StreamName,
    command_group,
    quiet_logs,
    redis_settings,
)
from worker.cli.screen import count_of, fit, padded, print_json, say, say_lines, screen_width, time_text
from worker.errors import ConfigError

if TYPE_CHECKING:
    from worker.config import RedisConfig
    from worker.events.consumer.group import DeadLetter
    from worker.types import Event

_TAKE_OVER_AFTER_S = 120.0
_MAX_DELIVERIES = 100
_RETRY_LONGEST_S = 300.0

ConsumerName = Annotated[
    str | None, typer.Option("--consumer", help="Name within the group; without one, a name is made up.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("tail")(tail)
    app.command("forward")(forward)
    group = command_group(app, "events", "Events that were given up by a consumer group.")
    group.command("dead")(list_dead)


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

    def show(event: "Event") -> None:
        nonlocal rows
        if json_output:
            print_json(encode(event))
            return
        if not rows:
            say_lines(table_header())
        rows += 1
        say_lines(table_row(event))

    if group:
        _show_group(settings, group, consumer, start, follow, count, show)
    else:
        for event in itertools.islice(_all_events(settings, start, follow), count):
            show(event)
    return 0


def _all_events(settings: "RedisConfig", start: str, follow: bool) -> "Iterator[Event]":
    from worker.events.consumer.tail import read_events
    from worker.redis.client import connect

    client = connect(settings, read_only=True)
    for _entry_id, event in read_events(client, settings.stream, start=start, follow=follow):
        yield event


def _show_group(
    settings: "RedisConfig",
    group: str,
    consumer: str | None,
    start: str,
    follow: bool,
    count: int | None,
    show: "Callable[[Event], None]",
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


def table_header() -> str:
    """Column heads of :func:`table_row`."""
    return fit(_columns("captured at", "camera", "event", "who", "cosine", "quality", "sighting"), screen_width())


def table_row(event: "Event") -> str:
    """One event as a line of a table, or on more lines if the screen is narrow."""
    who = event.identity_name or "(unknown)"
    cosine = "" if event.similarity is None else f"{event.similarity:.3f}"
    quality = "" if event.quality is None else f"{event.quality:.2f}"
    when = time_text(event.captured_at, "milliseconds")
    columns = _columns(when, event.camera_id, event.type, who, cosine, quality, event.sighting_id)
    return fit(columns, screen_width())


def _columns(when: str, camera: str, event: str, who: str, cosine: str, quality: str, sighting: str) -> list[str]:
    columns = [padded(when, 29), padded(camera, 16), padded(event, 9), padded(who, 24)]
    return [*columns, f"{cosine:>6}", f"{quality:>7}", sighting]


def forward(
    group: Annotated[str, typer.Option("--group", help="Consumer group; all forwarders to one receiver share it.")],
    url: Annotated[str, typer.Option("--url", help="Where events are posted: https://...")],
    secret_file: Annotated[Path, typer.Option("--secret-file", help="File with the secret that signs requests.")],
    redis: RedisUrl = None,
    stream: StreamName = None,
    consumer: ConsumerName = None,
    start: Annotated[
        str, typer.Option("--from", help="Where a new group begins: '0' (all that is kept) or '$' (from now on).")
    ] = "$",
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.1, max=60, help="For one request.")] = 10.0,
    ca_file: Annotated[Path | None, typer.Option("--ca-file", help="Certificates of the receiver's own CA.")] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Send over http:// to other machines too.")] = False,
    config: ConfigFile = None,
) -> int:
    """Post each event, signed, to a webhook. Ctrl-C and SIGTERM end it once the event at hand is done."""
    from worker.events.consumer.blocking import Consumer
    from worker.events.consumer.webhook import Webhook, read_secret
    from worker.events.consumer.webhook import forward as forward_events

    quiet_logs("info")
    stop = threading.Event()
    settings = redis_settings(config, redis, stream)
    webhook = Webhook(
        url, read_secret(secret_file), timeout_s=timeout_s, ca_file=ca_file, allow_http=allow_http, stop=stop
    )
    with Consumer(
        settings,
        settings.stream,
        group=group,
        consumer=consumer,
        start=start,
        max_deliveries=_MAX_DELIVERIES,
        retry_longest_s=_RETRY_LONGEST_S,
        take_over_after_s=_TAKE_OVER_AFTER_S,
    ) as events:
        numbers: list[int] = []

        def on_signal(number: int, _frame: object) -> None:
            numbers.append(number)
            stop.set()

        for number in signals.EXIT_CODES:
            signal.signal(number, on_signal)
        if (missed := signals.received()) is not None:
            on_signal(missed, None)
        say(
            f"forwarding the events of {settings.stream} to {webhook.receiver} as group {group}; Ctrl-C ends it",
            err=True,
        )
        forward_events(events, webhook, stop)
    webhook.close()
    say(f"stopped: {count_of(events.counts.handled, 'event')} forwarded", err=True)
    return signals.EXIT_CODES[signal.Signals(numbers[0])] if numbers else 0


def list_dead(
    redis: RedisUrl = None,
    stream: StreamName = None,
    group: Annotated[str | None, typer.Option("--group", help="Only of this group.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Put them back into their stream.")] = False,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """List the dead letters with their reasons; --retry puts each back, for its group to try again."""
    from worker.events.consumer.group import dead_letters, put_back
    from worker.redis.client import connect
    from worker.redis.errors import told_redis_errors

    quiet_logs()
    settings = redis_settings(config, redis, stream)
    found = 0
    with closing(connect(settings, read_only=not retry)) as client, told_redis_errors(settings):
        for letter in dead_letters(client, settings.stream, group):
            found += 1
            if json_output:
                print_json(dataclasses.asdict(letter))
            else:
                say_lines(_letter_row(letter))
            if retry:
                put_back(client, letter)
    if not json_output:
        say(count_of(found, "dead letter") + (" put back" if retry else ""))


def _letter_row(letter: "DeadLetter") -> str:
    deliveries = count_of(letter.deliveries, "delivery", "deliveries")
    columns = [letter.letter_id, letter.group, letter.fields.get("camera_id", "?"), letter.event_id or "?"]
    return fit([*columns, f"{deliveries}: {letter.reason}"], screen_width())
