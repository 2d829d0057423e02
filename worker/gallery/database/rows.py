"""Galleries as rows of the tables, and back."""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from worker import encryption
from worker.database.owned import opened
from worker.gallery.contents import Block, Contents, Sample
from worker.gallery.groups import groups_of
from worker.names import clean_text
from worker.people_keys import Owned
from worker.types import Vectors

GONE: Final = "its key was destroyed"
"""Somebody was forgotten, and the row goes in a moment."""
_COLUMNS: Final = 9
_DOUBLE: Final = struct.Struct(">d")

Photo = tuple[str, str, str]
"""What it was called, its SHA-256, and its perceptual hash."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of samples, however it came."""

    sample_id: str
    identity_id: str
    photo: str
    photo_sha256: str
    photo_hash: str
    quality: float
    added_at: str
    digest: str
    vector: bytes


def sample_row_of_copy(row: bytes) -> SampleRow:
    """Of a row as COPY has it: the number of its fields (2 bytes), then each field after its length (4 bytes)."""
    values, start = [], 2
    for _ in range(_COLUMNS):
        end = start + 4 + int.from_bytes(row[start : start + 4])
        values.append(row[start + 4 : end])
        start = end
    sample_id, identity_id, photo, sha256, photo_hash, quality, added_at, digest, vector = values
    (number,) = _DOUBLE.unpack(quality)
    return SampleRow(
        sample_id.decode(), identity_id.decode(), photo.decode(), sha256.decode(), photo_hash.decode(), number,
        added_at.decode(), digest.decode(), opened(vector),
    )  # fmt: skip


def meta_row(contents: Contents, change_id: str) -> dict[str, Any]:
    """Of a version that this change made: the row of galleries, without its name."""
    return {
        "version": contents.version,
        "change_id": change_id,
        "model_id": contents.model_id,
        "preprocessing": contents.preprocessing_digest,
        "dimension": contents.dimension,
        "threshold": contents.threshold,
        "camera_thresholds": json.dumps(contents.camera_thresholds),
        "calibration": json.dumps(contents.calibration),
        "created_at": contents.created_at,
        "groups": json.dumps({name: group.document() for name, group in contents.groups.items()}),
    }


def contents_of(row: Any) -> Contents:
    """What a row of galleries says, with nobody in it.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, ConfigError: it is damaged.
    """
    if row.dimension < 1:
        raise ValueError(f"no vector has {row.dimension} numbers")
    return Contents(
        row.version, row.model_id, row.preprocessing, row.dimension, {},
        (Block((), np.empty((0, row.dimension), np.float32)),), row.threshold, dict(json.loads(row.camera_thresholds)),
        dict(json.loads(row.calibration)), row.created_at, groups=groups_of(json.loads(row.groups)),
    )  # fmt: skip


def person_row(contents: Contents, identity_id: str) -> dict[str, Any]:
    """Without its gallery and version."""
    consent = contents.consents.get(identity_id)
    text = "" if consent is None else json.dumps(consent.document())
    groups = contents.memberships.get(identity_id)
    return {
        "identity_id": identity_id,
        "name": Owned(identity_id, contents.names[identity_id]),
        "consent": Owned(identity_id, text),
        "groups": Owned(identity_id, json.dumps(groups) if groups else ""),
    }


def names_of(people: Sequence[Any]) -> dict[str, str]:
    """The names in rows of people, by identity_id."""
    return {row.identity_id: clean_text(row.name) for row in people}


def photo_or_problem(row: Any, length: int) -> Photo | str:
    """Of a row whose vector has ``length`` bytes: its photo, or why it is damaged."""
    vector = row.vector
    if row.digest:
        if len(vector) != length:
            return f"its vector has {len(vector)} bytes, not {length}"
        if digest_of(vector) != row.digest:
            return "its vector does not match its digest"
        return row.photo, row.photo_sha256, row.photo_hash
    if not vector:
        return GONE
    try:
        photo, photo_sha256, photo_hash = json.loads(vector[length:])
        return str(photo), str(photo_sha256), str(photo_hash)
    except (ValueError, TypeError, RecursionError):
        return "it was not sealed by facestream"


def sample_of(row: Any, photo: Photo) -> Sample:
    """What a row says that is not damaged."""
    return Sample(row.sample_id, row.identity_id, clean_text(photo[0]), *photo[1:], row.quality, row.added_at)


def sample_row(sample: Sample, vector: Vectors) -> dict[str, Any]:
    """Without its gallery and version. Where people have keys of their own, what the photo was called, and what tells
    it, lies sealed with the vector: one opening for a sample."""
    raw = np.ascontiguousarray(vector, "<f4").tobytes()
    row: dict[str, Any] = {
        "sample_id": sample.sample_id,
        "identity_id": sample.identity_id,
        "quality": sample.quality,
        "added_at": sample.added_at,
    }
    keys = encryption.keys().people
    if keys is None or not keys.writing:
        photo = {"photo": sample.photo, "photo_sha256": sample.photo_sha256, "photo_hash": sample.photo_hash}
        return row | photo | {"vector": raw, "digest": digest_of(raw)}
    sealed = raw + json.dumps([sample.photo, sample.photo_sha256, sample.photo_hash]).encode()
    mark = keys.mark(sample.identity_id, sample.photo_sha256)
    return row | {
        "photo": "", "photo_sha256": mark, "photo_hash": "", "vector": Owned(sample.identity_id, sealed), "digest": ""
    }  # fmt: skip


def digest_of(raw: bytes) -> str:
    """Of a vector as it is stored."""
    return hashlib.sha256(raw).hexdigest()
