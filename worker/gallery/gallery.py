"""An open gallery, wherever it is kept: searched, and changed one version after the other."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from worker.audit_log import note
from worker.erased import Erased
from worker.errors import GalleryError
from worker.files import open_private, writing
from worker.gallery.consents import Consent
from worker.gallery.contents import BLOCK_SAMPLES, Block, Contents, NewSample, Person, Sample, enrolled
from worker.gallery.crops import CropStore
from worker.gallery.groups import Group, group_name
from worker.gallery.index import PersonIndex, Representation
from worker.gallery.merging import Merger, merged, parted
from worker.gallery.stored import require_unit
from worker.names import clean_text, person_name
from worker.types import Candidate, Embeddings, Vectors

if TYPE_CHECKING:
    from worker.faces.device.runtimes import Runtime

Require = Callable[[Contents], None]
"""Is given the newest contents, within the transaction or under the lock of a change, and may refuse it: what it raises
is raised, and nothing is changed."""


def whatever(_contents: Contents) -> None:
    """Whatever the gallery holds."""


@dataclass(frozen=True, slots=True)
class Searchable:
    """The contents of a version with their index.

    A person's number in the index is the person's place in ``identity_ids``, which ends with "" for nobody. While a
    gallery is open no number is given to a second person, so ``owners``, the numbers of a block's samples, stay true
    for an unchanged block. ``numbers`` is one dictionary for all versions, to which those of later ones are added.
    """

    contents: Contents
    identity_ids: tuple[str, ...]
    numbers: dict[str, int]
    owners: tuple[NDArray[np.int64], ...]
    index: PersonIndex


def searchable(
    contents: Contents,
    before: Searchable | None = None,
    *,
    representation: Representation | Literal["auto"] = "auto",
) -> Searchable:
    """``contents`` ready for searches. What ``before`` has computed for blocks that stayed is taken over."""
    numbers: dict[str, int] = {} if before is None else before.numbers
    begun = () if before is None else zip(before.contents.blocks, before.owners, strict=True)
    known = {block.origin: owners for block, owners in begun}
    owners = tuple(_owners(block, numbers, known.get(block.origin)) for block in contents.blocks)
    index = PersonIndex(
        [block.vectors for block in contents.blocks],
        np.concatenate(owners),
        representation,
        previous=None if before is None else before.index,
    )
    return Searchable(contents, (*numbers, ""), numbers, owners, index)


def _owners(block: Block, numbers: dict[str, int], known: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The number of each sample's person; those of the first samples may be ``known``. Who has no number gets one."""
    begun = np.empty(0, np.int64) if known is None else known[: len(block.samples)]
    if len(begun) == len(block.samples):
        return begun
    rest = [numbers.setdefault(sample.identity_id, len(numbers)) for sample in islice(block.samples, len(begun), None)]
    return np.concatenate([begun, np.array(rest, np.int64)])


class Gallery:
    """People and samples of one model, in a folder or behind a URL.

    It may be searched from any thread while it changes: each version is immutable and is replaced as a whole, and a
    search uses one version from its beginning to its end. A change starts from the newest version that any process
    has written.
    """

    label: str
    """How messages call the gallery; holds no credentials."""
    _block_samples: int = BLOCK_SAMPLES
    _live: Searchable
    _runtime: "Runtime | None" = None

    @property
    def audit_folder(self) -> Path | None:
        """Where the audit log of the gallery lies; None for one that is nowhere on disk."""
        return None

    @property
    def folder(self) -> Path | None:
        """The folder of its files; None for a gallery without files."""
        return None

    def add(self, samples: Sequence[NewSample]) -> list[Sample | None]:
        """Enrols all ``samples`` in one new version.

        Returns the stored sample for each; None where a photo with the same bytes is enrolled already. People are
        told apart by name, see :func:`worker.names.person_name`: a sample with a name that exists goes to the
        person of that name.

        Raises:
            GalleryError: the gallery cannot be written; nothing was added.
            ValueError: an empty name, or a vector that is not finite, of unit length and of the gallery's dimension.
        """
        samples = [
            replace(sample, identity_name=person_name(sample.identity_name), photo=clean_text(sample.photo))
            for sample in samples
        ]
        if any(not sample.identity_name for sample in samples):
            raise ValueError("a person's name must not be empty")
        if not samples:
            return []
        vectors = require_unit(np.stack([sample.vector for sample in samples]), self.dimension)
        stored: list[Sample | None] = []

        def change(contents: Contents) -> Contents:
            changed, stored[:] = enrolled(contents, samples, vectors, block_samples=self._block_samples)
            return changed

        self._change(change)
        taken = [sample for sample in stored if sample is not None]
        if taken:
            note(self.audit_folder, "enrolled", {sample.identity_id for sample in taken}, samples=len(taken))
        return stored

    def remove(self, identity: str, *, require: Require = whatever) -> Person:
        """Removes a person (id or name) with all samples; returns the removed person. ``require``, here and below: what
        must be true of the gallery then.

        Raises:
            GalleryError: nobody is called that, or the gallery cannot be written.
        """
        removed: list[Person] = []

        def change(contents: Contents) -> Contents:
            require(contents)
            identity_id = self._resolve(contents, identity)
            gone = contents.samples_of(identity_id)
            removed[:] = [contents.person(identity_id, gone)]
            return contents.minus({sample.sample_id for sample in gone}).forgetting([identity_id])

        self._change(change)
        note(self.audit_folder, "removed", [removed[0].identity_id], samples=len(removed[0].samples))
        return removed[0]

    def remove_sample(self, sample_id: str, *, require: Require = whatever) -> Sample:
        """Removes one sample, and the person if it was their last one.

        Raises:
            GalleryError: no such sample, or the gallery cannot be written.
        """
        removed: list[Sample] = []

        def change(contents: Contents) -> Contents:
            require(contents)
            removed[:] = [sample for sample in contents.samples if sample.sample_id == sample_id]
            if not removed:
                raise GalleryError(
                    f"gallery {self.label} has no sample {sample_id}; 'facestream gallery show' lists them"
                )
            return contents.minus({sample_id})

        self._change(change)
        note(self.audit_folder, "sample removed", [removed[0].identity_id, sample_id])
        return removed[0]

    def rename(self, identity: str, new_name: str, *, require: Require = whatever) -> Person:
        """Gives a person (id or name) another name; the identity_id stays.

        Raises:
            GalleryError: nobody is called that, the new name is empty or taken, or the gallery cannot be written.
        """
        new_name = person_name(new_name)
        if not new_name:
            raise GalleryError("a person's name must not be empty")

        def change(contents: Contents) -> Contents:
            require(contents)
            identity_id = self._resolve(contents, identity)
            if any(person_name(name) == new_name and key != identity_id for key, name in contents.names.items()):
                raise GalleryError(
                    f"gallery {self.label} has somebody called {new_name!r} already; choose another name"
                )
            return replace(contents, names={**contents.names, identity_id: new_name})

        self._change(change)
        person = self.person(new_name)
        note(self.audit_folder, "renamed", [person.identity_id])
        return person

    def merge(self, identity: str, other: str, *, require: Require = whatever) -> Merger:
        """Gives a person (id or name) all samples and groups of ``other``, who is the same person under another id; the
        consent is what both allow. Returns what :meth:`part` takes back.

        Raises:
            GalleryError: nobody is called that, both are the same already, they may be recognised at different times,
                or the gallery cannot be written.
        """
        made: list[Merger] = []

        def change(contents: Contents) -> Contents:
            require(contents)
            identity_id, other_id = self._resolve(contents, identity), self._resolve(contents, other)
            if identity_id == other_id:
                raise GalleryError(
                    f"gallery {self.label}: {clean_text(identity)!r} and {clean_text(other)!r} are one person already"
                )
            after, merger = merged(contents, identity_id, other_id)
            made[:] = [merger]
            return after

        self._change(change)
        note(self.audit_folder, "merged", [made[0].identity_id, made[0].other_id])
        return made[0]

    def part(self, merger: Merger) -> None:
        """Takes a merger back: the other person is there again, with the samples that are left of theirs.

        Raises:
            GalleryError: the person is gone, one of the two would have no sample, somebody else has the name by now,
                or the gallery cannot be written.
        """

        def change(contents: Contents) -> Contents:
            self._resolve(contents, merger.identity_id)
            return parted(contents, merger)

        self._change(change)
        note(self.audit_folder, "parted", [merger.identity_id, merger.other_id])

    def set_consent(self, identity: str, consent: Consent | None, *, require: Require = whatever) -> Person:
        """Notes from when until when a person (id or name) may be recognised; None: nothing bounds that.

        Raises:
            GalleryError: nobody is called that, or the gallery cannot be written.
        """

        def change(contents: Contents) -> Contents:
            require(contents)
            identity_id = self._resolve(contents, identity)
            return contents.consenting({identity_id: consent})

        self._change(change)
        person = self.person(identity)
        note(self.audit_folder, "consent noted", [person.identity_id], until=consent.until if consent else "")
        return person

    def set_group(self, name: str, group: Group, *, require: Require = whatever) -> None:
        """Makes the group called ``name``, or gives it these settings.

        Raises:
            ConfigError: the name cannot be one of a group.
            GalleryError: the gallery cannot be written.
        """
        name = group_name(name)

        def change(contents: Contents) -> Contents:
            require(contents)
            return replace(contents, groups={**contents.groups, name: group})

        self._change(change)
        threshold = "" if group.threshold is None else f"{group.threshold:.4f}"
        note(self.audit_folder, "group set", group=name, threshold=threshold)

    def remove_group(self, name: str, *, require: Require = whatever) -> None:
        """Removes a group; who was in it stays in the gallery.

        Raises:
            GalleryError: there is none of this name, or the gallery cannot be written.
        """

        def change(contents: Contents) -> Contents:
            require(contents)
            self._require_groups(contents, [name])
            contents = contents.grouped(
                {key: {*names} - {name} for key, names in contents.memberships.items() if name in names}
            )
            return replace(contents, groups={key: group for key, group in contents.groups.items() if key != name})

        self._change(change)
        note(self.audit_folder, "group removed", group=name)

    def regroup(
        self, identities: Sequence[str], *, join: Collection[str] = (), leave: Collection[str] = (), only: bool = False,
        require: Require = whatever,
    ) -> None:  # fmt: skip
        """Puts people (ids or names) into the groups ``join`` and takes them out of ``leave``, in one new version;
        ``only``: out of all others.

        Raises:
            GalleryError: nobody is called so, there is no such group, or the gallery cannot be written.
        """
        regrouped: list[str] = []
        left = {*leave}

        def change(contents: Contents) -> Contents:
            require(contents)
            self._require_groups(contents, [*join, *leave])
            regrouped[:] = [self._resolve(contents, identity) for identity in identities]
            before = {identity_id: {*contents.memberships.get(identity_id, ())} for identity_id in regrouped}
            if only:
                left.clear()
                left.update(*before.values())
                left.difference_update(join)
            after = {identity_id: (names | {*join}) - left for identity_id, names in before.items()}
            return contents if after == before else contents.grouped(after)

        self._change(change)
        note(self.audit_folder, "regrouped", regrouped, joined=", ".join(sorted(join)), left=", ".join(sorted(left)))

    def _require_groups(self, contents: Contents, names: Collection[str]) -> None:
        for name in names:
            if name not in contents.groups:
                known = ", ".join(sorted(contents.groups)) or "it has none yet"
                raise GalleryError(
                    f"gallery {self.label} has no group {clean_text(name)[:80]!r} ({known}): make it with "
                    "'facestream gallery group set'"
                )

    @property
    def groups(self) -> dict[str, Group]:
        """The groups by name."""
        return dict(self._live.contents.groups)

    def lapsed(self) -> frozenset[str]:
        """The ids of the people whose consent does not hold now. They are not found by :meth:`search`."""
        consents = self._live.contents.consents
        if not consents:
            return frozenset()
        now = datetime.now(UTC)
        return frozenset(key for key, consent in consents.items() if not consent.is_given(now))

    def consents_to_mind(self) -> tuple[int, int]:
        """How many people there are whose consent ends soon, and how many whose consent is over."""
        contents, now = self._live.contents, datetime.now(UTC)
        held = [consent for key, consent in contents.consents.items() if key in contents.names]
        return sum(consent.ends_soon(now) for consent in held), sum(consent.is_over(now) for consent in held)

    def fill(self, source: Contents) -> None:
        """Lets the gallery, which holds nobody yet, hold the people, samples and thresholds of ``source``.

        Raises:
            GalleryError: it holds somebody, is made for another model, or cannot be written.
        """
        self.require_model(source.model_id, source.preprocessing_digest)

        def change(contents: Contents) -> Contents:
            if contents.names:
                raise GalleryError(f"gallery {self.label} holds people already; name a new gallery")
            # Files of the blocks, where there are any, are those of another folder.
            blocks = tuple(replace(block, stem="") for block in source.blocks)
            return replace(source, version=contents.version, created_at=contents.created_at, blocks=blocks)

        self._change(change)
        note(self.audit_folder, "filled", people=len(source.names), samples=source.sample_count)

    def set_thresholds(
        self, default: float | None, per_camera: Mapping[str, float], calibration: Mapping[str, Any]
    ) -> None:
        """Stores calibrated cosine thresholds and how they were found (JSON values).

        Raises:
            GalleryError: the gallery cannot be written.
            ValueError: a threshold outside -1..1.
        """
        for value in (*per_camera.values(), *([] if default is None else [default])):
            if not -1.0 <= value <= 1.0:
                raise ValueError(f"a cosine threshold lies in -1..1, not {value}")
        self._change(
            lambda contents: replace(
                contents, threshold=default, camera_thresholds=dict(per_camera), calibration=dict(calibration)
            )
        )
        threshold = "" if default is None else f"{default:.4f}"
        note(self.audit_folder, "calibrated", threshold=threshold, cameras=len(per_camera))

    def require_model(self, model_id: str, preprocessing_digest: str | None = None) -> None:
        """Raises GalleryError unless the gallery's vectors were made by this model, and this preprocessing if given."""
        contents = self._live.contents
        if model_id != contents.model_id:
            raise GalleryError(
                f"gallery {self.label} was made with model {contents.model_id}, not {model_id}: "
                f"use --model {contents.model_id}, or enroll into a new gallery"
            )
        if preprocessing_digest is not None and preprocessing_digest != contents.preprocessing_digest:
            raise GalleryError(
                f"gallery {self.label} was made with preprocessing {contents.preprocessing_digest} "
                f"of {contents.model_id}, not {preprocessing_digest}: enroll the photos into a new gallery"
            )

    @property
    def contents(self) -> Contents:
        """Everything that the version in use holds."""
        return self._live.contents

    @property
    def version(self) -> int:
        return self._live.contents.version

    @property
    def model_id(self) -> str:
        return self._live.contents.model_id

    @property
    def preprocessing_digest(self) -> str:
        return self._live.contents.preprocessing_digest

    @property
    def dimension(self) -> int:
        return self._live.contents.dimension

    @property
    def threshold(self) -> float | None:
        """The calibrated cosine threshold; None where the model's own applies."""
        return self._live.contents.threshold

    @property
    def camera_thresholds(self) -> dict[str, float]:
        """Calibrated cosine thresholds of the cameras that have their own, by camera_id."""
        return dict(self._live.contents.camera_thresholds)

    @property
    def calibration(self) -> dict[str, Any]:
        """How the thresholds were found, as given to :meth:`set_thresholds`."""
        return dict(self._live.contents.calibration)

    @property
    def is_calibrated(self) -> bool:
        """Whether a calibrated threshold is stored, for all cameras or for some."""
        return self.threshold is not None or bool(self.camera_thresholds)

    def threshold_of(self, camera_id: str) -> float | None:
        """The camera's calibrated threshold, else the gallery's, else None."""
        contents = self._live.contents
        return contents.camera_thresholds.get(camera_id, contents.threshold)

    def __len__(self) -> int:
        """The number of people."""
        return len(self._live.contents.names)

    @property
    def sample_count(self) -> int:
        return self._live.contents.sample_count

    def people(self) -> list[Person]:
        """Everybody, by name."""
        return self._live.contents.people()

    def person(self, identity: str) -> Person:
        """The person with this id or name.

        Raises:
            GalleryError: nobody is called that.
        """
        contents = self._live.contents
        identity_id = self._resolve(contents, identity)
        return contents.person(identity_id, contents.samples_of(identity_id))

    def vectors(self, identity: str | None = None) -> tuple[Vectors, tuple[Sample, ...]]:
        """The unit vectors float32 (n, d) of one person (id or name), or of all, with their samples in that order."""
        contents = self._live.contents
        if identity is None:
            return contents.vectors_of(), contents.samples
        identity_id = self._resolve(contents, identity)
        return contents.vectors_of(identity_id), contents.samples_of(identity_id)

    def knows(self, identity_id: str) -> bool:
        """Whether a person has this id."""
        return identity_id in self._live.contents.names

    def search_on(self, runtime: "Runtime") -> None:
        """Has this version and later ones searched by ``runtime``, where they are large enough and its device has
        room."""
        self._runtime = runtime
        self._live.index.use(runtime)

    @property
    def is_on_device(self) -> bool:
        """Whether a device searches the version that is searched now."""
        return self._live.index.on_device

    def search(self, embeddings: Embeddings, without: Collection[str] = ()) -> list[Candidate]:
        """The nearest person and the nearest other person of each vector, as if the people ``without`` (ids) were not
        there; similarities are exact at any size.

        Raises:
            GalleryError: the embeddings are another model's.
            ValueError: vectors that are not finite, of unit length and of the gallery's dimension.
        """
        live = self._live
        if embeddings.model_id != live.contents.model_id:
            raise GalleryError(
                f"gallery {self.label} was made with model {live.contents.model_id}, not {embeddings.model_id}"
            )
        hidden = {*without, *self.lapsed()}
        absent = [live.numbers[identity_id] for identity_id in hidden if identity_id in live.numbers]
        if self._runtime is not None:
            live.index.use(self._runtime)
        people, similarities = live.index.search(embeddings.vectors, without=absent)
        ids, names, membership = live.identity_ids, live.contents.names, live.contents.membership
        candidates = []
        for (best, other), (similarity, runner_up) in zip(people.tolist(), similarities.tolist(), strict=True):
            candidates.append(
                Candidate(ids[best] or None, names.get(ids[best], ""), similarity, runner_up, ids[other],
                          names.get(ids[other], ""), membership=membership(ids[best]),
                          runner_up_membership=membership(ids[other]))
            )  # fmt: skip
        return candidates

    def export_npz(self, file: Path, crops: CropStore | None = None) -> int:
        """Writes all samples to a compressed ``.npz`` file without pickle; returns how many there are, n.

        The arrays: ``embeddings`` float32 (n, d), ``names``, ``identity_ids`` and ``groups`` (unicode, one for each
        row; groups are joined by commas), and
        ``faces``: of ``crops``, as :meth:`worker.gallery.crops.CropStore.faces` gives them, and (0, 0, 0, 3) without.

        Raises:
            GalleryError: a crop is damaged or cannot be decrypted.
            OutputError: the file cannot be written.
        """
        contents = self._live.contents
        ids = [sample.identity_id for sample in contents.samples]
        faces = np.empty((0, 0, 0, 3), np.uint8) if crops is None else crops.faces(contents.samples)
        with writing(file), open_private(file) as out:
            np.savez_compressed(
                out,
                faces=faces,
                embeddings=contents.vectors_of(),
                names=np.array([contents.names[key] for key in ids], dtype=np.str_),
                identity_ids=np.array(ids, dtype=np.str_),
                groups=np.array([",".join(contents.membership(key).groups) for key in ids], dtype=np.str_),
            )
        note(self.audit_folder, "exported", people=len(contents.names), samples=len(ids))
        return len(ids)

    def _resolve(self, contents: Contents, identity: str) -> str:
        if identity in contents.names:
            return identity
        wanted = person_name(identity)
        exact = [key for key, name in contents.names.items() if name == identity]
        found = exact or [key for key, name in contents.names.items() if person_name(name) == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise GalleryError(
                f"gallery {self.label} has {len(found)} people called {clean_text(identity)!r}: "
                f"name one by its id ({', '.join(sorted(found))})"
            )
        raise GalleryError(
            f"gallery {self.label} knows nobody called {clean_text(identity)!r}; 'facestream gallery list' shows all"
        )

    @abstractmethod
    def hide(self, erased: Erased) -> None:
        """Passes over everybody in ``erased`` from now on, also if a version that is read later has them."""

    @abstractmethod
    def reload_if_changed(self) -> bool:
        """Takes up what others changed; returns whether they did. Cheap enough to be called for every frame.

        Raises:
            GalleryError: another model's gallery has taken its place.
        """

    def close(self) -> None:
        """Ends what keeps the gallery current. Searches still work."""

    @abstractmethod
    def _change(self, change: Callable[[Contents], Contents]) -> None:
        """Makes what ``change`` returns the next version. ``change`` gets the newest contents, and is called again if
        others change them meanwhile. If it returns the contents that it got, no version is made.

        Raises:
            GalleryError: the version cannot be written; the one before stays in use.
        """
