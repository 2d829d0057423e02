"""Whether certain bytes are in any of our files."""

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from worker.names import person_name
from worker.types import Vectors

NEEDLE_BYTES: Final = 64
"""So much of a vector is unmistakable."""
_SHORTEST_NAME: Final = 5


def needles_of_vectors(vectors: Vectors) -> list[bytes]:
    """The beginning of each vector (n, d) in each form in which one is stored: float32 and float16, little-endian."""
    forms = (np.ascontiguousarray(vectors, form) for form in ("<f4", "<f2"))
    return [row.tobytes()[:NEEDLE_BYTES] for form in forms for row in form]


def needles_of_names(names: Iterable[str], others: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """The names as they are written in files, and those that cannot be looked for: they are too short, or part of the
    name of one of the ``others``, who stay."""
    staying = [person_name(other) for other in others]
    needles, passed_over = [], []
    for name in sorted(set(names)):
        if len(name.encode()) < _SHORTEST_NAME or any(name in other for other in staying):
            passed_over.append(name)
        else:
            needles += [name.encode(), json.dumps(name)[1:-1].encode(), name.encode("utf-16-le")]
    return list(dict.fromkeys(needles)), passed_over


def files_below(folders: Iterable[Path]) -> Iterator[Path]:
    """Every ordinary file in ``folders``, at any depth; links are not followed."""
    for folder in dict.fromkeys(folders):
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def files_with(needles: Sequence[bytes], folders: Iterable[Path]) -> tuple[list[Path], int, int]:
    """The files below ``folders`` that hold one of ``needles``; how many files were read, and how many bytes.

    No database below ``folders`` may be open in this process: to close a file takes away the locks on it.
    """
    found, count, total = [], 0, 0
    for path in files_below(folders):
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                count, total = count + 1, total + size
                if not size:
                    continue
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if any(content.find(needle) >= 0 for needle in needles):
                        found.append(path)
        except (OSError, ValueError):  # gone meanwhile, or emptied
            continue
    return found, count, total
