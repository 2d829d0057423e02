"""Who reads which camera: leases in Redis that are renewed by beats and run out with their worker.

A lease is a camera, its owner, and an epoch that rises with each owner: ``max(stored + 1, time of Redis in ms)``. All
of it is decided by scripts inside Redis (the ``.lua`` files beside this module), one call a beat. ``docs/fleet.md``
explains the rules.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.config import FleetConfig
from worker.redis.client import Client
from worker.redis.keys import fleet_keys
from worker.redis.script import Script, lua
from worker.wire import as_text

Stage = Literal["kept", "leaving", "yielded"]
"""Of a lease that is held: to be kept, being given up, or being given up so that another worker gets it."""

UNKNOWN_WEIGHT: Final = -1


@dataclass(frozen=True, slots=True)
class Lease:
    """A camera that a worker holds, as of ``revision`` of its definition."""

    camera_id: str
    epoch: int
    revision: int
    stage: Stage = "kept"


@dataclass(frozen=True, slots=True)
class Claim:
    """A camera that was gained; ``document`` is its definition, as JSON."""

    camera_id: str
    epoch: int
    revision: int
    document: str


@dataclass(frozen=True, slots=True)
class Change:
    """A held camera whose definition has changed; ``document`` is None where it was removed."""

    camera_id: str
    revision: int
    paused: bool
    document: str | None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker is told at its beat.

    ``lost``: others own these by now. ``unknown``: Redis does not know the definitions that the worker goes by.
    ``surplus``: how many of its cameras it should give up. ``incarnation`` is another one after Redis came back
    empty; ``change`` is the number of the last change to any camera. ``unowned`` of ``cameras`` are read by none of
    ``workers``.
    """

    incarnation: str
    change: int
    workers: int
    cameras: int
    unowned: int
    surplus: int
    claimed: tuple[Claim, ...]
    lost: tuple[str, ...]
    changed: tuple[Change, ...]
    unknown: tuple[str, ...]


class Leases:
    """The leases of ``worker``, a name that no other worker has or had. Not for several threads.

    All methods raise ``RedisError`` or ``OSError``; then it is not known whether the call took
    effect, and it can be repeated.
    """

    def __init__(self, client: Client, config: FleetConfig, worker: str) -> None:
        self.worker = worker
        self._client = client
        self._keys = fleet_keys(config.name)
        self._lease_ms = round(1000 * config.lease_s)
        self._beat_script = lua("worker.fleet", "fleet", "beat")
        self._release_script = lua("worker.fleet", "fleet", "release")

    def beat(
        self,
        held: Sequence[Lease],
        *,
        max_cameras: int,
        most_claims: int,
        most_yields: int = 2,
        weight: int | None = None,
        take_over: bool = True,
        refused: Iterable[str] = (),
    ) -> Beat:
        """The worker lives, and holds ``held``.

        It holds ``max_cameras`` at most (0: it claims nothing more), ``weight`` is how many it could carry (None: not
        known yet), ``most_claims`` and ``most_yields`` how many it takes, and gives to others, now. Without
        ``take_over`` it claims no camera whose owner may only have been cut off, as it was itself; ``refused`` it does
        not claim at all.
        """
        reply = self._call(
            self._beat_script,
            held=[(lease.camera_id, lease.epoch, lease.revision, lease.stage) for lease in held],
            max_cameras=max_cameras,
            most_claims=most_claims,
            most_yields=most_yields,
            weight=UNKNOWN_WEIGHT if weight is None else weight,
            take_over=take_over,
            refused=list(refused),
        )
        incarnation, change, workers, cameras, unowned, surplus, claimed, lost, changed, unknown = reply
        return Beat(
            as_text(incarnation), change, workers, cameras, unowned, surplus,
            tuple(Claim(as_text(row[0]), row[1], row[2], as_text(row[3])) for row in claimed),
            tuple(map(as_text, lost)),
            tuple(Change(as_text(row[0]), row[1], bool(row[2]), as_text(row[3]) or None) for row in changed),
            tuple(map(as_text, unknown)),
        )  # fmt: skip

    def release(self, epochs: Mapping[str, int]) -> None:
        """Hands back the cameras of ``epochs``; those that others own by now stay theirs."""
        self._call(self._release_script, cameras=list(epochs.items()), leave=False)

    def leave(self, epochs: Mapping[str, int]) -> None:
        """Hands back the cameras of ``epochs``, and takes the worker out of the fleet."""
        self._call(self._release_script, cameras=list(epochs.items()), leave=True)

    def _call(self, script: Script, **ask: Any) -> Any:
        ask |= {"worker": self.worker, "lease_ms": self._lease_ms, "incarnation": new_incarnation()}
        return script(self._client, self._keys, [json.dumps(ask, separators=(",", ":"))])


def new_incarnation() -> str:
    """The name that this worker gives to a Redis that it finds empty."""
    return secrets.token_hex(8)
