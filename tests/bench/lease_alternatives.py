"""What a consumer group does as a lease on cameras, on a real Redis; ``docs/decisions/leases.md`` draws the conclusion.

    python -m tests.bench.lease_alternatives

A stream holds one entry for each camera, and to own a camera is to have its entry in one's pending list. Prints what
happens to owner and delivery count, as a Markdown table, and what a renewal costs beside the script of this project.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_answers import entries_of
from tests.support.redis_servers import RedisServer
from worker.config import FleetConfig
from worker.fleet.leases import Lease, Leases
from worker.fleet.registry import CameraRegistry, Definition

STREAM, GROUP = "cameras", "fleet"
ROUNDS = 2000
CAMERAS = 10


class Group:
    """One camera in a consumer group."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        client.delete(STREAM)
        self.entry: Any = client.xadd(STREAM, {"camera": "door"})
        client.xgroup_create(STREAM, GROUP, id="0")
        client.xreadgroup(GROUP, "a", {STREAM: ">"})

    def owner_and_count(self) -> str:
        pending: Any = self.client.xpending_range(STREAM, GROUP, "-", "+", 1)
        return f"{pending[0]['consumer'].decode()}, {pending[0]['times_delivered']}" if pending else "nobody"

    def claim(self, consumer: str, **options: Any) -> None:
        self.client.xclaim(STREAM, GROUP, consumer, 0, [self.entry], justid=True, **options)


def row(what: str, group: Group, before: str) -> None:
    sys.stdout.write(f"| {what} | {before} | {group.owner_and_count()} |\n")


def owners_and_counts(client: redis.Redis) -> None:
    group = Group(client)
    before = group.owner_and_count()
    group.claim("b")
    row("`b` takes over with `XCLAIM JUSTID`", group, before)
    before = group.owner_and_count()
    group.claim("a")
    row("`a` wakes up and renews with the `XCLAIM JUSTID` that is its heartbeat", group, before)
    before = group.owner_and_count()
    client.xreadgroup(GROUP, "a", {STREAM: "0"})
    row("`a` reads its own pending list", group, before)
    before = group.owner_and_count()
    client.xack(STREAM, GROUP, group.entry)
    group.claim("b", force=True)
    row("`a` hands back with `XACK`, `b` takes it with `XCLAIM FORCE`", group, before)
    before = group.owner_and_count()
    client.flushall()
    group = Group(client)
    row("Redis comes back empty, and the camera is registered anew", group, before)
    client.flushall()
    for number in range(CAMERAS):
        client.xadd(STREAM, {"camera": number})
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, "dead", {STREAM: ">"})
    client.xautoclaim(STREAM, GROUP, "first", 0, count=100, justid=True)
    shares = {consumer["name"].decode(): consumer["pending"] for consumer in client.xinfo_consumers(STREAM, GROUP)}
    held = ", ".join(f"{name}: {count}" for name, count in shares.items())
    sys.stdout.write(f"| the first of several workers asks `XAUTOCLAIM` | dead: {CAMERAS} | {held} |\n")


def microseconds(client: redis.Redis, command: str) -> float:
    return float(client.info("commandstats")[f"cmdstat_{command}"]["usec_per_call"])


def costs(client: redis.Redis) -> None:
    ids: Any = [entry for entry, _ in entries_of(client, STREAM)]
    client.config_resetstat()
    for _ in range(ROUNDS):
        client.xclaim(STREAM, GROUP, "first", 0, ids, justid=True)
    claim_us = microseconds(client, "xclaim")
    fleet = FleetConfig()
    CameraRegistry(client, fleet).seed(Definition(f"c{number}", 1, False, "{}") for number in range(CAMERAS))
    client.hset("{facestream}:state", "claims_from_ms", 0)
    leases = Leases(client, fleet, "worker")
    claimed = leases.beat([], max_cameras=CAMERAS, most_claims=CAMERAS).claimed
    held = [Lease(claim.camera_id, claim.epoch, claim.revision) for claim in claimed]
    client.config_resetstat()
    for _ in range(ROUNDS):
        leases.beat(held, max_cameras=CAMERAS, most_claims=CAMERAS)
    sys.stdout.write(f"\n`XCLAIM JUSTID` of {CAMERAS} cameras: {claim_us:.0f} us inside Redis; ")
    sys.stdout.write(f"the script's beat with {len(held)}: {microseconds(client, 'evalsha'):.0f} us\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            with redis.Redis.from_url(server.url) as client:
                sys.stdout.write(f"Redis {client.info('server')['redis_version']}\n\n")
                sys.stdout.write("| step | owner, delivery count before | after |\n|---|---|---|\n")
                owners_and_counts(client)
                costs(client)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
