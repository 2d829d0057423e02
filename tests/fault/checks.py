"""What must hold of a stream of events, whatever broke while it was written."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.fault.cameras import Shown
from worker.types import Event

Entries = Sequence[tuple[str, Event]]


def accepted(entries: Entries) -> list[Event]:
    """What a consumer makes of them: each event once."""
    seen: dict[str, Event] = {}
    for _, event in entries:
        seen.setdefault(event.event_id, event)
    return list(seen.values())


def overlapping_epochs(entries: Entries) -> list[Event]:
    """Events of an epoch that were caused after a later epoch of their camera had begun, by what their entry says.

    ``captured_at`` is when the face was last seen, the entry's id when Redis took it: what was taken before the next
    epoch began was caused before it too.
    """
    begins: dict[str, set[int]] = defaultdict(set)
    for _, event in entries:
        begins[event.camera_id].add(event.epoch)
    wrong = []
    for entry_id, event in entries:
        later = [epoch for epoch in begins[event.camera_id] if epoch > event.epoch]
        taken_ms, captured_ms = int(entry_id.split("-")[0]), event.captured_at.timestamp() * 1000
        if later and taken_ms >= min(later) and captured_ms >= min(later):
            wrong.append(event)
    return wrong


def told_twice(entries: Entries) -> dict[str, set[str]]:
    """Sightings that began, or ended, under more than one ``event_id``."""
    ids: dict[str, set[str]] = defaultdict(set)
    for _, event in entries:
        if event.type in {"started", "ended"}:
            ids[f"{event.sighting_id} {event.type}"].add(event.event_id)
    return {key: found for key, found in ids.items() if len(found) > 1}


def missed(shown: Iterable[Shown], entries: Entries, *, slack_s: float = 3.0) -> list[Shown]:
    """Who was there and was never named."""
    named = [
        (event.camera_id, event.identity_name, event.started_at.timestamp(), event.captured_at.timestamp())
        for event in accepted(entries)
        if event.identity_name
    ]

    def was_named(visit: Shown) -> bool:
        return any(
            camera_id == visit.camera_id
            and name == visit.name
            and start <= visit.end + slack_s
            and seen >= visit.start - slack_s
            for camera_id, name, start, seen in named
        )

    return [visit for visit in shown if not was_named(visit)]


def sightings_each(shown: Sequence[Shown], entries: Entries) -> float:
    """How many named sightings there were for each visit of those shown; 1 is right."""
    named = {
        (event.sighting_id, event.camera_id, event.identity_name, event.started_at.timestamp())
        for event in accepted(entries)
        if event.identity_name
    }
    counts = [
        sum(
            camera_id == visit.camera_id and name == visit.name and visit.start - 1 <= started <= visit.end
            for _, camera_id, name, started in named
        )
        for visit in shown
    ]
    return sum(counts) / max(len(counts), 1)
