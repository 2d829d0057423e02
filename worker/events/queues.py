"""Queues of entries, oldest first: in memory, and on disk."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

from worker.events.spool import Entry, EventTable, Spool

_CHUNK_EVENTS: Final = 256

Gone = tuple[int, str]
"""Number and camera of an entry that was dropped."""


class MemoryQueue:
    """Entries by their number."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, entry: Entry) -> None:
        self._entries[entry.seq] = entry
        self.size_bytes += entry.size_bytes

    def oldest(self, limit: int) -> list[Entry]:
        return list(islice(self._entries.values(), limit))

    def matching(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        return [entry for entry in self._entries.values() if wanted(entry)]

    def remove(self, seqs: Iterable[int]) -> None:
        """Removes those of ``seqs`` that are here."""
        for seq in seqs:
            if entry := self._entries.pop(seq, None):
                self.size_bytes -= entry.size_bytes

    def __contains__(self, seq: object) -> bool:
        return seq in self._entries

    def drop_oldest(self, count: int, spared: Collection[int]) -> list[Gone]:
        """Drops up to ``count`` entries that are not ``spared``."""
        going = list(islice((entry for entry in self._entries.values() if entry.seq not in spared), count))
        self.remove(entry.seq for entry in going)
        return [(entry.seq, entry.camera_id) for entry in going]

    def renumber(self, first_seq: int) -> int:
        """Counts the entries from ``first_seq`` on; returns the next number."""
        self._entries = {
            seq: replace(entry, seq=seq) for seq, entry in enumerate(self._entries.values(), start=first_seq)
        }
        return first_seq + len(self._entries)

    def clear(self) -> list[Entry]:
        """Empties the queue; returns what was in it."""
        entries, self._entries, self.size_bytes = list(self._entries.values()), {}, 0
        return entries


class DiskQueue:
    """The events of a spool, counted. An event that could not be deleted counts as gone, and is deleted later.

    Methods raise as those of :class:`worker.events.spool.Spool` do.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._table = EventTable(spool)
        self._events, self.size_bytes, self.newest_seq = self._table.totals()
        self._undeleted: set[int] = set()

    def __len__(self) -> int:
        return self._events

    def push(self, entries: Collection[Entry]) -> None:
        """All or none."""
        self._table.insert(entries)
        self._events += len(entries)
        self.size_bytes += sum(entry.size_bytes for entry in entries)

    def take_from(self, memory: MemoryQueue) -> None:
        """Takes all that waits there, in order."""
        while chunk := memory.oldest(_CHUNK_EVENTS):
            self.push(chunk)
            memory.remove(entry.seq for entry in chunk)

    def oldest(self, limit: int) -> list[Entry]:
        read = self._table.oldest(limit + len(self._undeleted))
        return [entry for entry in read if entry.seq not in self._undeleted][:limit]

    def remove(self, entries: Collection[Entry]) -> None:
        self._undeleted |= {entry.seq for entry in entries}
        self._events -= len(entries)
        self.size_bytes -= sum(entry.size_bytes for entry in entries)
        self.delete_removed()

    def matching(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Those that are ``wanted``; all events are read."""
        found: list[Entry] = []
        seq = -1
        while chunk := self._table.after(seq, _CHUNK_EVENTS):
            seq = chunk[-1].seq
            found += [entry for entry in chunk if entry.seq not in self._undeleted and wanted(entry)]
        return found

    def delete_removed(self) -> None:
        """Deletes the entries that could not be deleted when they were removed."""
        if self._undeleted:
            self._table.delete(self._undeleted)
            self._undeleted.clear()

    def drop_oldest(self, count: int, spared: Collection[int]) -> list[Gone]:
        """Drops up to ``count`` entries that are not ``spared``."""
        self.delete_removed()
        gone = self._table.drop_oldest(count, spared)
        self._events -= len(gone)
        self.size_bytes -= sum(size_bytes for _, _, size_bytes in gone)
        return [(seq, camera_id) for seq, camera_id, _ in gone]
