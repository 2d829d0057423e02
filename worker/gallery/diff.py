"""In what two states of a gallery differ."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.gallery.index import Vectors
from worker.gallery.state import Sample, State


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
