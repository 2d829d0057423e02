"""Who was erased. The list is asked whenever older data are read: a version from before, a backup, a copy.

It holds digests of ids, never a name or a vector: those of people, samples, unknown people and sightings. It lies in
two folders or more, ``erased.jsonl`` in each, and each line has a digest of its own. What is damaged in one copy is
read from another, so that no damage brings anybody back.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from worker.errors import ErasureError
from worker.files import file_stamp, is_of_state, private_folder, replace_file, why_unwritable

FILE: Final = "erased.jsonl"
LOCK: Final = "erased.lock"
WORKERS: Final = "workers"
"""The folder, beside the list, in which workers say what they have erased."""
_KEY: Final = "key "
_LOCK_TIMEOUT_S: Final = 30.0
_DIGEST_CHARACTERS: Final = 32

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Erasure:
    """One request: when it was made (RFC 3339), and the digests of all ids that went. Among them are the tags of the
    keys of people that go, see :func:`with_keys`."""

    erasure_id: str
    at: str
    digests: frozenset[str]


class Erased:
    """All that was erased. ``an_id in erased`` says whether what bears this id must not be used."""

    def __init__(self, erasures: Iterable[Erasure] = ()) -> None:
        known = {erasure.erasure_id: erasure for erasure in erasures}
        self.erasures = tuple(sorted(known.values(), key=lambda erasure: (erasure.at, erasure.erasure_id)))
        self._digests = frozenset().union(*(erasure.digests for erasure in self.erasures))

    @property
    def ids(self) -> frozenset[str]:
        """Of the erasures."""
        return frozenset(erasure.erasure_id for erasure in self.erasures)

    @property
    def keys(self) -> frozenset[str]:
        """The tags of the keys of people that are to be destroyed."""
        return frozenset(digest.removeprefix(_KEY) for digest in self._digests if digest.startswith(_KEY))

    @property
    def stamp(self) -> str:
        """Another text for each other set of erasures; "" for none."""
        return hashlib.sha256("".join(sorted(self.ids)).encode()).hexdigest()[:16] if self.erasures else ""

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, an_id: object) -> bool:
        return bool(self._digests) and isinstance(an_id, str) and an_id != "" and digest_of(an_id) in self._digests

    def plus(self, erasures: Iterable[Erasure]) -> "Erased":
        """With these too."""
        return Erased([*self.erasures, *erasures])


def with_keys(tags: Iterable[str]) -> frozenset[str]:
    """What stands among the digests for keys of people."""
    return frozenset(f"{_KEY}{tag}" for tag in tags)


def digest_of(an_id: str) -> str:
    """What stands in the list for an id."""
    return hashlib.sha256(b"facestream.erased\0" + an_id.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def folders_of(gallery: Path | str | None, *states: Path | None) -> list[Path]:
    """Where the list of a gallery lies: in its folder, in the folder of state beside it, and in other such folders."""
    beside = []
    if gallery is not None and "://" not in str(gallery):
        folder = Path(gallery).resolve()
        beside = [folder, state_beside(folder)]
    return list(dict.fromkeys([*beside, *(state.resolve() for state in states if state is not None)]))


def state_beside(gallery: Path) -> Path:
    """The folder of state of a gallery in a folder, where the configuration names no other."""
    return gallery.with_name(f"{gallery.name}.state")


def read_erased(folders: Sequence[Path]) -> Erased:
    """What the copies of the list in ``folders`` hold together; nothing where there is none.

    Raises:
        ErasureError: a copy cannot be read, or a line is damaged in all copies.
    """
    intact: dict[str, Erasure] = {}
    digests: set[str] = set()
    damaged: list[tuple[Path, str]] = []
    for folder in folders:
        for line in _lines(folder / FILE):
            erasure = _parsed(line)
            if erasure is None:
                damaged.append((folder / FILE, line))
            else:
                intact[erasure.erasure_id] = erasure
                digests.add(line.split(" ")[1])
    for path, line in damaged:
        erasure_id, _, rest = line.partition(" ")
        # One of the two is right if the damage is small: then an intact copy of the line is known.
        if erasure_id not in intact and rest.partition(" ")[0] not in digests:
            raise ErasureError(
                f"the list of erased people {path} is damaged, and no other copy has the line: restore the file from a "
                "backup, and repeat every 'facestream forget' that came later; nobody who was erased may come back"
            )
    return Erased(intact.values())


def stamp_of(folders: Sequence[Path]) -> Stamp:
    """A value that changes with each change of the list; costs one ``stat`` for each folder."""
    return tuple(file_stamp(folder / FILE) for folder in folders)


def add_erasure(folders: Sequence[Path], erasure: Erasure) -> Erased:
    """Notes ``erasure`` in all copies, durably, and mends damaged ones; returns the whole list.

    Raises:
        ErasureError: a copy cannot be written.
    """
    with _locked(folders):
        erased = read_erased(folders).plus([erasure])
        content = "".join(_line(each) for each in erased.erasures).encode()
        for folder in folders:
            try:
                replace_file(folder / FILE, content)
            except OSError as error:
                raise _unwritable(folder, error) from None
    return erased


@contextmanager
def _locked(folders: Sequence[Path]) -> Iterator[None]:
    with ExitStack() as locks:
        for folder in sorted(folders):
            try:
                private_folder(folder, is_of_state)
                locks.enter_context(FileLock(folder / LOCK, timeout=_LOCK_TIMEOUT_S, mode=0o600))
            except Timeout:
                raise ErasureError(f"{folder / FILE} is being written by another process; try again later") from None
            except (OSError, NotImplementedError) as error:
                raise _unwritable(folder, error) from None
        yield


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ErasureError(f"the list of erased people {path} cannot be read: {error.strerror or error}") from None


def _line(erasure: Erasure) -> str:
    body = json.dumps({"at": erasure.at, "digests": sorted(erasure.digests)})
    return f"{erasure.erasure_id} {_check(erasure.erasure_id, body)} {body}\n"


def _parsed(line: str) -> Erasure | None:
    """None for a damaged line."""
    parts = line.split(" ", 2)
    if len(parts) != 3 or parts[1] != _check(parts[0], parts[2]):
        return None
    try:
        body = json.loads(parts[2])
        return Erasure(parts[0], str(body["at"]), frozenset(map(str, body["digests"])))
    except (ValueError, KeyError, TypeError, RecursionError):  # its digest is right, and nobody of ours has written it
        return None


def _check(erasure_id: str, body: str) -> str:
    return hashlib.sha256(f"{erasure_id} {body}".encode()).hexdigest()


def _unwritable(folder: Path, error: OSError | NotImplementedError) -> ErasureError:
    return ErasureError(f"the list of erased people in {folder} cannot be written: {why_unwritable(error)}")
