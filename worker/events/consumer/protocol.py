"""What a consumer of a group does, in steps: read, decide, acknowledge, try again, take over, bury.

Everything a group remembers lies beside its stream, so that it holds for all its consumers and survives them. An entry
is in the hands of one consumer at a time. When its idle time is long enough, it is claimed again: by the same consumer
after a failure, by another one when the first seems dead. Entries are claimed one by one, so that an event which kills
its consumer is not confused with the entries that were read together with it.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from worker.config import RedisConfig
from worker.errors import SinkError
from worker.events.codec import decode
from worker.events.consumer.group import (
    ConsumerSettings,
    Counts,
    Delivery,
    GroupMemory,
    Known,
    Verdict,
    backoff_ms,
    dead_letter,
    decide,
    is_lost_group,
    reason_of,
)
from worker.events.consumer.streams import (
    Call,
    Pause,
    Split,
    Steps,
    StreamNames,
    Transaction,
    call,
    pending_entries,
)
from worker.logs import get_logger
from worker.redis.client import REDIS_ERRORS, longest_block_s
from worker.redis.errors import explain, is_final, pause_s
from worker.types import Event
from worker.wire import as_text

_DEAD_LETTERS: Final = 10_000
_PENDING_AT_ONCE: Final = 100
_SWEEP_S: Final = 0.2
_HANDED_BACK: Final = "handed-back"
_TAKE_OVER_CHECKS: Final = 4

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]
    fresh: bool = False


class Consuming:
    """The state of one consumer. Each public method yields steps on Redis; a driver performs them."""

    def __init__(self, config: RedisConfig, names: StreamNames, settings: ConsumerSettings) -> None:
        self._config = config
        self._names = names
        self._settings = settings
        self._queue: deque[_Entry] = deque()
        self._current: tuple[str, str] | None = None
        self._own_due_s: dict[str, float] = {}
        self._take_over_due_s: dict[str, float] = {}
        self._check_every_s = settings.take_over_after_s / _TAKE_OVER_CHECKS
        self._failures = 0
        self._memory = GroupMemory(config, settings)
        self.counts = Counts()

    def poll(self, wait_s: float) -> Steps[Delivery | None]:
        """The next event to handle, None if there was none in ``wait_s`` or so.

        Raises:
            SinkError: Redis refuses this consumer, so that waiting cannot help.
        """
        until_s = time.monotonic() + wait_s
        try:
            delivery = yield from self._next(until_s)
        except REDIS_ERRORS as error:
            yield from self._recover(error)
            return None
        self._failures = 0
        if delivery is not None:
            self._current = delivery.stream, delivery.entry_id
        return delivery

    def _next(self, until_s: float) -> Steps[Delivery | None]:
        while True:
            if not self._queue:
                yield from self._fetch(max(0.0, until_s - time.monotonic()))
            if self._queue:
                delivery = yield from self._begin(self._queue[0])
                self._queue.popleft()
                if delivery is not None:
                    return delivery
            elif time.monotonic() >= until_s:
                return None

    def done(self, delivery: Delivery) -> Steps[None]:
        """The event was handled: remember it and acknowledge the entry, in one transaction."""
        self._current = None
        self.counts.handled += 1
        yield from self._memory.settle(delivery.stream, delivery.entry_id, delivery.event.event_id)

    def failed(self, delivery: Delivery, error: BaseException) -> Steps[None]:
        """The event could not be handled: it comes again later, or is buried after its last delivery."""
        self._current = None
        self.counts.failed += 1
        reason = reason_of(error)
        _log.warning(
            "event not handled", event_id=delivery.event.event_id, deliveries=delivery.deliveries, reason=reason
        )
        if delivery.deliveries >= self._settings.max_deliveries:
            yield from self.bury(delivery, reason)
        else:
            due_s = time.monotonic() + self._backoff_ms(delivery.deliveries) / 1000
            self._own_due_s[delivery.stream] = min(due_s, self._own_due_s.get(delivery.stream, inf))

    def bury(self, delivery: Delivery, reason: str) -> Steps[None]:
        """Put the event among the dead letters of the group, and acknowledge it."""
        self._current = None
        entry = _Entry(delivery.stream, delivery.entry_id, delivery.fields)
        yield from self._bury(entry, reason, delivery.deliveries, delivery.event.event_id)

    def leave(self, *, for_good: bool) -> Steps[None]:
        """Hand back what was fetched and not begun, as if it had never been handed out: others need not wait for it.

        ``for_good``: no consumer will come back under this name, so hand back everything, and remove the consumer.
        """
        for stream in sorted(self._names.ready):
            fresh = [entry.entry_id for entry in self._queue if entry.stream == stream and entry.fresh]
            try:
                if fresh:
                    yield self._hand_back(stream, fresh, retrycount=0)
                if for_good:
                    yield from self._remove(stream)
            except REDIS_ERRORS:
                # Others take over in due time.
                return

    def _remove(self, stream: str) -> Steps[None]:
        pending = yield self._memory.pending(stream, "-", "+", _PENDING_AT_ONCE, consumername=self._settings.consumer)
        entries = pending_entries(pending)
        if entries:
            yield self._hand_back(stream, [entry.entry_id for entry in entries])
        if len(entries) < _PENDING_AT_ONCE:
            yield call("xgroup_delconsumer", stream, self._settings.group, self._settings.consumer)

    def _hand_back(self, stream: str, entry_ids: list[str], **options: Any) -> Call:
        idle_ms = int(1000 * self._settings.take_over_after_s)
        return call(
            "xclaim", stream, self._settings.group, _HANDED_BACK, 0, entry_ids, idle=idle_ms, justid=True, **options
        )

    def _fetch(self, wait_s: float) -> Steps[None]:
        for stream in (yield from self._names.refresh()):
            self._own_due_s[stream] = self._take_over_due_s[stream] = 0.0
        streams = sorted(self._names.ready)
        for stream in streams:
            yield from self._claim_own(stream)
            yield from self._take_over(stream)
            if self._queue:
                return
        groups = yield Split(tuple(streams))
        may_block = len(groups) == 1 and wait_s > 0
        for group in groups:
            answer = yield call(
                "xreadgroup",
                self._settings.group,
                self._settings.consumer,
                dict.fromkeys(group, ">"),
                count=self._settings.batch,
                block=max(1, int(1000 * self._wait_s(wait_s))) if may_block else None,
            )
            for stream, entries in answer or ():
                self._queue.extend(
                    _Entry(as_text(stream), as_text(entry_id), fields, True) for entry_id, fields in entries
                )
        if not self._queue and len(groups) != 1:
            # One command cannot wait for the streams of several slots.
            yield Pause(min(_SWEEP_S, self._wait_s(wait_s)))

    def _wait_s(self, wait_s: float) -> float:
        due_s = min([self._names.due_s, *self._own_due_s.values(), *self._take_over_due_s.values()], default=0.0)
        return min(wait_s, longest_block_s(self._config), max(0.0, due_s - time.monotonic()))

    def _claim_own(self, stream: str) -> Steps[None]:
        """Of what this consumer holds and has not finished, the first whose pause is over."""
        if time.monotonic() < self._own_due_s.get(stream, inf):
            return
        pending = yield self._memory.pending(stream, "-", "+", _PENDING_AT_ONCE, consumername=self._settings.consumer)
        held = {(entry.stream, entry.entry_id) for entry in self._queue} | {self._current}
        waiting = [
            (self._backoff_ms(entry.deliveries) - entry.idle_ms, entry.entry_id)
            for entry in pending_entries(pending)
            if (stream, entry.entry_id) not in held
        ]
        due = [entry_id for left_ms, entry_id in waiting if left_ms <= 0]
        if due:
            yield from self._claim(stream, due[0], 0)
        # It is asked now and then anyway: a caller may have dropped a delivery, or been cancelled while it waited.
        later_s = min([left_ms / 1000 for left_ms, _ in waiting], default=inf)
        self._own_due_s[stream] = time.monotonic() + (0.0 if due else min(later_s, self._check_every_s))

    def _take_over(self, stream: str) -> Steps[None]:
        """Of what other consumers hold, the first that they have held for too long."""
        if self._queue or time.monotonic() < self._take_over_due_s[stream]:
            return
        idle_ms = int(1000 * self._settings.take_over_after_s)
        pending = yield self._memory.pending(stream, "-", "+", _PENDING_AT_ONCE, idle=idle_ms)
        for entry in pending_entries(pending):
            if entry.consumer != self._settings.consumer:
                # The idle time is asked for again: another consumer may be faster.
                yield from self._claim(stream, entry.entry_id, idle_ms)
                if self._queue:
                    self.counts.taken_over += 1
                    return
        self._take_over_due_s[stream] = time.monotonic() + self._check_every_s

    def _claim(self, stream: str, entry_id: str, idle_ms: int) -> Steps[None]:
        group, consumer = self._settings.group, self._settings.consumer
        # One after the other: in a transaction on a Cluster, redis-py does not read these replies.
        kept = yield call("xrange", stream, min=entry_id, max=entry_id)
        if not kept:
            yield call("xack", stream, group, entry_id)
            self.counts.trimmed += 1
            _log.error("event lost: its stream was trimmed before it was handled", stream=stream, entry_id=entry_id)
        elif (yield call("xclaim", stream, group, consumer, idle_ms, [entry_id])):
            self._queue.append(_Entry(stream, entry_id, kept[0][1]))

    def _begin(self, entry: _Entry) -> Steps[Delivery | None]:
        """The event of ``entry`` if it is to be handled now; otherwise does what else is needed with it."""
        stream, entry_id = entry.stream, entry.entry_id
        try:
            event = decode(entry.fields)
        except SinkError as error:
            yield from self._bury(entry, reason_of(error), 1, None)
            return None
        known = yield from self._memory.recall(stream, entry_id, event)
        verdict = self._decide(event, entry_id, known)
        if verdict == "ask":
            pending, score = yield Transaction(
                (
                    self._memory.pending(stream, known.claim, known.claim, 1),
                    call("execute_command", "ZSCORE", self._memory.key(stream, "handled"), event.event_id),
                )
            )
            known = replace(known, claim_pending=bool(pending), handled=score is not None)
            verdict = self._decide(event, entry_id, known)
        if verdict == "exhausted":
            reason = f"handed out {known.deliveries - 1} times and never finished: each time its consumer ended or hung"
            yield from self._bury(entry, reason, known.deliveries - 1, event.event_id)
        elif verdict in ("stale", "repeated"):
            yield from self._drop(stream, entry_id, event, known)
            setattr(self.counts, verdict, getattr(self.counts, verdict) + 1)
        elif verdict == "handle":
            if known.claim != entry_id:
                yield call("hset", self._memory.key(stream, "claims"), event.event_id, entry_id)
            return Delivery(event, stream, entry_id, known.deliveries, entry.fields)
        return None

    def _decide(self, event: Event, entry_id: str, known: Known) -> Verdict:
        return decide(event, entry_id, self._settings.consumer, known, self._settings.max_deliveries)

    def _drop(self, stream: str, entry_id: str, event: Event, known: Known) -> Steps[None]:
        calls = [call("xack", stream, self._settings.group, entry_id)]
        if known.claim == entry_id:
            calls.append(call("hdel", self._memory.key(stream, "claims"), event.event_id))
        yield Transaction(tuple(calls))

    def _bury(self, entry: _Entry, reason: str, deliveries: int, event_id: str | None) -> Steps[None]:
        letter: dict[Any, Any] = {**entry.fields, **dead_letter(reason, entry.entry_id, deliveries)}
        burial = call("xadd", self._memory.key(entry.stream, "dead"), letter, maxlen=_DEAD_LETTERS, approximate=True)
        yield from self._memory.settle(entry.stream, entry.entry_id, event_id, burial)
        self.counts.dead += 1
        _log.error("event buried", stream=entry.stream, event_id=event_id or "", reason=reason)

    def _recover(self, error: Exception) -> Steps[None]:
        if is_lost_group(error):
            self._names.forget()
            self._queue.clear()
            return
        if is_final(error):
            raise SinkError(explain(error, self._config)) from None
        if not self._failures:
            _log.warning("Redis does not answer; consuming goes on when it does", reason=explain(error, self._config))
        self._failures += 1
        for stream in self._names.ready:
            # The entries of a reply that was lost are in this consumer's hands, and it does not know of them.
            self._own_due_s[stream] = 0.0
        yield Pause(pause_s(self._failures))

    def _backoff_ms(self, deliveries: int) -> int:
        return backoff_ms(deliveries, self._settings.retry_first_s, self._settings.retry_longest_s)
