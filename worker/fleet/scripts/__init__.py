"""The Lua scripts of a fleet, which Redis runs each in one step, so that no worker gets in another's way."""

from importlib.resources import files

from worker.events.fencing import Script


def fleet_script(name: str) -> Script:
    """The script ``name``; it takes the keys of :func:`worker.redis.keys.fleet_keys`."""
    return Script(script_text(name))


def script_text(name: str) -> str:
    """What the script ``name`` consists of: what all of them begin with, and its own file."""
    folder = files(__name__)
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("fleet", name))
