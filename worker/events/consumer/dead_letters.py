"""Events that a consumer group could not handle: what is written about each, listing them, and putting them back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from worker.events.consumer.steps import text
from worker.events.consumer.streams import stream_keys
from worker.redis.client import Client
from worker.redis.keys import group_key

REASON: Final = "dead_reason"
ENTRY_ID: Final = "dead_entry_id"
DELIVERIES: Final = "dead_deliveries"
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """``fields`` are those of the event, as they stood in ``stream`` under ``entry_id``."""

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
        names = [group] if group else [text(each["name"]) for each in client.xinfo_groups(key)]
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


def _letters(client: Client, stream: str, group: str) -> Iterator[DeadLetter]:
    last = "-"
    while page := cast("list[Any]", client.xrange(group_key(stream, "dead", group), min=last, count=_PAGE)):
        for letter_id, raw in page:
            fields = {text(name): text(value) for name, value in raw.items()}
            yield DeadLetter(
                letter_id=text(letter_id),
                stream=stream,
                group=group,
                entry_id=fields.pop(ENTRY_ID, ""),
                deliveries=int(fields.pop(DELIVERIES, "0")),
                reason=fields.pop(REASON, ""),
                fields=fields,
            )
        last = f"({text(page[-1][0])}"
