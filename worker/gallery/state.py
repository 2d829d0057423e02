"""What one version of a gallery holds, and its files."""

import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import GalleryError
from worker.gallery.index import Vectors
from worker.gallery.snapshots import Content, MemoryStore, Snapshot, SnapshotStore
from worker.times import now_rfc3339

FORMAT: Final = "facestream.gallery.v1"
BLOCK_SAMPLES: Final = 8192

Store = SnapshotStore | MemoryStore


@dataclass(frozen=True, slots=True)
class Sample:
    """One enrolled face. ``photo`` is the file's name; ``photo_sha256`` the digest of its bytes;
    ``photo_hash`` a perceptual hash (hex, may be empty); ``added_at`` RFC 3339 UTC."""

    sample_id: str
    identity_id: str
    photo: str
    photo_sha256: str
    photo_hash: str
    quality: float
    added_at: str


@dataclass(frozen=True, slots=True)
class Person:
    """One enrolled person; ``identity_id`` stays when the name changes."""

    identity_id: str
    name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class NewSample:
    """A face to enrol: ``vector`` float32 (d,) of unit length, from the photo with these digests.

    ``identity_id`` is used if nobody is called ``identity_name`` yet; a new one is made where it is empty.
    """

    identity_name: str
    vector: NDArray[np.float32]
    photo: str
    photo_sha256: str
    photo_hash: str = ""
    quality: float = 1.0
    identity_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Up to ``BLOCK_SAMPLES`` samples and, row by row, their vectors float32 (n, d).

    ``stem`` names its two files where it has files of its own, which later versions share; "" where it has none.
    """

    samples: tuple[Sample, ...]
    vectors: Vectors
    stem: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one version of a gallery holds. There is always a last block, and only that one grows."""

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

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(chain.from_iterable(block.samples for block in self.blocks))

    @property
    def sample_count(self) -> int:
        return sum(len(block.samples) for block in self.blocks)

    def samples_of(self, identity_id: str) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.identity_id == identity_id)

    def vectors_of(self, identity_id: str | None = None) -> Vectors:
        """The vectors float32 (n, d) of one person, or of all, in the order of ``samples``: a copy."""
        return np.concatenate([block.vectors[_rows(block, identity_id)] for block in self.blocks])

    def plus(self, samples: list[Sample], vectors: Vectors, names: dict[str, str]) -> "State":
        """With further samples, row by row of ``vectors``, and these names."""
        last = self.blocks[-1]
        samples = [*last.samples, *samples]
        vectors = np.concatenate([last.vectors, vectors])
        starts = range(0, len(samples), BLOCK_SAMPLES)
        grown = [
            Block(tuple(samples[start : start + BLOCK_SAMPLES]), vectors[start : start + BLOCK_SAMPLES].copy())
            for start in starts
        ]
        return replace(self, blocks=(*self.blocks[:-1], *grown), names=names)

    def minus(self, sample_ids: set[str]) -> "State":
        """Without these samples, and without the people whose last samples they are."""
        blocks = [_without(block, sample_ids) for block in self.blocks]
        blocks = [block for block in blocks[:-1] if block.samples] + blocks[-1:]
        left = {sample.identity_id for block in blocks for sample in block.samples}
        return replace(self, blocks=tuple(blocks), names={key: name for key, name in self.names.items() if key in left})


def new_identity_id() -> str:
    """An id that no person has."""
    return uuid.uuid4().hex


def now() -> str:
    """RFC 3339 UTC, milliseconds."""
    return now_rfc3339()


def empty(model_id: str, preprocessing_digest: str, dimension: int) -> State:
    """A gallery of nobody."""
    return State(
        version=0,
        model_id=model_id,
        preprocessing_digest=preprocessing_digest,
        dimension=dimension,
        names={},
        blocks=(Block((), np.empty((0, dimension), np.float32)),),
        threshold=None,
        camera_thresholds={},
        calibration={},
        created_at=now(),
    )


def enrolled(state: State, samples: Sequence[NewSample], vectors: Vectors) -> tuple[State, list[Sample | None]]:
    """``state`` with ``samples``, row by row of ``vectors``, and what each is stored as: None for a known photo."""
    stored: list[Sample | None] = []
    ids = {name: identity_id for identity_id, name in state.names.items()}
    photos = {sample.photo_sha256 for sample in state.samples}
    for sample in samples:
        if sample.photo_sha256 in photos:
            stored.append(None)
            continue
        photos.add(sample.photo_sha256)
        identity_id = ids.setdefault(sample.identity_name, sample.identity_id or new_identity_id())
        stored.append(
            Sample(uuid.uuid4().hex, identity_id, sample.photo, sample.photo_sha256, sample.photo_hash,
                   round(float(sample.quality), 4), now())
        )  # fmt: skip
    taken = [row for row, sample in enumerate(stored) if sample is not None]
    if not taken:
        return state, stored
    names = {identity_id: name for name, identity_id in ids.items()}
    return state.plus([sample for sample in stored if sample is not None], vectors[taken], names), stored


def write(store: Store, state: State) -> State:
    """Makes ``state`` the version in use and returns it as it is stored; call while ``store`` is locked.

    Raises:
        GalleryError: the folder cannot be written; the version in use stays as it was.
    """
    last = state.blocks[-1]
    files = {"people.json": _people(last, state.names), "embeddings.npy": _npy(last.vectors)}
    stems: list[str] = []
    shared: dict[str, bytes | None] = {}
    for block in state.blocks[:-1]:
        stem = block.stem
        if stem:
            shared |= {f"{stem}.json": None, f"{stem}.npy": None}
        else:
            people, vectors = _people(block, {}), _npy(block.vectors)
            stem = hashlib.sha256(hashlib.sha256(people).digest() + hashlib.sha256(vectors).digest()).hexdigest()
            shared |= {f"{stem}.json": people, f"{stem}.npy": vectors}
        stems.append(stem)
    fields = {
        "format": FORMAT,
        "model_id": state.model_id,
        "preprocessing_digest": state.preprocessing_digest,
        "dimension": state.dimension,
        "threshold": state.threshold,
        "camera_thresholds": state.camera_thresholds,
        "calibration": state.calibration,
        "created_at": state.created_at,
        "blocks": stems,
    }
    version, stored = store.write(files, fields, shared)
    blocks = [
        block if block.stem else replace(block, vectors=_array(stored[f"{stem}.npy"]), stem=stem)
        for block, stem in zip(state.blocks, stems, strict=False)
    ]
    return replace(state, version=version, blocks=(*blocks, last))


def parse(snapshot: Snapshot, folder: Path, before: State | None = None) -> State:
    """The state in a snapshot; blocks that ``before`` has are the same objects.

    Raises:
        GalleryError: a format of another version of this program.
    """
    manifest, files = snapshot.manifest, snapshot.files
    if manifest.get("format") != FORMAT:
        raise GalleryError(
            f"gallery {folder} has format {manifest.get('format')!r}, this version reads {FORMAT}; upgrade facestream"
        )
    people = json.loads(bytes(files["people.json"]))
    last = Block(_samples(people), _array(files["embeddings.npy"]))
    known = {block.stem: block for block in before.blocks if block.stem} if before else {}
    sealed = [
        known.get(stem) or Block(_samples(json.loads(bytes(files[f"{stem}.json"]))), _array(files[f"{stem}.npy"]), stem)
        for stem in manifest.get("blocks", [])
    ]
    return State(
        version=snapshot.version,
        model_id=manifest["model_id"],
        preprocessing_digest=manifest["preprocessing_digest"],
        dimension=manifest["dimension"],
        names=people["names"],
        blocks=(*sealed, last),
        threshold=manifest["threshold"],
        camera_thresholds=manifest["camera_thresholds"],
        calibration=manifest["calibration"],
        created_at=manifest["created_at"],
    )


def _rows(block: Block, identity_id: str | None) -> slice | list[int]:
    if identity_id is None:
        return slice(None)
    return [row for row, sample in enumerate(block.samples) if sample.identity_id == identity_id]


def _without(block: Block, sample_ids: set[str]) -> Block:
    kept = [row for row, sample in enumerate(block.samples) if sample.sample_id not in sample_ids]
    if len(kept) == len(block.samples):
        return block
    return Block(tuple(block.samples[row] for row in kept), block.vectors[kept])


def _people(block: Block, names: dict[str, str]) -> bytes:
    return json.dumps({"names": names, "samples": [asdict(sample) for sample in block.samples]}).encode()


def _samples(people: dict[str, Any]) -> tuple[Sample, ...]:
    return tuple(Sample(**sample) for sample in people["samples"])


def _npy(vectors: Vectors) -> bytes:
    out = io.BytesIO()
    np.save(out, vectors, allow_pickle=False)
    return out.getvalue()


def _array(content: Content) -> Vectors:
    """The array in an ``.npy`` file, read-only, without a copy."""
    head = io.BytesIO(content[:4096])
    np.lib.format.read_magic(head)
    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    array: Vectors = np.frombuffer(content, dtype, offset=head.tell()).reshape(shape)
    return array


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of the people whom a switch would remove, and of those whom it would bring in."""

    leaving: tuple[str, ...]
    coming: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.leaving or self.coming)

    def __str__(self) -> str:
        return f"leaving: {_some(self.leaving)}; coming: {_some(self.coming)}"


def other_people(before: State, after: State) -> Difference:
    """Who is only in the one, and only in the other, by identity_id."""
    old, new = before.names, after.names
    return Difference(
        tuple(sorted(old[key] for key in old.keys() - new)), tuple(sorted(new[key] for key in new.keys() - old))
    )


def removed_samples(before: State, after: State) -> set[str]:
    """The ids of the samples that ``after`` no longer has; costs nothing for the blocks that stayed."""
    lost, new = _apart(before, after)
    return {sample.sample_id for sample in lost} - {sample.sample_id for sample in new}


def added_samples(before: State, after: State) -> dict[str, tuple[Sample, Vectors]]:
    """The samples that ``before`` did not have, in order, with their vectors float32 (d,)."""
    kept = {id(block) for block in before.blocks}
    known = {sample.sample_id for sample in _apart(before, after)[0]}
    return {
        sample.sample_id: (sample, block.vectors[row])
        for block in after.blocks
        if id(block) not in kept
        for row, sample in enumerate(block.samples)
        if sample.sample_id not in known
    }


def _apart(before: State, after: State) -> tuple[list[Sample], list[Sample]]:
    """The samples of the blocks that only the one, and only the other, has."""
    old, new = ({id(block): block for block in state.blocks} for state in (before, after))
    return (
        [sample for key, block in old.items() if key not in new for sample in block.samples],
        [sample for key, block in new.items() if key not in old for sample in block.samples],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nobody"
