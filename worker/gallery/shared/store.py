"""A shared gallery in Redis: read, changed and replaced, each in one step that others see whole or not at all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from worker.errors import GalleryUnavailableError
from worker.gallery.diff import added_samples, removed_samples
from worker.gallery.shared.connection import GalleryRedis
from worker.gallery.shared.replica import (
    Copy,
    Stored,
    meta_of,
    meta_of_copy,
    nameless,
    new_id,
    raw_vector,
    record_of,
    stored,
    updated,
)
from worker.gallery.shared.scripts import (
    CHANGE,
    NEWER,
    REPLACE,
    flat,
    listed,
    pairs,
    text,
)  # fmt: skip
from worker.gallery.state import State

_CHUNK: Final = 500
_STAGED_S: Final = 600
_READINGS: Final = 5


class SharedStore(GalleryRedis):
    """What the shared gallery called ``address.name`` holds. Every method is one request or a few; none keeps anything.

    All raise GalleryUnavailableError where Redis does not answer or refuses.
    """

    def exists(self) -> bool:
        """Whether there is a gallery."""
        return bool(self._call("exists", self._meta))

    def fetch(self, mine: Copy | None = None) -> tuple[Copy | None, bool]:
        """What Redis holds now (``mine`` itself if that is it, None if there is nothing), and whether ``mine`` or a
        later version of it went into that. Of another model's gallery nothing but that is read.

        Raises:
            GalleryError: it was written by another version of this program.
        """
        if mine is None:
            return self._everything(None), False
        answer = self._script(NEWER, self._keys, mine.place)
        match answer[0]:
            case b"current":
                return mine, True
            case b"newer":
                return self._applied(mine, answer), True
            case b"everything":
                return self._everything(mine), True
            case b"missing":
                return None, False
        theirs = self._everything(mine, same_line=False)
        return theirs, theirs is not None and theirs.incarnation != mine.incarnation and theirs.has_seen(mine)

    def change(self, mine: Copy, after: State, kind: str, change_id: str) -> Copy | None:
        """Makes ``after`` the version that follows ``mine``; None if ``mine`` is not the newest any more.

        May be repeated with the same ``change_id`` where no reply came: nothing is done twice.
        """
        before, version = mine.state, mine.state.version + 1
        added, gone = added_samples(before, after), removed_samples(before, after)
        renamed = {key: name for key, name in after.names.items() if before.names.get(key) != name}
        lost = before.names.keys() - after.names
        meta = meta_of(after)
        changed_meta = {key: value for key, value in meta.items() if meta_of(before)[key] != value}
        arguments: list[Any] = [
            *mine.place, change_id, kind, listed([*renamed, *lost]), listed([*added, *gone]),
            len(changed_meta), len(renamed), len(lost), len(added), len(gone),
            *flat(changed_meta), *flat(renamed), *lost,
        ]  # fmt: skip
        for row, (sample_id, (sample, vector)) in enumerate(added.items()):
            arguments += [sample_id, record_of(sample, (version, row), vector), raw_vector(vector)]
        if self._script(CHANGE, self._keys, [*arguments, *gone]) != b"done":
            return None
        removed = mine.removed | gone if gone else mine.removed
        state = replace(after, version=version)
        return Copy(state, mine.incarnation, change_id, contains=mine.contains, removed=removed)

    def replace(self, theirs: Copy | None, new: Copy) -> bool:
        """Puts ``new`` in the place of ``theirs`` (None: of nothing); False if that is not what is there any more.

        Everything is written beside first, so that no reader sees half of it.
        """
        staged = [self._key(f"staged:{new_id()}:{name}") for name in ("people", "samples", "vectors", "removed")]
        people, samples, vectors, removed = staged
        try:
            for names in _chunks(list(new.state.names.items())):
                self._stage(people, dict(names))
            row = 0
            for block in new.state.blocks:
                for part in _chunks(list(zip(block.samples, block.vectors, strict=True))):
                    records = {}
                    for sample, vector in part:
                        row += 1
                        records[sample.sample_id] = record_of(sample, (new.state.version, row), vector)
                    self._stage(samples, records)
                    self._stage(vectors, {sample.sample_id: raw_vector(vector) for sample, vector in part})
            for ids in _chunks(sorted(new.removed)):
                self._call("zadd", removed, dict.fromkeys(ids, new.state.version))
                self._call("expire", removed, _STAGED_S)
            self._require_staged([people, samples, vectors] if row else [])
            place = ("", "", "") if theirs is None else theirs.place
            answer = self._script(REPLACE, [*self._keys, *staged], [*place, *flat(meta_of_copy(new))])
        except GalleryUnavailableError:
            # Until it expires, what was staged holds faces; the next attempt stages anew.
            self._try_delete(staged)
            raise
        return bool(answer == b"done")

    def wait(self, mine: Copy, block_s: float) -> bool:
        """Whether there is a change after ``mine``, waiting up to ``block_s`` for one."""
        last = f"{mine.state.version}-0"
        return bool(self._call("xread", {self._changes: last}, count=1, block=max(1, round(block_s * 1000))))

    def _everything(self, mine: Copy | None, *, same_line: bool = True) -> Copy | None:
        """All that Redis holds; what is known from ``mine``, if the gallery grew out of that, is not read again.

        ``same_line``: versions of one incarnation follow from each other, as they do unless Redis has lost some.
        """
        for _ in range(_READINGS):
            meta = text(self._call("hgetall", self._meta))
            if not meta:
                return None
            if mine is not None and not _of_model(meta, mine.state):
                return nameless(meta)
            copy = self._read(meta, mine if mine is not None and _grew(meta, mine, same_line) else None)
            answer = self._script(NEWER, self._keys, copy.place)
            if answer[0] == b"current":
                return copy
            if answer[0] == b"newer":
                return self._applied(copy, answer)
        raise GalleryUnavailableError(f"gallery {self.label} changes faster than it can be read; try again later")

    def _read(self, meta: Mapping[str, str], mine: Copy | None) -> Copy:
        people = text(self._call("hgetall", self._people))
        removed = frozenset(key.decode() for key in self._call("zrange", self._removed, 0, -1))
        dimension = int(meta["dimension"])
        known = {} if mine is None else {sample.sample_id: sample for sample in mine.state.samples}
        touched: dict[str, Stored | None] = dict.fromkeys(known)
        wanted: list[tuple[str, bytes]] = []
        for key, record in self._all_of(self._samples):
            sample_id = key.decode()
            if sample_id not in known:
                wanted.append((sample_id, record))
                continue
            found = stored(record, None, dimension)
            if found.sample == known[sample_id]:
                touched.pop(sample_id, None)  # HSCAN may name one twice
            else:
                touched[sample_id] = found
        for part in _chunks(wanted):
            raw = self._call("hmget", self._vectors, [sample_id for sample_id, _ in part])
            for (sample_id, record), vector in zip(part, raw, strict=True):
                touched[sample_id] = stored(record, vector, dimension)
        return updated(mine, meta, people, touched, removed, self.label)

    def _applied(self, mine: Copy, answer: Sequence[Any]) -> Copy:
        """``mine`` with what a script found to be newer."""
        meta = text(pairs(answer[1]))
        people = mine.state.names | text(pairs(answer[2]))
        people = {key: name for key, name in people.items() if name}
        triples = zip(answer[3][::3], answer[3][1::3], answer[3][2::3], strict=True)
        touched = {
            key.decode(): stored(record, vector, mine.state.dimension) if record else None
            for key, record, vector in triples
        }
        return updated(mine, meta, people, touched, frozenset(), self.label)

    def _all_of(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        cursor = 0
        while True:
            cursor, found = self._call("hscan", key, cursor, count=_CHUNK)
            yield from found.items()
            if not cursor:
                return

    def _stage(self, key: str, fields: Mapping[str, Any]) -> None:
        self._call("hset", key, mapping=fields)
        self._call("expire", key, _STAGED_S)

    def _require_staged(self, keys: Sequence[str]) -> None:
        if not all(self._call("expire", key, _STAGED_S) for key in keys):
            raise GalleryUnavailableError(f"gallery {self.label}: writing all of it took too long; try again")

    def _try_delete(self, keys: Sequence[str]) -> None:
        try:
            self._call("delete", *keys)
        except GalleryUnavailableError:
            return


def _of_model(meta: Mapping[str, str], state: State) -> bool:
    return (meta["model_id"], meta["preprocessing_digest"]) == (state.model_id, state.preprocessing_digest)


def _grew(meta: Mapping[str, str], mine: Copy, same_line: bool) -> bool:
    """Whether the gallery described by ``meta`` grew out of ``mine``, so that what it lacks was removed."""
    if meta["incarnation"] == mine.incarnation:
        return same_line
    return bool(json.loads(meta["contains"]).get(mine.incarnation, 0) >= mine.state.version)


def _chunks(items: Sequence[Any]) -> Iterator[Any]:
    for first in range(0, len(items), _CHUNK):
        yield items[first : first + _CHUNK]
