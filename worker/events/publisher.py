"""From the pipeline to Redis Streams: never blocks its caller, and loses nothing while Redis is away."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import tenacity
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from worker.background import Heartbeats
from worker.config import OutboxConfig, RedisConfig
from worker.events.codec import decode
from worker.events.fencing import Fenced, append_fenced
from worker.events.outbox import Outbox
from worker.events.spool import Entry
from worker.events.states import PendingStates, SightingStates, State
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import Client, find_servers_again, is_cluster
from worker.redis.errors import explain, is_final
from worker.redis.keys import event_stream
from worker.types import Event

STALE: Final = ""
"""In place of an entry's id: the epoch of its event is over."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one entry: its ``entry_id`` in the stream, :data:`STALE`, or the refusal."""

    entry: Entry
    result: str | Exception


def deliver(client: Client, config: RedisConfig, entries: Sequence[Entry]) -> Iterator[list[Receipt]]:
    """Appends ``entries``, in order for each stream; what became of those of one stream comes as soon as it is known.

    Where a stream is refused, the next one is tried; where Redis does not answer, nothing more is, but on a Cluster,
    where another server may.
    """
    by_stream: dict[str, list[Entry]] = {}
    for entry in entries:
        by_stream.setdefault(event_stream(config.stream, entry.camera_id), []).append(entry)
    for stream, group in by_stream.items():
        fenced = any(entry.epoch > 0 for entry in group)
        try:
            results = (_append_fenced if fenced else _append)(client, stream, group, config.max_events)
        except (RedisError, OSError) as error:
            yield [Receipt(entry, error) for entry in group]
            if not isinstance(error, ResponseError) and not is_cluster(client):
                return
        else:
            yield [Receipt(entry, result) for entry, result in zip(group, results, strict=True)]


def _append(client: Client, stream: str, entries: Sequence[Entry], max_events: int) -> list[str | Exception]:
    with client.pipeline(transaction=True) as pipeline:
        for entry in entries:
            pipeline.xadd(stream, cast("dict[Any, Any]", entry.fields), maxlen=max_events, approximate=True)
        replies = pipeline.execute(raise_on_error=False)
    return [reply.decode() if isinstance(reply, bytes) else reply for reply in replies]


def _append_fenced(client: Client, stream: str, entries: Sequence[Entry], max_events: int) -> list[str | Exception]:
    fenced = [Fenced(entry.camera_id, entry.epoch, entry.caused.age_s, entry.fields) for entry in entries]
    return [entry_id or STALE for entry_id in append_fenced(client, stream, fenced, max_events=max_events)]


_BATCH_EVENTS: Final = 256
_IDLE_S: Final = 1.0
_PROBE_EVERY_S: Final = 5.0
_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0
_REJECTED_RETRY_S: Final = 15.0
_CLOSING_RETRY_S: Final = 0.1

_log = get_logger(__name__)
_backoff = tenacity.wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_MAX_S)


class Publisher:
    """Appends events to the stream in the order they were given, from a thread of its own.

    Delivery is at least once: where a reply is lost, an entry appears twice with the same ``event_id``. While Redis
    is away, or refuses, events wait in ``outbox`` (default: in memory, up to ``config.buffer_events``) and are tried
    again. What goes to one stream at a time is one transaction: a refusal in its middle cannot change the order.

    ``states`` is where :meth:`keep_state` keeps; default: in ``outbox``.

    From its thread, the publisher calls ``on_published`` with each event and the id of its entry, and beats
    about once a second, less often only while it waits for a reply (``config.timeout_s``).
    """

    def __init__(
        self,
        client: Client,
        config: RedisConfig,
        observer: Observer | None = None,
        *,
        outbox: Outbox | None = None,
        states: SightingStates | None = None,
        on_published: Callable[[Event, str], None] | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._observer = observer or Observer()
        self._outbox = (
            Outbox(OutboxConfig(), self._observer, memory_events=config.buffer_events) if outbox is None else outbox
        )
        self._states = states
        self._pending_states = PendingStates()
        self._on_published = on_published
        self._heartbeat = (heartbeats or Heartbeats()).watch("outbox", 2 * config.timeout_s + 5)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._error = ""
        self._kept = 0
        self._thread = threading.Thread(target=self._run_until_given_up, name="outbox", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str:
        """Why Redis takes no events at the moment, in one line; empty when all is well."""
        return self._error

    @property
    def outbox_error(self) -> str:
        """Why a restart would lose the events that wait, in one line; empty where it would not, or always does."""
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
        if self._closing.is_set():
            self._observer.event_dropped(event.camera_id, "closed")
            return False
        try:
            kept = self._outbox.append(event, received_monotonic_s)
        except ValueError as error:
            _log.error("event cannot be written", event_id=event.event_id, reason=str(error))
            self._observer.event_dropped(event.camera_id, "invalid")
            return False
        with self._changed:
            self._changed.notify()
        return kept

    def keep_state(
        self, camera_id: str, epoch: int, state: State | None, on_kept: Callable[[], None] = lambda: None
    ) -> None:
        """Keeps the state of a camera's sightings for whoever reads it next; None: there is none any more.

        Never waits: of the states of a camera that were not written yet only the newest is. ``on_kept`` is called,
        from the publisher's thread, once this or a newer one is written, after the events that were queued before.
        """
        if self._states is None:
            self._outbox.keep_state(camera_id, epoch, state)
            on_kept()
            return
        self._pending_states.put(camera_id, epoch, state, on_kept)
        with self._changed:
            self._changed.notify()

    def discard_state(self, camera_id: str) -> None:
        """Does not keep what :meth:`keep_state` was given last, unless that has happened: somebody else keeps it."""
        self._pending_states.drop(camera_id)

    def load_state(self, camera_id: str) -> dict[str, Any] | None:
        """The state in which the camera was left, None without one; may wait for Redis (``config.timeout_s``)."""
        states: SightingStates = self._outbox if self._states is None else self._states
        try:
            return states.load_state(camera_id)
        except (RedisError, OSError) as error:
            _log.warning("sightings begin anew", camera_id=camera_id, reason=explain(error, self._config))
            return None

    def close(self, timeout_s: float | None = None) -> int:
        """Deliver what is left for at most ``timeout_s`` (default ``config.flush_timeout_s``), then stop.

        Returns how many events are lost, since Redis has not confirmed them and no file keeps them (:attr:`kept`);
        they are counted as ``undelivered``.
        """
        timeout_s = self._config.flush_timeout_s if timeout_s is None else timeout_s
        with self._changed:
            self._deadline_s = time.monotonic() + timeout_s
            self._closing.set()
            self._changed.notify()
        self._thread.join(timeout_s)
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
            self._tend()
            if self._has_work():
                self._work()
                probed_s = time.monotonic()
            elif self._closing.is_set():
                return
            elif time.monotonic() - probed_s > _PROBE_EVERY_S:
                self._probe()
                probed_s = time.monotonic()

    def _tend(self) -> None:
        self._heartbeat()
        self._outbox.tend()
        self._observer.queue_depth("outbox", self.depth)

    def _has_work(self) -> bool:
        with self._changed:
            if not (self._outbox or self._pending_states or self._closing.is_set()):
                self._changed.wait(_IDLE_S)
        return bool(self._outbox or self._pending_states)

    def _work(self) -> None:
        """Try until Redis has taken what waited, or the deadline of the stop has come."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((RedisError, OSError)),
            wait=_pause_s,
            stop=lambda _: time.monotonic() >= self._deadline_s,
            after=self._note_failure,
            sleep=self._sleep,
        )
        try:
            retrying(self._write)
        except tenacity.RetryError:
            return
        self._set_error("")
        self._observer.queue_depth("outbox", self.depth)

    def _write(self) -> None:
        """The oldest events, then the states. The first refusal is raised when the others were tried."""
        self._heartbeat()
        refusals: list[Exception] = []
        if entries := self._outbox.take(_BATCH_EVENTS):
            with self._observer.stage("publish"):
                refusals = self._deliver(entries)
        if self._states is not None and all(is_final(refusal) for refusal in refusals):
            self._pending_states.write(self._states)
        if refusals:
            raise refusals[0]

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
        if self._on_published is not None:
            try:
                self._on_published(decode(entry.fields), entry_id)
            except Exception:  # noqa: BLE001 - what a listener does wrong must not stop the delivery
                _log.exception("a listener to published events failed")

    def _note_failure(self, state: tenacity.RetryCallState) -> None:
        error = _error_of(state)
        if isinstance(error, ReadOnlyError):
            # The old primary became a replica: the name must be resolved again to find the new one.
            find_servers_again(self._client)
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
            self._tend()


def _error_of(state: tenacity.RetryCallState) -> Exception:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Exception) else RedisError("no reply")


def _pause_s(state: tenacity.RetryCallState) -> float:
    return _REJECTED_RETRY_S if is_final(_error_of(state)) else _backoff(state)
