"""From the pipeline to Redis Streams: an outbox that never blocks its caller."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
import tenacity
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from worker.config import RedisConfig
from worker.events import encode
from worker.keys import event_stream
from worker.logs import get_logger
from worker.metrics import Observer
from worker.redis_client import explain
from worker.types import Event

_BATCH_EVENTS: Final = 256
_IDLE_S: Final = 1.0
_PROBE_EVERY_S: Final = 5.0
_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0
_REJECTED_RETRY_S: Final = 15.0
_CLOSING_RETRY_S: Final = 0.1
_DROP_LOG_EVERY_S: Final = 10.0

# Replies that time heals; after any other one somebody has to act.
_PASSING: Final = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
_PASSING_CODES: Final = ("MISCONF", "NOREPLICAS", "LOADING", "BUSY")

_log = get_logger(__name__)
_backoff = tenacity.wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_MAX_S)


@dataclass(slots=True)
class _Queued:
    event: Event
    received_monotonic_s: float | None


class Publisher:
    """Appends events to the stream in the order they were given, from a thread of its own.

    Delivery is at least once: where a reply is lost, an entry appears twice with the same ``event_id``. While Redis
    is away, or refuses, up to ``config.buffer_events`` events are kept and tried again; further ones are dropped and
    counted. A batch is one transaction, so that a refusal in its middle cannot change the order.

    From its thread, the publisher calls ``on_published`` with each event and the id of its entry, and ``heartbeat``
    about once a second, less often only while it waits for a reply (``config.timeout_s``).
    """

    def __init__(
        self,
        client: redis.Redis,
        config: RedisConfig,
        observer: Observer | None = None,
        *,
        on_published: Callable[[Event, str], None] | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._config = config
        self._observer = observer or Observer()
        self._on_published = on_published
        self._heartbeat = heartbeat
        self._waiting: deque[_Queued] = deque()
        self._in_flight: list[_Queued] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._error = ""
        self._unlogged_drops = 0
        self._drop_logged_s = float("-inf")
        self._thread = threading.Thread(target=self._run_until_given_up, name="outbox", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str:
        """Why Redis takes no events at the moment, in one line; empty when all is well."""
        return self._error

    @property
    def depth(self) -> int:
        """How many events Redis has not accepted yet."""
        return len(self._waiting) + len(self._in_flight)

    def publish(self, event: Event, received_monotonic_s: float | None = None) -> bool:
        """Queue ``event``; never waits. False if it was dropped: the buffer is full, or the publisher closed.

        ``received_monotonic_s`` is that of its frame, and gives the latency from frame to event.
        """
        with self._changed:
            if self._closing.is_set():
                reason = "closed"
            elif self.depth >= self._config.buffer_events:
                reason = "buffer_full"
            else:
                self._waiting.append(_Queued(event, received_monotonic_s))
                self._changed.notify()
                return True
        self._drop(event, reason)
        return False

    def close(self, timeout_s: float | None = None) -> int:
        """Deliver what is left for at most ``timeout_s`` (default ``config.flush_timeout_s``), then stop.

        Returns how many events Redis has not confirmed; they are given up, and counted as ``undelivered``.
        """
        timeout_s = self._config.flush_timeout_s if timeout_s is None else timeout_s
        with self._changed:
            self._deadline_s = time.monotonic() + timeout_s
            self._closing.set()
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            lost = [*self._in_flight, *self._waiting]
            self._in_flight = []
            self._waiting.clear()
        for queued in lost:
            self._observer.event_dropped(queued.event.camera_id, "undelivered")
        if lost:
            _log.error("events given up at the stop", count=len(lost), reason=self._error or "no reply in time")
        return len(lost)

    def _run_until_given_up(self) -> None:
        try:
            self._run()
        except Exception:
            # After the stop gave up on this thread, its connection may be closed while it waits for a reply.
            if time.monotonic() < self._deadline_s:
                raise

    def _run(self) -> None:
        probed_s = time.monotonic()
        while time.monotonic() < self._deadline_s:
            self._heartbeat()
            batch = self._take()
            if batch:
                self._deliver(batch)
                probed_s = time.monotonic()
            elif self._closing.is_set():
                return
            elif time.monotonic() - probed_s > _PROBE_EVERY_S:
                self._probe()
                probed_s = time.monotonic()

    def _take(self) -> list[_Queued]:
        with self._changed:
            if not self._waiting and not self._closing.is_set():
                self._changed.wait(_IDLE_S)
            self._observer.queue_depth("outbox", self.depth)
            self._in_flight = [self._waiting.popleft() for _ in range(min(_BATCH_EVENTS, len(self._waiting)))]
            return self._in_flight

    def _deliver(self, batch: list[_Queued]) -> None:
        """Try until Redis has taken the whole batch, or the deadline of the stop has come."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((RedisError, OSError)),
            wait=_pause_s,
            stop=lambda _: time.monotonic() >= self._deadline_s,
            after=self._note_failure,
            sleep=self._sleep,
        )
        entries = self._encode(batch)
        try:
            retrying(self._write, entries)
        except tenacity.RetryError:
            return
        self._set_error("")
        self._in_flight = []
        self._observer.queue_depth("outbox", self.depth)

    def _encode(self, batch: list[_Queued]) -> list[tuple[_Queued, dict[str, str]]]:
        entries = []
        for queued in batch:
            try:
                entries.append((queued, encode(queued.event)))
            except ValueError as error:
                _log.error("event cannot be written", event_id=queued.event.event_id, reason=str(error))
                self._observer.event_dropped(queued.event.camera_id, "invalid")
        return entries

    def _write(self, entries: list[tuple[_Queued, dict[str, str]]]) -> None:
        """One transaction. Entries that Redis took leave ``entries``; the first refusal is raised."""
        if not entries:
            return
        self._heartbeat()
        with self._observer.stage("publish"), self._client.pipeline(transaction=True) as pipeline:
            for queued, fields in entries:
                stream = event_stream(self._config.stream, queued.event.camera_id)
                pipeline.xadd(stream, cast("dict[Any, Any]", fields), maxlen=self._config.max_events, approximate=True)
            replies = pipeline.execute(raise_on_error=False)
        sent = list(zip(entries, replies, strict=True))
        entries[:] = [entry for entry, reply in sent if isinstance(reply, Exception)]
        self._in_flight = [queued for queued, _ in entries]
        for (queued, _), reply in sent:
            if not isinstance(reply, Exception):
                self._report(queued, reply)
        for _, reply in sent:
            if isinstance(reply, Exception):
                raise reply

    def _report(self, queued: _Queued, entry_id: bytes | str) -> None:
        event = queued.event
        self._observer.event_published(event.camera_id, event.type)
        if queued.received_monotonic_s is not None:
            self._observer.event_latency(event.camera_id, time.monotonic() - queued.received_monotonic_s)
        if self._on_published is not None:
            try:
                self._on_published(event, entry_id.decode() if isinstance(entry_id, bytes) else entry_id)
            except Exception:  # noqa: BLE001 - what a listener does wrong must not stop the delivery
                _log.exception("a listener to published events failed")

    def _note_failure(self, state: tenacity.RetryCallState) -> None:
        error = _error_of(state)
        if isinstance(error, ReadOnlyError):
            # The old primary became a replica: the name must be resolved again to find the new one.
            self._client.connection_pool.disconnect(inuse_connections=False)
        self._set_error(explain(error, self._config))
        self._observer.queue_depth("outbox", self.depth)

    def _set_error(self, error: str) -> None:
        if error and error != self._error:
            _log.warning("events are kept until Redis takes them", reason=error, waiting=self.depth)
        elif self._error and not error:
            _log.info("Redis takes events again")
        self._error = error
        self._observer.sink_up(not error)

    def _probe(self) -> None:
        try:
            self._client.ping()
        except (RedisError, OSError) as error:
            self._set_error(explain(error, self._config))
        else:
            self._set_error("")

    def _sleep(self, seconds: float) -> None:
        if self._closing.is_set():
            time.sleep(min(seconds, _CLOSING_RETRY_S))
            return
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not self._closing.wait(min(left_s, _IDLE_S)):
            self._heartbeat()

    def _drop(self, event: Event, reason: str) -> None:
        self._observer.event_dropped(event.camera_id, reason)
        self._unlogged_drops += 1
        if time.monotonic() - self._drop_logged_s >= _DROP_LOG_EVERY_S:
            _log.error("events dropped", count=self._unlogged_drops, reason=reason, cause=self._error)
            self._drop_logged_s = time.monotonic()
            self._unlogged_drops = 0


def _error_of(state: tenacity.RetryCallState) -> Exception:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Exception) else RedisError("no reply")


def _pause_s(state: tenacity.RetryCallState) -> float:
    error = _error_of(state)
    refused = isinstance(error, AuthenticationError | AuthorizationError) or (
        isinstance(error, ResponseError)
        and not isinstance(error, _PASSING)
        and not str(error).rpartition("caused error: ")[2].startswith(_PASSING_CODES)
    )
    return _REJECTED_RETRY_S if refused else _backoff(state)
