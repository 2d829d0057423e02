"""Whether a consumer should handle the event that a stream handed to it: the decision, without any input or output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from worker.redaction import redact
from worker.types import Event

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

    ``handle`` it; drop it because it is ``repeated`` or ``stale``; leave it alone, for it was ``lost`` to another
    consumer; bury it, for its deliveries are ``exhausted``; or ``ask`` whether the entry that claims it is pending.
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
