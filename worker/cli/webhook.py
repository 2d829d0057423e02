"""``facestream forward``: events to a webhook."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from worker import signals
from worker.cli.common import ConfigFile, quiet_logs
from worker.cli.redis_options import ConsumerName, RedisUrl, StreamName, redis_settings

_TAKE_OVER_AFTER_S = 120.0
_MAX_DELIVERIES = 100
_RETRY_LONGEST_S = 300.0


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(forward)


def forward(
    group: Annotated[str, typer.Option("--group", help="Consumer group; all forwarders of one receiver share it.")],
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
    """Post each event, signed, to a webhook; until Ctrl-C or SIGTERM, which finish the event at hand."""
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
        forward_events(events, webhook, stop)
    webhook.close()
    return signals.EXIT_CODES[signal.Signals(numbers[0])] if numbers else 0
