"""Who may do what: roles and scopes, and limits of accounts; loads nothing else."""

from typing import Final, Literal

Role = Literal["viewer", "operator", "admin"]
Scope = Literal["read", "change", "manage"]

ROLES: Final[dict[Role, tuple[Scope, ...]]] = {
    "viewer": ("read",),
    "operator": ("read", "change"),
    "admin": ("read", "change", "manage"),
}
"""``read``: see everything but accounts; ``change``: people, sightings and unknown people; ``manage``: accounts and
cameras."""


MOST_CAMERAS: Final = 1000
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 200
