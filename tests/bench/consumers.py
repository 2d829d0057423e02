"""How many events a second one consumer handles, and what its group remembers of each.

python -m tests.bench.consumers [EVENTS]
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import redis
import typer

from tests.support.redis_servers import Server, redis_binary, running
from tests.support.sample_events import make_event
from worker.events.codec import encode
from worker.events.consumer.blocking import AsyncConsumer, Consumer

STREAM = "facestream:events"


def blocking(url: str, events: int) -> float:
    with Consumer(url, group="blocking") as consumer:
        begun_s = time.perf_counter()
        for number, _delivery in enumerate(consumer, start=1):
            if number == events:
                break
    return events / (time.perf_counter() - begun_s)


async def asynchronous(url: str, events: int) -> float:
    async with AsyncConsumer(url, group="asyncio") as consumer:
        number, begun_s = 0, time.perf_counter()
        async for _delivery in consumer:
            number += 1
            if number == events:
                break
    return events / (time.perf_counter() - begun_s)


def main(events: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(server := Server(redis_binary(), Path(folder))),
        redis.Redis.from_url(server.url) as client,
    ):
        with client.pipeline() as pipeline:
            for ordinal in range(events):
                pipeline.xadd(STREAM, {**encode(make_event(ordinal))})
            pipeline.execute()
        typer.echo(f"blocking: {blocking(server.url, events):.0f} events/s")
        typer.echo(f"asyncio: {asyncio.run(asynchronous(server.url, events)):.0f} events/s")
        memory = int(client.memory_usage(f"{{{STREAM}}}:handled:blocking", samples=0) or 0)
        typer.echo(f"memory of the group: {memory / events:.0f} bytes an event")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
