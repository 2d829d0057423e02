"""Two entries of a gallery that are one person: made one, and taken apart again."""

from dataclasses import dataclass, replace
from typing import Any, Self

from worker.errors import ConfigError, GalleryError
from worker.gallery.consents import Consent, consents_of, narrower
from worker.gallery.contents import Contents
from worker.names import person_name


@dataclass(frozen=True, slots=True)
class Merger:
    """``identity_id`` has the samples of ``other_id`` since, who is nobody any more: what takes that back.

    ``consents``: of the person, of the other one, and what was made of both. ``groups`` are those of the other one, and
    ``joined`` those of them in which the person was not.
    """

    identity_id: str
    other_id: str
    other_name: str
    sample_ids: tuple[str, ...]
    consents: tuple[Consent | None, Consent | None, Consent | None]
    groups: tuple[str, ...]
    joined: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "identity_id": self.identity_id, "other_id": self.other_id, "other_name": self.other_name,
            "sample_ids": list(self.sample_ids), "groups": list(self.groups), "joined": list(self.joined),
            "consents": [None if each is None else each.document() for each in self.consents],
        }  # fmt: skip

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """What :meth:`document` gave.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, ConfigError: it is something else.
        """
        own, others, both = (None if each is None else consents_of({"": each})[""] for each in told["consents"])
        return cls(
            told["identity_id"], told["other_id"], told["other_name"], tuple(told["sample_ids"]), (own, others, both),
            tuple(told["groups"]), tuple(told["joined"]),
        )  # fmt: skip


def merged(contents: Contents, identity_id: str, other_id: str) -> tuple[Contents, Merger]:
    """With the samples and groups of ``other_id`` as further ones of ``identity_id``; ``other_id`` is nobody any more.
    The consent is what both allow.

    Raises:
        GalleryError: there is no time at which both may be recognised.
    """
    moved = contents.samples_of(other_id)
    vectors = contents.vectors_of(other_id)
    own, others = (contents.consents.get(key) for key in (identity_id, other_id))
    try:
        both = narrower(own, others)
    except ConfigError:
        raise GalleryError(
            f"{contents.names[identity_id]} and {contents.names[other_id]} may be recognised at different times, and "
            "at none as one person: set the consent of one of them first, or forget it"
        ) from None
    groups = contents.memberships.get(other_id, ())
    joined = tuple(name for name in groups if name not in contents.memberships.get(identity_id, ()))
    merger = Merger(
        identity_id, other_id, contents.names[other_id], tuple(sample.sample_id for sample in moved),
        (own, others, both), groups, joined,
    )  # fmt: skip
    left = contents.minus(set(merger.sample_ids)).forgetting([other_id])
    left = left.grouped({identity_id: {*contents.memberships.get(identity_id, ()), *groups}})
    left = left.consenting({identity_id: both})
    return left.plus([replace(sample, identity_id=identity_id) for sample in moved], vectors, left.names), merger


def parted(contents: Contents, merger: Merger) -> Contents:
    """As if ``merger`` had not been: what was enrolled, set or removed since stays so.

    Raises:
        GalleryError: one of the two would have no sample, or somebody else has the name of the other one by now.
    """
    kept, other, name = merger.identity_id, merger.other_id, merger.other_name
    own = contents.samples_of(kept)
    rows = [row for row, sample in enumerate(own) if sample.sample_id in set(merger.sample_ids)]
    if not rows or other in contents.names:
        raise GalleryError(f"nothing is left of {name} that could be taken out again: the samples were removed since")
    if len(rows) == len(own):
        raise GalleryError(
            f"all samples of {contents.names[kept]} are of {name}: nobody would be left; rename the person instead"
        )
    if person_name(name) in map(person_name, contents.names.values()):
        raise GalleryError(f"somebody else is called {name} by now: give them another name first")
    vectors = contents.vectors_of(kept)[rows]
    groups = {name for name in contents.memberships.get(kept, ()) if name not in merger.joined}
    before, others, both = merger.consents
    now = contents.consents.get(kept)
    left = contents.minus({own[row].sample_id for row in rows})
    left = left.grouped({kept: groups, other: {name for name in merger.groups if name in contents.groups}})
    left = left.consenting({kept: before if now == both else now, other: others})
    back = [replace(own[row], identity_id=other) for row in rows]
    return left.plus(back, vectors, {**contents.names, other: name})
