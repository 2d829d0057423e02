"""Processes as the system shows them."""

from contextlib import suppress
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that have not ended, the oldest first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(folder.name))
    return sorted(found, key=_started)


def decoders_of(pid: int) -> list[int]:
    """The processes that decode the cameras of the worker ``pid``, the oldest first."""
    return [decoder for server in fork_servers_of(pid) for decoder in children_of(server)]


def fork_servers_of(pid: int) -> list[int]:
    """The processes that fork the decoders of the worker ``pid``."""
    return [child for child in children_of(pid) if b"worker.video.fork_server" in _read(child, "cmdline")]


def environment_of(pid: int) -> bytes:
    """As it was when the process began."""
    return _read(pid, "environ")


def is_there(pid: int) -> bool:
    """Whether the process has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def own_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _started(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0
