"""From the pipeline to Redis Streams: never blocks its caller, and loses nothing while Redis is away."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from redis.exceptions import ReadOnlyError, RedisError

from worker.background import BackgroundTask, Heartbeats
from worker.config import OutboxConfig, RedisConfig
from worker.events.fencing import STALE, deliver
from worker.events.outbox import Outbox
from worker.events.spool import Entry
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import REDIS_ERRORS, Client, find_servers_again
from worker.redis.errors import explain, is_final, pause_s
from worker.types import Event

_BATCH_EVENTS: Final = 256

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long a publisher waits, in seconds.

    ``idle_s``: how often it looks after its outbox; ``probe_s``: how often it asks whether Redis is there while nothing
    waits to be sent; ``refused_s``: before it tries again what Redis refuses for good; ``closing_s``: between two tries
    during the stop; ``retry``: after so many failures in a row.
    """

    idle_s: float = 1.0
    probe_s: float = 5.0
    refused_s: float = 15.0
    closing_s: float = 0.1
    retry: Callable[[int], float] = pause_s


class Publisher:
    """Appends events to the stream in the order they were given, from a thread of its own.

    Delivery is at least once: where a reply is lost, an entry appears twice with the same ``event_id``. While Redis
    is away, or refuses, events wait in ``outbox`` (default: in memory, up to ``config.buffer_events``) and are tried
    again. What goes to one stream at a time is one transaction: a refusal in its middle cannot change the order.

    The thread is ``outbox`` in ``heartbeats``.
    """

    def __init__(
        self,
        client: Client,
        config: RedisConfig,
        observer: Observer | None = None,
        *,
        outbox: Outbox | None = None,
        heartbeats: Heartbeats | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._observer = observer or Observer()
        self._outbox = (
            Outbox(OutboxConfig(), self._observer, memory_events=config.buffer_events) if outbox is None else outbox
        )
        self._pauses = pauses or Pauses()
        self._lock = threading.Lock()
        self._afterwards: dict[str, Callable[[], None]] = {}
        self._error = ""
        self._kept = 0
        self._failures = 0
        self._due_s = float("-inf")
        self._probed_s = time.monotonic()
        self._task = BackgroundTask(
            "outbox",
            self._step,
            interval_s=self._pauses.idle_s,
            heartbeats=heartbeats,
            max_silence_s=2 * config.timeout_s + 5,
            drains=True,
        )
        self._task.start()

    @property
    def error(self) -> str:
        """Why Redis takes no events at the moment, in one line; empty when all is well."""
        return self._error

    @property
    def outbox_error(self) -> str:
        """Why a restart would lose the events that wait, in one line; empty if they are on disk, or no file is set."""
        return self._outbox.failure

    @property
    def depth(self) -> int:
        """How many events Redis has not accepted yet."""
        return len(self._outbox)

    @property
    def kept(self) -> int:
        """After :meth:`close`: how many events wait on disk for the next start."""
        return self._kept

    def publish(self, event: Event, received_monotonic_s: float | None = None) -> bool:
        """Queue ``event``; never waits. False if it was dropped: it cannot be written, or the publisher closed.

        ``received_monotonic_s`` is that of the frame that caused it, and gives the latency from frame to event; None:
        time alone caused it.
        """
        if self._task.stopping:
            self._observer.event_dropped(event.camera_id, "closed")
            return False
        try:
            kept = self._outbox.append(event, received_monotonic_s)
        except ValueError as error:
            _log.error("event cannot be written", event_id=event.event_id, reason=str(error))
            self._observer.event_dropped(event.camera_id, "invalid")
            return False
        self._task.wake()
        return kept

    def afterwards(self, key: str, action: Callable[[], None] | None) -> None:
        """Has the publisher's thread do ``action`` once the events that were queued before are with Redis.

        Never waits. A newer action takes the place of one of the same ``key`` that was not done yet; None: there is
        nothing to be done any more. An action that raises ``RedisError`` is tried again later. Events that Redis
        refuses for good are not waited for.
        """
        with self._lock:
            if action is None:
                self._afterwards.pop(key, None)
            else:
                self._afterwards[key] = action
        self._task.wake()

    def close(self, timeout_s: float | None = None) -> int:
        """Deliver what is left for at most ``timeout_s`` (default ``config.flush_timeout_s``), then stop.

        Returns how many events are lost, since Redis has not confirmed them and no file keeps them (:attr:`kept`);
        they are counted as ``undelivered``.
        """
        self._task.stop(self._config.flush_timeout_s if timeout_s is None else timeout_s)
        lost, kept = self._outbox.close()
        for entry in lost:
            self._observer.event_dropped(entry.camera_id, "undelivered")
        reason = self._error or "no reply in time"
        if lost:
            _log.error("events given up at the stop", count=len(lost), reason=reason)
        if kept:
            self._kept = kept
            _log.warning("events wait for the next start", count=kept, outbox=str(self._outbox.path), reason=reason)
        return len(lost)

    # What follows is done by the publisher's thread.

    def _step(self) -> float | None:
        self._outbox.tend()
        self._observer.queue_depth("outbox", self.depth)
        if (left_s := self._due_s - time.monotonic()) > 0 and not self._task.stopping:
            return min(left_s, self._pauses.idle_s)
        if not self._has_work:
            if time.monotonic() - self._probed_s > self._pauses.probe_s:
                self._probe()
            return None
        try:
            self._write()
        except REDIS_ERRORS as error:
            return self._failed(error)
        self._failures = 0
        self._probed_s = time.monotonic()
        self._set_error("")
        self._observer.queue_depth("outbox", self.depth)
        return 0.0 if self._has_work else None

    @property
    def _has_work(self) -> bool:
        return bool(self._outbox or self._afterwards)

    def _write(self) -> None:
        """The oldest events, then what is to be done afterwards. Raises the first refusal, once all were tried."""
        with self._lock:
            # Later ones may stand for events that are queued while these are written.
            due = dict(self._afterwards)
        refusals: list[Exception] = []
        entries = self._outbox.take(_BATCH_EVENTS)
        if entries:
            with self._observer.stage("publish"):
                refusals = self._deliver(entries)
        if all(is_final(refusal) for refusal in refusals) and (refusals or len(entries) < _BATCH_EVENTS):
            self._follow(due)
        if refusals:
            raise refusals[0]

    def _follow(self, due: Mapping[str, Callable[[], None]]) -> None:
        for key, action in due.items():
            with self._lock:
                if self._afterwards.get(key) is not action:
                    continue
            action()
            with self._lock:
                if self._afterwards.get(key) is action:
                    del self._afterwards[key]

    def _deliver(self, entries: Sequence[Entry]) -> list[Exception]:
        done: list[int] = []
        refusals: list[Exception] = []
        try:
            for receipts in deliver(self._client, self._config, entries):
                for receipt in receipts:
                    if isinstance(receipt.result, Exception):
                        refusals.append(receipt.result)
                    else:
                        done.append(receipt.entry.seq)
                        self._report(receipt.entry, receipt.result)
        finally:
            self._outbox.settle(done)
        return refusals

    def _report(self, entry: Entry, entry_id: str) -> None:
        if entry_id == STALE:
            self._observer.event_dropped(entry.camera_id, "stale_epoch")
            _log.warning("event refused: another worker owned the camera", camera_id=entry.camera_id, epoch=entry.epoch)
            return
        self._observer.event_published(entry.camera_id, entry.type)
        if entry.received_monotonic_s is not None:
            self._observer.event_latency(entry.camera_id, time.monotonic() - entry.received_monotonic_s)

    def _failed(self, error: RedisError | OSError) -> float:
        """Notes the failure; returns after how many seconds there is something to do again."""
        if isinstance(error, ReadOnlyError):
            # The old primary became a replica: the name must be resolved again to find the new one.
            find_servers_again(self._client)
        self._set_error(explain(error, self._config))
        self._observer.queue_depth("outbox", self.depth)
        self._failures += 1
        if self._task.stopping:
            time.sleep(self._pauses.closing_s)
            return 0.0
        wait_s = self._pauses.refused_s if is_final(error) else self._pauses.retry(self._failures)
        self._due_s = time.monotonic() + wait_s
        return min(wait_s, self._pauses.idle_s)

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
        except REDIS_ERRORS as error:
            self._set_error(explain(error, self._config))
        else:
            self._set_error("")
        self._probed_s = time.monotonic()


def publish_at_once(client: Client, config: RedisConfig, events: Sequence[Event]) -> int:
    """Publishes ``events``, and waits for it; returns how many could not be delivered."""
    publisher = Publisher(client, config)
    refused = sum(not publisher.publish(event) for event in events)
    return refused + publisher.close()
