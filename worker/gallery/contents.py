"""What one version of a gallery holds: people, samples and thresholds; and how two versions differ."""

import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.erased import Erased
from worker.gallery.consents import Consent
from worker.gallery.groups import Group, membership
from worker.names import are_person_names, person_name
from worker.types import Membership, Vectors
from worker.wire import now_rfc3339

BLOCK_SAMPLES: Final = 8192
_LEAST_ROOM: Final = 64
# Passes over all samples use these: a removal is taken up by each worker of a fleet, and most of it is such passes.
_sample_ids: Final = attrgetter("sample_id")
_people: Final = attrgetter("identity_id")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One enrolled face. ``photo`` is the name of the photo's file, ``photo_sha256`` the digest of its bytes,
    ``photo_hash`` a perceptual hash (hex, may be empty). ``added_at`` is RFC 3339 UTC; ``quality`` is 0..1."""

    sample_id: str
    identity_id: str
    photo: str
    photo_sha256: str
    photo_hash: str
    quality: float
    added_at: str


@dataclass(frozen=True, slots=True)
class Person:
    """One enrolled person; ``identity_id`` stays when the name changes. ``consent`` is None where none was noted: then
    nothing bounds the time in which the person is recognised. ``groups``: the names of the groups they are in."""

    identity_id: str
    name: str
    samples: tuple[Sample, ...]
    consent: Consent | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewSample:
    """A face to enrol: ``vector`` float32 (d,) of unit length, from the photo with these digests.

    If nobody is called ``identity_name`` yet, the new person gets ``identity_id``, or a new id where that is empty.
    """

    identity_name: str
    vector: NDArray[np.float32]
    photo: str
    photo_sha256: str
    photo_hash: str = ""
    quality: float = 1.0
    identity_id: str = ""


class Room:
    """Memory for the vectors of a block that grows, float32 (rows, d). Each row is written once, for one version and
    those that grow from it, so what earlier versions show of it never changes. Safe to use from any thread."""

    def __init__(self, rows: int, first: Vectors, second: Vectors) -> None:
        self._rows = np.empty((rows, first.shape[1]), np.float32)
        self._used = len(first) + len(second)
        self._lock = threading.Lock()
        self.begun = np.concatenate([first, second], out=self._rows[: self._used])
        """The rows that it was made with."""

    def after(self, used: int, vectors: Vectors) -> Vectors | None:
        """The first ``used`` rows with ``vectors`` behind them; None if another version has grown from those, or there
        is no more room."""
        end = used + len(vectors)
        with self._lock:
            if self._used != used or end > len(self._rows):
                return None
            self._used = end
        self._rows[used:end] = vectors
        return self._rows[:end]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Up to ``BLOCK_SAMPLES`` samples and, row by row, their vectors float32 (n, d).

    ``stem`` names the two files of a block that later versions share; "" for a block without files of its own. Where
    two blocks have the same ``room``, the longer one begins with the samples of the shorter one.
    """

    samples: tuple[Sample, ...]
    vectors: Vectors
    stem: str = ""
    room: Room | None = None

    @property
    def origin(self) -> int:
        """The same for living blocks of which one begins with the samples of the other."""
        return id(self if self.room is None else self.room)

    def grown(self, samples: Sequence[Sample], vectors: Vectors, most: int) -> "Block":
        """With these samples behind its own; ``most``: how many samples a block may come to hold."""
        own = len(self.samples)
        room = self.room
        together = None if room is None else room.after(own, vectors)
        if room is None or together is None:
            rows = max(min(most, max(2 * own, _LEAST_ROOM)), own + len(vectors))
            room = Room(rows, self.vectors, vectors)
            together = room.begun
        return Block((*self.samples, *samples), together, room=room)


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that one version of a gallery holds. There is always a last block, and only the last block grows.

    ``groups`` by name; ``memberships``: the names of their groups, of those who are in some, by identity_id.
    """

    version: int
    model_id: str
    preprocessing_digest: str
    dimension: int
    names: dict[str, str]
    blocks: tuple[Block, ...]
    threshold: float | None
    camera_thresholds: dict[str, float]
    calibration: dict[str, Any]
    created_at: str
    consents: dict[str, Consent] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    memberships: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(_samples(self.blocks))

    @property
    def sample_count(self) -> int:
        return sum(len(block.samples) for block in self.blocks)

    def samples_of(self, identity_id: str) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.identity_id == identity_id)

    def people(self) -> list[Person]:
        """Everybody, by name."""
        samples: dict[str, list[Sample]] = {identity_id: [] for identity_id in self.names}
        for sample in self.samples:
            samples[sample.identity_id].append(sample)
        people = [self.person(key, tuple(own)) for key, own in samples.items()]
        return sorted(people, key=lambda person: (person.name, person.identity_id))

    def person(self, identity_id: str, samples: tuple[Sample, ...]) -> Person:
        """The person with this id, whose ``samples`` these are."""
        groups = self.membership(identity_id).groups
        return Person(identity_id, self.names[identity_id], samples, self.consents.get(identity_id), groups)

    def membership(self, identity_id: str | None) -> Membership:
        """The groups of a person."""
        return membership(self.memberships.get(identity_id or "", ()), self.groups)

    def grouped(self, groups: Mapping[str, Collection[str]]) -> "Contents":
        """With these groups of the people named in ``groups``, by identity_id."""
        theirs = {key: tuple(sorted(set(names))) for key, names in groups.items() if names}
        return replace(self, memberships=_less(self.memberships, groups) | theirs)

    def consenting(self, consents: Mapping[str, Consent | None]) -> "Contents":
        """With these consents of the people named in ``consents``, by identity_id; None: nothing bounds that."""
        theirs = {key: one for key, one in consents.items() if one is not None}
        return replace(self, consents=_less(self.consents, consents) | theirs)

    def forgetting(self, people: Collection[str]) -> "Contents":
        """Without these people (ids), who have no samples: nothing that was noted of them is left."""
        if not people:
            return self
        names, consents = _less(self.names, people), _less(self.consents, people)
        return replace(self, names=names, consents=consents, memberships=_less(self.memberships, people))

    def vectors_of(self, identity_id: str | None = None) -> Vectors:
        """The vectors float32 (n, d) of one person, or of all, in the order of ``samples``: a copy."""
        return np.concatenate([block.vectors[_rows(block, identity_id)] for block in self.blocks])

    def plus(
        self, samples: list[Sample], vectors: Vectors, names: dict[str, str], *, block_samples: int = BLOCK_SAMPLES
    ) -> "Contents":
        """With further samples, row by row of ``vectors``, and these names; a block holds ``block_samples``."""
        blocks = list(self.blocks)
        while samples:
            own = len(blocks[-1].samples)
            if own >= block_samples:
                blocks.append(Block((), vectors[:0]))
                continue
            fitting = block_samples - own
            blocks[-1] = blocks[-1].grown(samples[:fitting], vectors[:fitting], block_samples)
            samples, vectors = samples[fitting:], vectors[fitting:]
        return replace(self, blocks=tuple(blocks), names=names)

    def minus(self, sample_ids: set[str]) -> "Contents":
        """Without these samples, and without each person who loses their last sample by this."""
        left, lost = self.cut(sample_ids)
        return left.forgetting(lost)

    def cut(self, sample_ids: set[str]) -> tuple["Contents", set[str]]:
        """Without these samples, and with everybody; and the ids of those who lose their last sample by this."""
        blocks: list[Block] = []
        lost: set[str] = set()
        for block in self.blocks:
            gone = list(map(sample_ids.__contains__, map(_sample_ids, block.samples)))
            if any(gone):
                lost.update(map(_people, compress(block.samples, gone)))
                kept = ~np.array(gone)
                block = Block(tuple(compress(block.samples, kept.tolist())), block.vectors[kept])
            blocks.append(block)
        blocks = [block for block in blocks[:-1] if block.samples] + blocks[-1:]
        if lost:
            lost.difference_update(map(_people, _samples(blocks)))
        return replace(self, blocks=tuple(blocks)), lost

    def without(self, erased: Erased, before: "Contents | None" = None) -> "Contents":
        """Without the people and samples who were erased; itself if none is here. ``before`` has none of them: whom
        and what both share is not looked up again, which takes a digest for each."""
        if not erased:
            return self
        names = self.names.keys() if before is None else self.names.keys() - before.names.keys()
        blocks = self.blocks if before is None else _beyond(self, before)
        people = {identity_id for identity_id in names if identity_id in erased}
        gone = {
            sample.sample_id
            for sample in _samples(blocks)
            if sample.identity_id in people or sample.sample_id in erased
        }
        if not people and not gone:
            return self
        return self.minus(gone).forgetting(people)


def new_identity_id() -> str:
    """An id that no person has."""
    return uuid.uuid4().hex


def empty(model_id: str, preprocessing_digest: str, dimension: int) -> Contents:
    """A gallery of nobody."""
    return Contents(
        version=0,
        model_id=model_id,
        preprocessing_digest=preprocessing_digest,
        dimension=dimension,
        names={},
        blocks=(Block((), np.empty((0, dimension), np.float32)),),
        threshold=None,
        camera_thresholds={},
        calibration={},
        created_at=now_rfc3339(),
    )


def enrolled(
    contents: Contents, samples: Sequence[NewSample], vectors: Vectors, *, block_samples: int = BLOCK_SAMPLES
) -> tuple[Contents, list[Sample | None]]:
    """``contents`` with ``samples``, row by row of ``vectors``; and what each sample is stored as.

    A sample whose photo is known already is not stored: None stands in its place.
    """
    stored: list[Sample | None] = []
    names = dict(contents.names)
    ids = _ids_of({sample.identity_name for sample in samples}, names)
    wanted = {sample.photo_sha256 for sample in samples}
    photos = {sample.photo_sha256 for sample in contents.samples if sample.photo_sha256 in wanted}
    for sample in samples:
        if sample.photo_sha256 in photos:
            stored.append(None)
            continue
        photos.add(sample.photo_sha256)
        identity_id = ids.setdefault(sample.identity_name, sample.identity_id or new_identity_id())
        names.setdefault(identity_id, sample.identity_name)
        stored.append(
            Sample(uuid.uuid4().hex, identity_id, sample.photo, sample.photo_sha256, sample.photo_hash,
                   round(float(sample.quality), 4), now_rfc3339())
        )  # fmt: skip
    taken = [row for row, sample in enumerate(stored) if sample is not None]
    if not taken:
        return contents, stored
    new = [sample for sample in stored if sample is not None]
    return contents.plus(new, vectors[taken], names, block_samples=block_samples), stored


def _ids_of(wanted: set[str], names: dict[str, str]) -> dict[str, str]:
    """Who is called by these names, as :func:`worker.names.person_name` gives them."""
    ids = {name: identity_id for identity_id, name in reversed(names.items()) if name in wanted}
    if len(ids) < len(wanted) and not are_person_names(names.values()):
        # Galleries of earlier versions may hold names that a new one has in another form, or one name twice.
        formed = {person_name(name): identity_id for identity_id, name in reversed(names.items())}
        ids = {name: formed[name] for name in wanted & formed.keys()} | ids
    return ids


def _rows(block: Block, identity_id: str | None) -> slice | list[int]:
    if identity_id is None:
        return slice(None)
    return [row for row, sample in enumerate(block.samples) if sample.identity_id == identity_id]


def _samples(blocks: Iterable[Block]) -> Iterator[Sample]:
    return chain.from_iterable(block.samples for block in blocks)


def _less(noted: dict[str, _T], people: Collection[str]) -> dict[str, _T]:
    """What was noted of others; ``noted`` itself if it is of others alone."""
    gone = [key for key in people if key in noted]
    left = dict(noted) if gone else noted
    for key in gone:
        left.pop(key, None)
    return left


@dataclass(frozen=True, slots=True)
class Difference:
    """What a switch changes: the names of the people whom it removes, and of the people whom it brings in."""

    leaving: tuple[str, ...]
    coming: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.leaving or self.coming)

    def __str__(self) -> str:
        return f"leaving: {_some(self.leaving)}; coming: {_some(self.coming)}"


def other_people(before: Contents, after: Contents) -> Difference:
    """The people who are only in ``before``, and those who are only in ``after``, by identity_id."""
    old, new = before.names, after.names
    return Difference(
        tuple(sorted(old[key] for key in old.keys() - new)), tuple(sorted(new[key] for key in new.keys() - old))
    )


def removed_samples(before: Contents, after: Contents) -> set[str]:
    """The ids of the samples that ``after`` no longer has. What stayed of blocks is not looked through."""
    old, new = _beyond(before, after), _beyond(after, before)
    return {*map(_sample_ids, _samples(old))} - {*map(_sample_ids, _samples(new))}


def changes_between(before: Contents, after: Contents) -> tuple[set[str], dict[str, tuple[Sample, Vectors]]]:
    """The ids of the samples that ``after`` has no more or has otherwise, and the samples that are new or otherwise,
    in order, with their vectors float32 (d,)."""
    old, new = _beyond(before, after), _beyond(after, before)
    # Most are the same objects, which are told quickly.
    stayed = {*map(id, _samples(old))} & {*map(id, _samples(new))}
    same = {sample for sample in _samples(old) if id(sample) not in stayed} & {
        sample for sample in _samples(new) if id(sample) not in stayed
    }

    def differs(sample: Sample) -> bool:
        return id(sample) not in stayed and sample not in same

    gone = {sample.sample_id for sample in _samples(old) if differs(sample)}
    return gone, {
        sample.sample_id: (sample, block.vectors[row])
        for block in new
        for row, sample in enumerate(block.samples)
        if differs(sample)
    }


def _beyond(contents: Contents, other: Contents) -> list[Block]:
    """What the blocks of ``contents`` hold beyond what they share with those of ``other``."""
    shared = {block.origin: len(block.samples) for block in other.blocks}
    starts = ((block, shared.get(block.origin, 0)) for block in contents.blocks)
    return [Block(block.samples[start:], block.vectors[start:]) for block, start in starts]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nobody"
