"""Where the states of the cameras' sightings are kept, for the worker that reads a camera next.

A state tells which events were made. So it is written after the events that were queued before it: one that ran ahead
of them would have its reader take them for told.
"""

import json
import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, cast

from redis.exceptions import RedisError

from worker.config import RedisConfig
from worker.events.outbox import Outbox
from worker.events.publisher import Publisher
from worker.events.spool import DamagedError, Spool, StateTable
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import REDIS_ERRORS, Client
from worker.redis.errors import explain, is_final, reply_of
from worker.redis.keys import fleet_key
from worker.redis.script import lua

SightingState: TypeAlias = Mapping[str, Any]
"""The state of a camera's sightings as JSON values, see :mod:`worker.recognition.saved`."""

_log = get_logger(__name__)

_EXPIRES_AFTER_LINGER_S: Final = 300.0
_LONGEST_STATE: Final = 32 * 2**20
"""Bytes: a thousand people with the longest vectors need less."""

_KEEP: Final = lua("worker.events", "keep")
_LOAD: Final = lua("worker.events", "load")


class SightingStates(Protocol):
    """A place for the state of each camera. Nothing is raised: where a state is lost, sightings begin anew."""

    def keep(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        """Replaces the state of the camera; None: there is none any more. Does not wait for Redis."""

    def discard(self, camera_id: str) -> None:
        """Another worker keeps the state of this camera from now on: one that was not written yet is not written."""

    def load(self, camera_id: str) -> dict[str, Any] | None:
        """The state in which the camera was left, None without one."""


class LocalStates:
    """States in the file of the outbox, so that they are written behind the events; nothing is kept without a file."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def keep(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        """Replaces the state of the camera, if the disk takes it; None: there is none any more."""
        if self._outbox.failure:
            # Events wait in memory, and would be lost in a crash that this state survives.
            return
        text = None if state is None else json.dumps(state)
        self._outbox.with_file(lambda spool: StateTable(spool).save(camera_id, epoch, text))

    def discard(self, camera_id: str) -> None:
        """Nothing waits to be written here."""

    def load(self, camera_id: str) -> dict[str, Any] | None:
        """What was kept last, None if there is nothing that can be read."""
        return self._outbox.with_file(partial(_read, camera_id))


def _read(camera_id: str, spool: Spool) -> dict[str, Any] | None:
    try:
        return _parsed(StateTable(spool).load(camera_id))
    except (sqlite3.OperationalError, OSError, DamagedError, ValueError) as error:
        _log.warning("sightings begin anew: their state cannot be read", camera_id=camera_id, reason=str(error))
        return None


class RedisStates:
    """The states of the cameras of ``fleet``; each expires some minutes after its sightings would have ended."""

    def __init__(self, client: Client, fleet: str, linger_s: float, observer: Observer | None = None) -> None:
        self._client = client
        self._fleet = fleet
        self._observer = observer or Observer()
        self._expires_ms = int((linger_s + _EXPIRES_AFTER_LINGER_S) * 1000)

    def keep(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        """Replaces the state of the camera, unless it was written with a higher epoch; None: there is none any more.

        Raises:
            RedisError: it is not known to be kept.
        """
        text = "" if state is None else json.dumps(state)
        _KEEP(self._client, [self._key(camera_id)], [epoch, text, self._expires_ms])

    def load(self, camera_id: str) -> dict[str, Any] | None:
        """What was kept last; None: nothing, or nothing that can be read, which the log and a metric say.

        Raises:
            RedisError: Redis cannot be asked.
        """
        key = self._key(camera_id)
        try:
            return _parsed(self._text(key))
        except ValueError as error:
            self._observer.entry_refused("state")
            _log.warning(
                "sightings begin anew: their state in Redis cannot be read", camera_id=camera_id, reason=str(error)
            )
            return None

    def _text(self, key: str) -> str | bytes | None:
        length, text = _LOAD(self._client, [key], [_LONGEST_STATE])
        if length > _LONGEST_STATE:
            raise ValueError(f"it has {length} bytes, more than {_LONGEST_STATE}")
        return cast("str | bytes", text)

    def _key(self, camera_id: str) -> str:
        return fleet_key(self._fleet, f"sightings:{camera_id}")


class QueuedStates:
    """States in Redis, each written by the publisher's thread behind the events that were queued before it.

    Of the states of a camera that were not written yet, only the newest is.
    """

    def __init__(self, states: RedisStates, publisher: Publisher, config: RedisConfig) -> None:
        self._states = states
        self._publisher = publisher
        self._config = config

    def keep(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        """Replaces the state of the camera in a moment; None: there is none any more."""
        self._publisher.afterwards(camera_id, partial(self._write, camera_id, epoch, state))

    def discard(self, camera_id: str) -> None:
        """Does not write what :meth:`keep` was given last, unless that has happened."""
        self._publisher.afterwards(camera_id, None)

    def load(self, camera_id: str) -> dict[str, Any] | None:
        """What was written last, None without it; may wait for Redis (``redis.timeout_s``)."""
        try:
            return self._states.load(camera_id)
        except REDIS_ERRORS as error:
            _log.warning("sightings begin anew", camera_id=camera_id, reason=explain(error, self._config))
            return None

    def _write(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        try:
            self._states.keep(camera_id, epoch, state)
        except RedisError as error:
            if not is_final(error):
                raise
            # It is given up: the other states, and the events, must not wait for it.
            _log.error("state of sightings cannot be kept", camera_id=camera_id, reason=reply_of(error))


def _parsed(text: str | bytes | None) -> dict[str, Any] | None:
    """
    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        state = json.loads(text) if text else None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if state is not None and not isinstance(state, dict):
        raise ValueError("it is not a JSON object")
    return state
