"""The cameras that a fleet is to read, defined in Redis, and the copy of them that workers keep.

A definition has a revision, which rises with each change; a removed camera keeps one, as a tombstone, for a week.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from worker.config import CameraConfig, FleetConfig
from worker.errors import ConfigError, FleetError
from worker.fleet.leases import new_incarnation
from worker.redaction import first_problem
from worker.redis.client import Client
from worker.redis.keys import fleet_keys
from worker.redis.script import lua
from worker.video.addresses import parse_address
from worker.wire import as_text

PAGE: Final = 200
"""So many cameras are read or written at once: Redis does nothing else meanwhile."""

_TOMBSTONE_S: Final = 7 * 86_400.0
_LOCAL_FIELDS: Final = frozenset({"password_file"})
"""Fields of a camera that mean a file of one machine."""
_AGAIN: Final = "define it again with 'facestream camera add', and find out who else writes to this Redis"


@dataclass(frozen=True, slots=True)
class Definition:
    """A camera as it is defined; ``document``, JSON that may hold credentials, is None where it was removed."""

    camera_id: str
    revision: int
    paused: bool
    document: str | None

    def __repr__(self) -> str:
        return f"Definition({self.camera_id}, revision {self.revision})"


@dataclass(frozen=True, slots=True)
class Registered:
    """A definition, the number of its last change, and who owns the camera (empty: nobody) as of which epoch."""

    definition: Definition
    change: int
    epoch: int
    owner: str

    @property
    def worker_id(self) -> str:
        """The owner's name as configured, without the part that tells its processes apart."""
        return self.owner.rpartition(":")[0]


class StaleDefinitionError(FleetError):
    """A camera was changed since the caller looked at it; nothing was done."""


class CameraRegistry:
    """The cameras of the fleet ``config.name``. All methods that use Redis raise ``RedisError`` or ``OSError``."""

    def __init__(self, client: Client, config: FleetConfig) -> None:
        self._client = client
        self._keys = fleet_keys(config.name)
        self._lease_ms = round(1000 * config.lease_s)
        self._register_script = lua("worker.fleet", "fleet", "register")
        self._read_script = lua("worker.fleet", "fleet", "read")

    def add(
        self, camera: CameraConfig, *, fresh: bool = False, expected: int | None = None
    ) -> Literal["added", "changed", "unchanged"]:
        """Defines ``camera``, also where it is defined already, except if ``fresh``; the worker that reads it then
        opens it again. ``expected``, here and below: the revision that the change is meant for.

        Raises:
            ConfigError: no worker of a fleet could read it.
            FleetError: it is not ``fresh``.
            StaleDefinitionError: it has another revision than ``expected``.
        """
        require_network(camera)
        document = encode_camera(camera)
        return cast(
            Literal["added", "changed", "unchanged"],
            self._change("add", camera.id, expected, document=document, fresh=fresh),
        )

    def remove(self, camera_id: str, *, expected: int | None = None) -> bool:
        """No worker reads the camera any more; returns whether there is such a camera."""
        return self._change("remove", camera_id, expected) != "missing"

    def pause(self, camera_id: str, *, expected: int | None = None) -> bool:
        """No worker reads the camera until it is resumed; returns whether there is such a camera."""
        return self._change("pause", camera_id, expected) != "missing"

    def resume(self, camera_id: str, *, expected: int | None = None) -> bool:
        """The camera is read again; returns whether there is such a camera."""
        return self._change("resume", camera_id, expected) != "missing"

    def seed(self, definitions: Iterable[Definition]) -> int:
        """Tells Redis the definitions that it does not know, or knows only in an older revision. Returns how many."""
        seeds = [
            {"kind": "seed", "id": known.camera_id, "revision": known.revision, "paused": known.paused,
             "document": known.document or ""}
            for known in definitions
        ]  # fmt: skip
        return self._register(*seeds).count("seeded")

    def read(self, after_change: int = 0) -> list[Registered]:
        """Cameras and tombstones that changed after that change, in the order of their changes, a page at most."""
        rows = self._read_script(self._client, self._keys, [after_change, PAGE])
        return [
            Registered(
                Definition(as_text(camera), revision, bool(paused), as_text(document) or None),
                change,
                epoch,
                as_text(owner),
            )
            for camera, change, revision, paused, document, epoch, owner in rows
        ]

    def cameras(self) -> list[Registered]:
        """All cameras, in the order of their ids."""
        found: dict[str, Registered] = {}
        after = 0
        while page := self.read(after):
            found |= {row.definition.camera_id: row for row in page}
            after = page[-1].change
        return [row for _, row in sorted(found.items()) if row.definition.document is not None]

    def _change(self, kind: str, camera_id: str, expected: int | None, **more: Any) -> str:
        told = {} if expected is None else {"expected": expected}
        [outcome] = self._register({"kind": kind, "id": camera_id, **more, **told})
        if outcome == "exists":
            raise FleetError(f"the fleet has a camera {camera_id} already: choose another name, or change that one")
        if outcome == "stale":
            raise StaleDefinitionError(f"camera {camera_id} was changed meanwhile: look at it again, and decide anew")
        return outcome

    def _register(self, *changes: dict[str, Any]) -> list[str]:
        ask = {
            "changes": changes,
            "lease_ms": self._lease_ms,
            "incarnation": new_incarnation(),
            "tombstone_ms": round(1000 * _TOMBSTONE_S),
        }
        reply = self._register_script(self._client, self._keys, [json.dumps(ask)])
        return [as_text(outcome) for outcome in reply]


class RegistryCopy:
    """What a worker remembers of the registry, so that a Redis that came back empty, or older, can be told.

    Brought up to date page by page, one for each beat, so that a thousand workers do not read all at once.
    """

    def __init__(self, registry: CameraRegistry) -> None:
        self._registry = registry
        self._known: dict[str, Definition] = {}
        self._incarnation = ""
        self._change = 0
        self._doubted: dict[str, Definition] = {}

    def __len__(self) -> int:
        return len(self._known)

    def follow(self, incarnation: str, change: int) -> None:
        """Takes a step towards ``change``, or towards a Redis that knows what is known here.

        Raises:
            RedisError, OSError: see :class:`CameraRegistry`; the step can be repeated.
        """
        if incarnation != self._incarnation or change < self._change:
            self._doubted = dict(self._known)
            self._incarnation, self._change = incarnation, 0
        if self._change < change:
            self._read_on()
        elif self._doubted:
            seeds = list(self._doubted.values())[:PAGE]
            self._registry.seed(seeds)
            for seed in seeds:
                del self._doubted[seed.camera_id]

    def forget(self) -> None:
        """Remembers nothing; others do."""
        self._known.clear()
        self._doubted.clear()
        self._change = 0

    def _read_on(self) -> None:
        page = self._registry.read(self._change)
        for row in page:
            known = self._known.get(row.definition.camera_id)
            if known is None or known.revision <= row.definition.revision:
                self._known[row.definition.camera_id] = row.definition
                self._doubted.pop(row.definition.camera_id, None)
        if page:
            self._change = page[-1].change


def encode_camera(camera: CameraConfig) -> str:
    """JSON of what differs from the defaults: the same for equal cameras, and readable for older workers.

    A file with a password was read by then. Its path would mean another file on another machine, so it is left out.
    """
    fields = camera.model_dump(mode="json", exclude_defaults=True, exclude=set(_LOCAL_FIELDS))
    fields["source"] = camera.source.get_secret_value()
    return json.dumps(fields, sort_keys=True, ensure_ascii=False)


def decode_camera(document: str, camera_id: str) -> CameraConfig:
    """The camera of :func:`encode_camera` that is defined as ``camera_id``; what a newer version has added is left out.

    Whoever can write to Redis can write a definition, so it may name nothing of this machine: no file, and no device.

    Raises:
        ConfigError: it is not the definition of this camera, or names a file or a device.
    """
    try:
        fields = json.loads(document)
        if local := sorted(_LOCAL_FIELDS & fields.keys()):
            raise ConfigError(f"its definition in Redis names a file of this machine ({', '.join(local)}): {_AGAIN}")
        camera = CameraConfig(**{name: value for name, value in fields.items() if name in CameraConfig.model_fields})
    except ValidationError as error:
        raise ConfigError(f"its definition in Redis is not valid ({first_problem(error)}): {_AGAIN}") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        # The texts of these errors may quote the source, and so its password.
        raise ConfigError(f"its definition in Redis cannot be read: {_AGAIN}") from None
    if camera.id != camera_id:
        raise ConfigError(f"its definition in Redis is that of {camera.id!r}: {_AGAIN}")
    require_network(camera)
    return camera


def why_unowned(registered: Registered) -> str:
    """Why nobody reads a camera that has no owner, in a word or two."""
    definition = registered.definition
    try:
        decode_camera(definition.document or "", definition.camera_id)
    except ConfigError:
        return "refused"
    return "paused" if definition.paused else "nobody reads it"


def require_network(camera: CameraConfig) -> None:
    """A fleet reads network streams only.

    Raises:
        ConfigError: a recording, a device, or no address at all.
    """
    address = parse_address(camera.source.get_secret_value())
    if address.kind == "device":
        raise ConfigError(f"source {address.label} belongs to one machine; a fleet reads network streams: rtsp://...")
    if address.kind != "network":
        raise ConfigError(
            f"source {address.label} is a recording, which each owner would read from its start; "
            "a fleet reads network streams (rtsp://...), and 'facestream run --source' reads recordings"
        )
