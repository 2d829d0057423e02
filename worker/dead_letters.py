"""Events that a consumer group could not handle: what is written about each, listing them, and putting them back."""

from dataclasses import dataclass
from typing import Final

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


def dead_letter(reason: str, entry_id: str, deliveries: int) -> dict[str, str | int]:
    """What a dead letter has beside the fields of the event."""
    return {REASON: reason, ENTRY_ID: entry_id, DELIVERIES: deliveries}
