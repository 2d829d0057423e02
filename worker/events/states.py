"""Where the state of the cameras' sightings is kept, for whoever reads a camera next."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from worker.logs import get_logger
from worker.redis.client import Client
from worker.redis.errors import is_final, reply_of
from worker.redis.keys import fleet_key
from worker.redis.script import lua

State = Mapping[str, Any]
"""Of a camera's sightings, see :mod:`worker.recognition.sighting`."""

_log = get_logger(__name__)

_EXPIRES_AFTER_LINGER_S: Final = 300.0

_KEEP: Final = lua("worker.events", "keep")


class SightingStates(Protocol):
    """A place for states. Both methods raise ``RedisError`` where Redis does not answer."""

    def keep_state(self, camera_id: str, epoch: int, state: State | None) -> None:
        """Replaces the state of the camera; None: there is none any more."""

    def load_state(self, camera_id: str) -> dict[str, Any] | None:
        """What was kept last."""


class RedisStates:
    """The states of the cameras of ``fleet``; each expires some minutes after its sightings would have ended."""

    def __init__(self, client: Client, fleet: str, linger_s: float) -> None:
        self._client = client
        self._fleet = fleet
        self._expires_ms = int((linger_s + _EXPIRES_AFTER_LINGER_S) * 1000)

    def keep_state(self, camera_id: str, epoch: int, state: State | None) -> None:
        """Replaces the state of the camera, unless it was written with a higher epoch; None: there is none any more.

        Raises:
            RedisError: it is not known to be kept.
        """
        text = "" if state is None else json.dumps(state)
        _KEEP(self._client, [self._key(camera_id)], [epoch, text, self._expires_ms])

    def load_state(self, camera_id: str) -> dict[str, Any] | None:
        """What was kept last; None: nothing, or nothing that can be read.

        Raises:
            RedisError: Redis cannot be asked.
        """
        text = self._client.hget(self._key(camera_id), "state")
        try:
            state = json.loads(text) if text else None
        except ValueError:
            return None
        return state if isinstance(state, dict) else None

    def _key(self, camera_id: str) -> str:
        return fleet_key(self._fleet, f"sightings:{camera_id}")


@dataclass(frozen=True, slots=True)
class _Unwritten:
    epoch: int
    state: State | None
    on_kept: tuple[Callable[[], None], ...]


class PendingStates:
    """The newest state of each camera that is yet to be written. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwritten: dict[str, _Unwritten] = {}

    def __len__(self) -> int:
        return len(self._unwritten)

    def put(self, camera_id: str, epoch: int, state: State | None, on_kept: Callable[[], None]) -> None:
        """In place of an older one of the camera; ``on_kept`` is called when this or a newer one is written."""
        with self._lock:
            older = self._unwritten.get(camera_id)
            self._unwritten[camera_id] = _Unwritten(epoch, state, (*(older.on_kept if older else ()), on_kept))

    def drop(self, camera_id: str) -> None:
        """Does not write the state of this camera after all."""
        with self._lock:
            self._unwritten.pop(camera_id, None)

    def write(self, states: SightingStates) -> None:
        """Writes all that there are. A state that is refused for good is given up: the events must not wait for it.

        Raises:
            RedisError: some were not written; they stay.
        """
        for camera_id, unwritten in list(self._unwritten.items()):
            try:
                states.keep_state(camera_id, unwritten.epoch, unwritten.state)
            except RedisError as error:
                if not is_final(error):
                    raise
                _log.error("state of sightings cannot be kept", camera_id=camera_id, reason=reply_of(error))
            with self._lock:
                newest = self._unwritten.get(camera_id)
                if newest is unwritten:
                    del self._unwritten[camera_id]
                elif newest is not None:
                    rest = newest.on_kept[len(unwritten.on_kept) :]
                    self._unwritten[camera_id] = _Unwritten(newest.epoch, newest.state, rest)
            for callback in unwritten.on_kept:
                callback()
