"""Groups of people, such as staff or banned: who is in which, and the threshold that a group may have of its own."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from worker.errors import ConfigError
from worker.names import clean_text, person_name
from worker.types import Membership

COLOURS: Final = ("", "red", "orange", "yellow", "green", "blue", "violet", "grey")
LONGEST_NAME: Final = 60
_LONGEST_ADVICE: Final = 300


@dataclass(frozen=True, slots=True)
class Group:
    """``threshold``: the cosine from which its people are named, in place of any other; None where it has none.
    ``colour`` is one of :data:`COLOURS`, and ``advice`` says what to do when one of them is seen."""

    threshold: float | None = None
    colour: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError: a threshold, colour or advice that cannot be."""
        if self.threshold is not None and not -1.0 <= self.threshold <= 1.0:
            raise ConfigError(f"a cosine threshold lies in -1..1, not {self.threshold}")
        if self.colour not in COLOURS:
            raise ConfigError(f"{self.colour[:40]!r} is not a colour of groups: {', '.join(COLOURS[1:])}")
        if len(self.advice) > _LONGEST_ADVICE:
            raise ConfigError(f"what to do is told in up to {_LONGEST_ADVICE} characters, not {len(self.advice)}")

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def group_name(text: str) -> str:
    """``text`` as the name of a group. Events join names by commas, and addresses of the API hold one.

    Raises:
        ConfigError: it cannot be one.
    """
    name = person_name(text)
    if not name or len(name) > LONGEST_NAME or set(",/") & set(name):
        raise ConfigError(
            f"{clean_text(text)[:80]!r} cannot name a group: take 1 to {LONGEST_NAME} characters, no comma and no slash"
        )
    return name


def groups_of(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Group]:
    """Groups by name, as :meth:`Group.document` gave them."""
    return {
        clean_text(name): Group(told.get("threshold"), told.get("colour", ""), clean_text(told.get("advice", "")))
        for name, told in stored.items()
    }


def membership(names: Collection[str], groups: Mapping[str, Group]) -> Membership:
    """Of a person in the groups ``names``: of several thresholds the highest holds."""
    if not names:
        return Membership()
    own = {name: groups[name].threshold for name in names if name in groups}
    strict = max(((value, name) for name, value in own.items() if value is not None), default=None)
    if strict is None:
        return Membership(tuple(sorted(own)))
    return Membership(tuple(sorted(own)), *strict)


def after_switch(old: Mapping[str, Group], new: Mapping[str, Group], *, same_model: bool) -> dict[str, Group]:
    """The groups of a gallery whose place another one takes: cosines of two models do not compare, so a threshold stays
    only if the model does, or if the new gallery has one for the group."""
    kept = {
        name: group if same_model else Group(None, group.colour, group.advice)
        for name, group in old.items()
    }  # fmt: skip
    with_own = {
        name: Group(group.threshold, kept[name].colour, kept[name].advice) if name in kept else group
        for name, group in new.items()
        if name not in kept or group.threshold is not None
    }
    return kept | with_own
