"""What a consumer group remembers in Redis, beside its stream.

Events that are done or being done, known epochs, and dead letters: events that the group could not handle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from worker.config import RedisConfig
from worker.errors import SinkError
from worker.events.consumer.streams import Call, Pause, Steps, Transaction, call, pending_entries, stream_keys
from worker.logs import get_logger
from worker.redaction import redact
from worker.redis.client import REDIS_ERRORS, Client
from worker.redis.errors import explain, is_final, pause_s, reply_of
from worker.redis.keys import beside, group_key
from worker.types import Event
from worker.wire import as_text

Verdict = Literal["handle", "repeated", "stale", "lost", "exhausted", "ask"]

_REASON_CHARACTERS: Final = 300
_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event in the hands of one consumer.

    ``stream`` and ``entry_id`` say where it stands; ``deliveries`` counts how often the group handed it out, from 1.
    """

    event: Event
    stream: str
    entry_id: str
    deliveries: int
    fields: Mapping[bytes, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Known:
    """What Redis remembers for a group about one entry and its event.

    ``owner`` is the consumer that holds the entry, empty when it was acknowledged; ``epochs`` are those known of the
    event's camera; ``handled``: an entry with this event was finished; ``claim`` is the entry under which the event is
    being handled, and ``claim_pending`` whether that entry is still in somebody's hands (None: not asked yet).
    """

    owner: str
    deliveries: int
    epochs: frozenset[int]
    handled: bool
    claim: str
    claim_pending: bool | None = None


@dataclass(slots=True)
class Counts:
    """What became of the entries that a consumer was handed, since it started."""

    handled: int = 0
    failed: int = 0
    repeated: int = 0
    stale: int = 0
    dead: int = 0
    trimmed: int = 0
    taken_over: int = 0


def decide(event: Event, entry_id: str, consumer: str, known: Known, max_deliveries: int) -> Verdict:
    """What ``consumer`` does with ``event``, which it was handed in the entry ``entry_id``.

    ``handle`` it; drop it because it is ``repeated`` or ``stale``; leave it alone, since it was ``lost`` to another
    consumer; bury it, since its deliveries are ``exhausted``; or ``ask`` whether the entry that claims it is pending.
    """
    if known.owner != consumer:
        return "lost"
    if is_stale(event, entry_id, known.epochs):
        return "stale"
    if known.handled:
        return "repeated"
    if known.claim != entry_id:
        # Another copy is being handled. While it is pending it will be finished, or tried again, or buried.
        if known.claim_pending is None:
            return "ask"
        if known.claim_pending:
            return "repeated"
    return "exhausted" if known.deliveries > max_deliveries else "handle"


def is_stale(event: Event, entry_id: str, epochs: frozenset[int]) -> bool:
    """Whether the event was captured when its worker's lease on the camera was over.

    An epoch is the time (Redis clock, ms) at which it began. What was in the stream before that was captured before
    it, however wrong the worker's clock was. Epoch 0 is a worker without a lease, to which this does not apply.
    """
    higher = [epoch for epoch in epochs if epoch > event.epoch]
    if not higher or not event.epoch:
        return False
    captured_ms = int(event.captured_at.timestamp() * 1000)
    return min(captured_ms, entry_ms(entry_id)) >= min(higher)


def entry_ms(entry_id: str) -> int:
    """When Redis took the entry, ms since 1970."""
    return int(entry_id.partition("-")[0])


def backoff_ms(deliveries: int, first_s: float, longest_s: float) -> int:
    """The pause after the failure of delivery number ``deliveries``: twice that of the one before."""
    return int(1000 * min(longest_s, first_s * 2 ** min(deliveries - 1, _DOUBLINGS)))


def reason_of(error: BaseException) -> str:
    """An error of a handler in one line without credentials: its kind and what it says, no traceback."""
    text = " ".join(redact(str(error)).split())[:_REASON_CHARACTERS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_EPOCHS_PER_CAMERA: Final = 16
_LOST_GROUP: Final = ("NOGROUP", "UNBLOCKED")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """See :class:`worker.events.consumer.base.ConsumerBase`."""

    group: str
    consumer: str
    batch: int
    max_deliveries: int
    retry_first_s: float
    retry_longest_s: float
    take_over_after_s: float
    remember_s: float


def is_lost_group(error: Exception) -> bool:
    """Whether the group, or its stream, is gone: Redis was emptied, or somebody deleted it."""
    return reply_of(error).startswith(_LOST_GROUP)


class GroupMemory:
    """Commands on the keys of one group; see :mod:`worker.redis.keys` for their form."""

    def __init__(self, config: RedisConfig, settings: ConsumerSettings) -> None:
        self._config = config
        self._settings = settings

    def pending(self, stream: str, first: str, last: str, count: int, **options: Any) -> Call:
        return call("xpending_range", stream, self._settings.group, first, last, count, **options)

    def key(self, stream: str, what: str) -> str:
        return group_key(stream, what, self._settings.group)

    def recall(self, stream: str, entry_id: str, event: Event) -> Steps[Known]:
        """What the group knows, with this event's epoch and its claim added, all at one moment."""
        epochs, claims = self.key(stream, "epochs"), self.key(stream, "claims")
        # ZSCORE is spelled out: redis-py fails to read its reply in a transaction of an asynchronous Cluster.
        calls = [
            call("zrangebylex", epochs, f"[{event.camera_id} ", f"({event.camera_id}!"),
            call("hget", beside(stream, "fence"), event.camera_id),
            call("execute_command", "ZSCORE", self.key(stream, "handled"), event.event_id),
            call("hsetnx", claims, event.event_id, entry_id),
            call("hget", claims, event.event_id),
            self.pending(stream, entry_id, entry_id, 1),
        ]
        if event.epoch:
            calls.append(call("zadd", epochs, {f"{event.camera_id} {event.epoch:020d}": 0}))
        members, fence, score, _new, claim, pending, *_ = yield Transaction(tuple(calls))
        if len(members) > _EPOCHS_PER_CAMERA:
            yield call("zrem", epochs, *members[:-_EPOCHS_PER_CAMERA])
        holding = pending_entries(pending)
        return Known(
            owner=holding[0].consumer if holding else "",
            deliveries=holding[0].deliveries if holding else 0,
            epochs=frozenset(_number(as_text(member).rpartition(" ")[2]) for member in members) | {_number(fence)},
            handled=score is not None,
            claim=as_text(claim),
        )

    def settle(self, stream: str, entry_id: str, event_id: str | None, *further: Call) -> Steps[None]:
        """Acknowledge the entry and write what is to be remembered, again and again until Redis has taken it."""
        acknowledgement = Transaction((*further, *self._finished(stream, entry_id, event_id)))
        failures = 0
        while True:
            try:
                # After a lost reply, it may have been done already.
                pending = not failures or (yield self.pending(stream, entry_id, entry_id, 1))
                if pending:
                    yield acknowledgement
            except REDIS_ERRORS as error:
                if is_final(error) and not is_lost_group(error):
                    raise SinkError(explain(error, self._config)) from None
                failures = 0 if is_lost_group(error) else failures + 1
                if (yield Pause(pause_s(failures))):
                    _log.warning("event handled, but not acknowledged: it will come again", stream=stream)
                    return
            else:
                return

    def _finished(self, stream: str, entry_id: str, event_id: str | None) -> list[Call]:
        calls = [call("xack", stream, self._settings.group, entry_id)]
        if event_id is None:
            return calls
        handled, claims = self.key(stream, "handled"), self.key(stream, "claims")
        remember_s = int(self._settings.remember_s)
        forgotten_ms = entry_ms(entry_id) - 1000 * remember_s
        return [
            call("zadd", handled, {event_id: entry_ms(entry_id)}),
            call("zremrangebyscore", handled, "-inf", forgotten_ms),
            call("hdel", claims, event_id),
            *(call("expire", key, remember_s) for key in (handled, claims, self.key(stream, "epochs"))),
            *calls,
        ]


REASON: Final = "dead_reason"
ENTRY_ID: Final = "dead_entry_id"
DELIVERIES: Final = "dead_deliveries"
_PAGE: Final = 100
_LONGEST_NUMBER: Final = 20


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """``fields`` are those of the event, as they stood in ``stream`` under ``entry_id``; ``deliveries`` is 0 where the
    letter does not tell how many there were."""

    letter_id: str
    stream: str
    group: str
    entry_id: str
    deliveries: int
    reason: str
    fields: dict[str, str]

    @property
    def event_id(self) -> str:
        """Empty where the entry was no event."""
        return self.fields.get("event_id", "")


def dead_letter(reason: str, entry_id: str, deliveries: int) -> dict[str, str | int]:
    """What a dead letter has beside the fields of the event."""
    return {REASON: reason, ENTRY_ID: entry_id, DELIVERIES: deliveries}


def dead_letters(client: Client, stream: str, group: str | None = None) -> Iterator[DeadLetter]:
    """The dead letters of ``group``, or of every group of ``stream``, oldest first within each.

    ``stream`` may hold ``{camera_id}``, for the streams of all cameras.

    Raises:
        RedisError, OSError: Redis does not answer, or the key holds no stream.
    """
    for key in stream_keys(client, stream):
        if not client.exists(key):
            continue
        names = [group] if group else [as_text(each["name"]) for each in client.xinfo_groups(key)]
        for name in names:
            yield from _letters(client, key, name)


def put_back(client: Client, letter: DeadLetter) -> None:
    """Append the event to its stream again, and forget that its group was done with it.

    Other groups of the stream are handed it as well, and know it as a repeat.

    Raises:
        RedisError, OSError: Redis does not answer; the letter may have been put back all the same.
    """
    with client.pipeline(transaction=True) as pipeline:
        if letter.event_id:
            pipeline.zrem(group_key(letter.stream, "handled", letter.group), letter.event_id)
        pipeline.xadd(letter.stream, cast("dict[Any, Any]", letter.fields))
        pipeline.xdel(group_key(letter.stream, "dead", letter.group), letter.letter_id)
        pipeline.execute()


def _number(text: bytes | str | None) -> int:
    """The number that Redis holds; 0 without one, and where something else stands."""
    digits = as_text(text or "")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER else 0


def _letters(client: Client, stream: str, group: str) -> Iterator[DeadLetter]:
    last = "-"
    while page := cast("list[Any]", client.xrange(group_key(stream, "dead", group), min=last, count=_PAGE)):
        for letter_id, raw in page:
            fields = {as_text(name): as_text(value) for name, value in raw.items()}
            yield DeadLetter(
                letter_id=as_text(letter_id),
                stream=stream,
                group=group,
                entry_id=fields.pop(ENTRY_ID, ""),
                deliveries=_number(fields.pop(DELIVERIES, "")),
                reason=fields.pop(REASON, ""),
                fields=fields,
            )
        last = f"({as_text(page[-1][0])}"
