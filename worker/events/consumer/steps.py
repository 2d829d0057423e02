"""Work on Redis described as steps, so that one description serves blocking and asynchronous clients alike.

A generator yields what it wants done and is sent the outcome; a failure is thrown into it. Who drives it does nothing
but input and output.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Call:
    """A method of a client: ``Call("xack", (stream, group, entry_id))``. The outcome is its reply."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Calls that take effect together, all on keys of one slot. The outcome is the list of their replies."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Find:
    """The keys of streams that match ``pattern``, wherever in a Cluster they lie. The outcome is their list."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Split:
    """The outcome is ``keys`` in groups of which each may be touched by one command."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. The outcome is whether a stop was asked for, which also ends the wait."""

    seconds: float


Step: TypeAlias = Call | Transaction | Find | Split | Pause
_T = TypeVar("_T")
Steps: TypeAlias = Generator[Step, Any, _T]


def call(name: str, *arguments: Any, **options: Any) -> Call:
    """Short for a :class:`Call`."""
    return Call(name, arguments, options)


def text(value: bytes | str) -> str:
    """A name or id as Redis gave it."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry that some consumer was handed and has not acknowledged."""

    entry_id: str
    consumer: str
    idle_ms: int
    deliveries: int


def pending_entries(reply: Any) -> list[Pending]:
    """The reply to XPENDING with a range; redis-py leaves it as it is within a transaction on a Cluster."""
    rows = [tuple(row.values()) if isinstance(row, dict) else row for row in reply or ()]
    return [Pending(text(entry_id), text(consumer), idle_ms, count) for entry_id, consumer, idle_ms, count in rows]
