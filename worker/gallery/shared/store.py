"""A shared gallery in Redis: read, changed and replaced, each in one step that others see whole or not at all."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr, ValidationError

from worker.config import RedisConfig
from worker.errors import ConfigError, GalleryUnavailableError, SinkError
from worker.gallery.contents import Contents, added_samples, removed_samples
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
from worker.redaction import redact, redact_url
from worker.redis.client import REDIS_ERRORS, Client, connect, find_servers_again, longest_block_s
from worker.redis.keys import gallery_key
from worker.redis.script import Script, lua

DEFAULT_NAME: Final = "default"
TOUCHED_AT_MOST: Final = 2000
"""Ids of a change that touches more are not listed: readers then read everything."""
FORGET_WORKER_MS: Final = 24 * 3600 * 1000
_RESTORING_MS: Final = 60_000
_CHUNK: Final = 500
_STAGED_S: Final = 600
_READINGS: Final = 5

_NEWER, _CHANGE, _REPLACE = (lua(__package__, "at", name) for name in ("newer", "change", "replace"))
_RELEASE, _ACKNOWLEDGE, _LEAVE, _WORKERS = (
    lua(__package__, name) for name in ("release", "acknowledge", "leave", "workers")
)


@dataclass(frozen=True, slots=True)
class GalleryAddress:
    """Where a shared gallery is: ``redis_url`` may hold credentials; ``label`` does not."""

    redis_url: SecretStr
    name: str
    label: str


def parse_gallery_url(url: str) -> GalleryAddress:
    """The server and the name in ``redis://...?gallery=NAME``.

    Raises:
        ConfigError: an empty name.
    """
    label = redact_url(url)
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigError(f"gallery '{label}' is not a URL of Redis; write redis://host:6379/0?gallery=NAME") from None
    names = [value for key, value in options if key == "gallery"] or [DEFAULT_NAME]
    if not names[-1] or set("{}") & set(names[-1]):
        raise ConfigError(f"gallery '{label}': the name after gallery= must not be empty or hold braces")
    rest = urlencode([option for option in options if option[0] != "gallery"])
    return GalleryAddress(SecretStr(urlunsplit(parts._replace(query=rest))), names[-1], label)


@dataclass(frozen=True, slots=True)
class Follower:
    """A worker that follows the gallery: the version it searches, and since when it has been silent."""

    worker_id: str
    version: int
    silent_s: float


class SharedStore:
    """What the shared gallery called ``address.name`` holds. Every method is one request or a few; none keeps anything.

    All methods that ask Redis raise GalleryUnavailableError where it does not answer or refuses.
    """

    def __init__(self, client: Client, address: GalleryAddress, longest_block_s: float = 1.0) -> None:
        self.label = address.label
        self.name = address.name
        self._client: Any = client
        self.longest_block_s = longest_block_s
        self._keys = [self._key(name) for name in ("meta", "people", "samples", "vectors", "changes", "removed")]
        self._meta, self._people, self._samples, self._vectors, self._changes, self._removed = self._keys
        self._following = [self._key("workers"), self._key("acknowledged")]

    @classmethod
    def connect(cls, url: str, redis: RedisConfig | None = None) -> Self:
        """The gallery at ``url``; ``redis`` says the rest about the connection.

        Raises:
            ConfigError: the URL is none of Redis.
            GalleryError: Redis cannot be reached or used.
        """
        address = parse_gallery_url(url)
        changes = gallery_key(address.name, "changes")
        known = (redis or RedisConfig()).model_dump() | {"url": address.redis_url, "stream": changes}
        try:
            config = RedisConfig.model_validate(known)
            return cls(connect(config, read_only=True), address, longest_block_s(config))
        except ValidationError as error:
            problem = redact(error.errors(include_input=False)[0]["msg"].removeprefix("Value error, "))
            raise ConfigError(f"gallery {address.label}: {problem}") from None
        except SinkError as error:
            raise GalleryUnavailableError(f"gallery {address.label}: {error}") from None

    def beside(self, name: str) -> Self:
        """The gallery whose name is this one's with ``.name`` behind, over the same connections."""
        address = GalleryAddress(SecretStr(""), f"{self.name}.{name}", f"{self.label} ({name})")
        return type(self)(self._client, address, self.longest_block_s)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def claim_restoring(self, token: str) -> bool:
        """Whether the caller may write the whole gallery now: one at a time, since it may be large."""
        return bool(self._call("set", self._key("restoring"), token, nx=True, px=_RESTORING_MS))

    def end_restoring(self, token: str) -> None:
        """Lets others write the whole gallery; a claim that is not ended runs out by itself."""
        self._script(_RELEASE, [self._key("restoring")], [token])

    def acknowledge(self, worker_id: str, version: int) -> None:
        """Says that ``worker_id`` is alive and searches ``version``."""
        self._script(_ACKNOWLEDGE, self._following, [worker_id, version, FORGET_WORKER_MS])

    def leave(self, worker_id: str) -> None:
        """Says that ``worker_id`` follows the gallery no longer."""
        self._script(_LEAVE, self._following, [worker_id])

    def followers(self) -> list[Follower]:
        """Who follows the gallery, or did within a day."""
        now, beats, acknowledged = self._script(_WORKERS, self._following, [])
        versions = _pairs(acknowledged)
        return [
            Follower(worker.decode(), int(versions.get(worker, b"0")), (float(now) - float(beat)) / 1000)
            for worker, beat in _pairs(beats).items()
        ]

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
        answer = self._script(_NEWER, self._keys, [*mine.place, TOUCHED_AT_MOST])
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

    def change(self, mine: Copy, after: Contents, kind: str, change_id: str) -> Copy | None:
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
            *mine.place, change_id, kind, _listed([*renamed, *lost]), _listed([*added, *gone]),
            len(changed_meta), len(renamed), len(lost), len(added), len(gone),
            *_flat(changed_meta), *_flat(renamed), *lost,
        ]  # fmt: skip
        for row, (sample_id, (sample, vector)) in enumerate(added.items()):
            arguments += [sample_id, record_of(sample, (version, row), vector), raw_vector(vector)]
        if self._script(_CHANGE, self._keys, [*arguments, *gone]) != b"done":
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
            answer = self._script(_REPLACE, [*self._keys, *staged], [*place, *_flat(meta_of_copy(new))])
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
            meta = _text(self._call("hgetall", self._meta))
            if not meta:
                return None
            if mine is not None and not _of_model(meta, mine.state):
                return nameless(meta)
            copy = self._read(meta, mine if mine is not None and _grew(meta, mine, same_line) else None)
            answer = self._script(_NEWER, self._keys, [*copy.place, TOUCHED_AT_MOST])
            if answer[0] == b"current":
                return copy
            if answer[0] == b"newer":
                return self._applied(copy, answer)
        raise GalleryUnavailableError(f"gallery {self.label} changes faster than it can be read; try again later")

    def _read(self, meta: Mapping[str, str], mine: Copy | None) -> Copy:
        people = _text(self._call("hgetall", self._people))
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
        meta = _text(_pairs(answer[1]))
        people = mine.state.names | _text(_pairs(answer[2]))
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

    def _key(self, name: str) -> str:
        return gallery_key(self.name, name)

    def _script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._asked(partial(script, self._client, keys, arguments))

    def _call(self, command: str, *arguments: Any, **options: Any) -> Any:
        return self._asked(partial(getattr(self._client, command), *arguments, **options))

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except REDIS_ERRORS as error:
            find_servers_again(self._client)  # after a fail-over the primary is another one
            # redis-py may put the failed command, with its arguments, before the reply.
            reply = " ".join(redact(str(error)).rpartition("caused error: ")[2].split())[:200] or type(error).__name__
            raise GalleryUnavailableError(
                f"gallery {self.label}: Redis cannot be used ({reply}); is it running, and may this user use the keys "
                f"{gallery_key(self.name, '*')}?"
            ) from None


def _of_model(meta: Mapping[str, str], state: Contents) -> bool:
    return (meta["model_id"], meta["preprocessing_digest"]) == (state.model_id, state.preprocessing_digest)


def _grew(meta: Mapping[str, str], mine: Copy, same_line: bool) -> bool:
    """Whether the gallery described by ``meta`` grew out of ``mine``, so that what it lacks was removed."""
    if meta["incarnation"] == mine.incarnation:
        return same_line
    return bool(json.loads(meta["contains"]).get(mine.incarnation, 0) >= mine.state.version)


def _chunks(items: Sequence[Any]) -> Iterator[Any]:
    for first in range(0, len(items), _CHUNK):
        yield items[first : first + _CHUNK]


def _listed(ids: Sequence[str]) -> str:
    """Touched ids as a change lists them."""
    return "*" if len(ids) > TOUCHED_AT_MOST else " ".join(ids)


def _flat(fields: Mapping[str, str]) -> list[str]:
    """Fields and values in turn, as a script takes them."""
    return [part for pair in fields.items() for part in pair]


def _pairs(found: Any) -> dict[bytes, bytes]:
    """What a script replies as a list of fields and values."""
    return dict(zip(found[::2], found[1::2], strict=True))


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Fields and values as text."""
    return {key.decode(): value.decode() for key, value in fields.items()}
