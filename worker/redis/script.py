"""Lua scripts that Redis runs in one step: each in a ``.lua`` file beside its package, run by its digest."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoScriptError


class Script:
    """A Lua script, sent whole only where Redis does not know it yet. All its keys must be in one slot."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = ""

    def __call__(self, client: redis.Redis, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        if self._sha:
            try:
                return client.evalsha(self._sha, len(keys), *keys, *arguments)
            except NoScriptError:
                # Redis was restarted, or another node serves these keys.
                pass
        reply = client.eval(self.text, len(keys), *keys, *arguments)
        self._sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        return reply


def lua(package: str, *names: str) -> Script:
    """The script in the ``.lua`` files ``names`` of ``package``, one after the other; what they share comes first."""
    folder = files(package)
    return Script("\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names))
