"""Weights in H5 files as Keras writes them; the files may come from anywhere.

HDF5 can do much more than hold arrays: it follows links to other files, gathers arrays from them, unpacks a few bytes
to gigabytes. What is not an ordinary array of numbers in the file itself is refused before it is read.
"""

import math
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.files import open_regular

Arrays = dict[str, dict[str, NDArray[np.float32]]]
"""By layer name, then by weight name such as ``kernel``."""

_MOST_BYTES: Final = 1 << 30
"""The largest network here, VGG-16 with its classifier, has 0.6 GB."""
_MOST_MEMORY: Final = 4 << 30
_TIMEOUT_S: Final = 120
_MOST_UNPACKED: Final = 32
"""Weights are hardly smaller when packed; only arrays of zeros are, and those are short."""
_SHORT_BYTES: Final = 1 << 20
_MOST_NAMES: Final = 10_000
_MOST_OBJECTS: Final = 100_000
_HEAP: Final = b"GCOL\1\0\0\0"
_PART_HEAD: Final = 16
_NUMBERS: Final = frozenset("fiu")


class _RefusedError(Exception):
    """The file holds something that is not read."""


def read_h5(path: Path) -> Arrays:
    """The arrays of a Keras H5 weights file: by layer name (``/`` as ``_``), then ``kernel``, ``gamma``, ...

    Only arrays are read; no object of the file is ever built. HDF5 itself goes round for ever, takes memory without end
    or crashes over some damaged files, so it works in a process of its own with limits.

    Raises:
        ModelError: not an H5 weights file, or one with links to other files, with arrays that lie elsewhere, or with
            more than 1 GiB of arrays.
    """
    with tempfile.TemporaryDirectory(prefix="facestream-h5-") as scratch:
        taken = Path(scratch) / "arrays.npz"
        command = [sys.executable, "-m", "worker.faces.networks.h5", str(path), str(taken)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and module
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{path} is not used: reading it did not end within {_TIMEOUT_S} s") from None
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise ModelError(f"{path} is not used: it is so damaged that reading it ended with {name}")
        if done.returncode:
            said = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise ModelError(f"{path} {said}")
        arrays: Arrays = {}
        with np.load(taken, allow_pickle=False) as held:
            for name in held.files:
                layer, _, weight = name.partition("/")
                arrays.setdefault(layer, {})[weight] = held[name]
        return arrays


def main(path: str, target: str) -> int:
    """Runs in the process of its own: writes the arrays of ``path`` to ``target``, or prints why not and returns 1."""
    for limit, most in ((resource.RLIMIT_AS, _MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    try:
        longest = _longest_text(Path(path))
        with h5py.File(path) as file:
            _refuse_foreign(file)
            arrays = _arrays(file.get("model_weights", file), longest)
        named: dict[str, Any] = {}
        for layer, found in arrays.items():
            named |= {f"{layer}/{name}": array for name, array in found.items()}
        np.savez(target, **named)
    except _RefusedError as error:
        problem = f"is not used: {error}; take the weights from their source again"
    except MemoryError:
        problem = "does not fit into memory"
    except Exception as error:  # noqa: BLE001 - damage shows in many ways, and in other ones with each HDF5
        text = " ".join(str(error).split()) or type(error).__name__
        problem = f"is not a Keras H5 weights file: {text}"
    else:
        return 0
    sys.stdout.write(f"{problem}\n")
    return 1


def _refuse_foreign(file: h5py.File) -> None:
    """Looks at every link and every array without following or reading it."""
    seen = 0

    def look_at_link(name: str, link: object) -> str | None:
        nonlocal seen
        seen += 1
        if seen > _MOST_OBJECTS:
            return f"it holds more than {_MOST_OBJECTS} objects"
        return None if isinstance(link, h5py.HardLink | h5py.SoftLink) else f"'{name}' is a link to another file"

    def look_at_object(name: str, found: object) -> str | None:
        foreign = isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
        return f"the array '{name}' lies in other files" if foreign else None

    if problem := file.visititems_links(look_at_link) or file.visititems(look_at_object):
        raise _RefusedError(problem)


def _longest_text(path: Path) -> int:
    """The most bytes that a text of variable length can have: all of a heap of the file. Many texts may be one."""
    longest = 0
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise OSError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = content.find(_HEAP)
            while place >= 0:
                longest = max(longest, _heap_size(content, place))
                place = content.find(_HEAP, place + 1)
    return longest


def _heap_size(content: mmap.mmap, begin: int) -> int:
    """The size of a heap of texts. HDF5 goes round in it for ever if one of its parts has the length 0."""
    size = int.from_bytes(content[begin + len(_HEAP) : begin + _PART_HEAD], "little")
    place, end = begin + _PART_HEAD, begin + size
    if end > len(content):
        raise _RefusedError("its heap of texts is damaged")
    while end - place >= _PART_HEAD:
        is_free = content[place : place + 2] == b"\0\0"
        length = int.from_bytes(content[place + 8 : place + _PART_HEAD], "little")
        step = length if is_free else _PART_HEAD + -(-length // 8) * 8
        if step < _PART_HEAD or step > end - place:
            raise _RefusedError("its heap of texts is damaged")
        place += step
    return size


def _arrays(root: h5py.Group, longest: int) -> Arrays:
    arrays: Arrays = {}
    total = 0
    for layer_name in _names(root, "layer_names", longest):
        group = root[layer_name]
        found: dict[str, NDArray[np.float32]] = {}
        for name in _names(group, "weight_names", longest):
            dataset = group[name]
            total += _checked_bytes(name, dataset)
            if total > _MOST_BYTES:
                raise _RefusedError(f"it holds more than {_MOST_BYTES >> 20} MiB of arrays")
            found[name.rpartition("/")[2].partition(":")[0]] = np.asarray(dataset, np.float32)
        if found:
            arrays[layer_name.replace("/", "_")] = found
    return arrays


def _checked_bytes(name: str, dataset: Any) -> int:
    """How much memory reading ``dataset`` takes."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind not in _NUMBERS:
        raise _RefusedError(f"'{name}' is no array of numbers")
    count = math.prod(dataset.shape)
    # A chunk is unpacked as a whole, and may be larger than its array.
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    most = max(count * max(dataset.dtype.itemsize, 4), chunk)
    if most > max(_SHORT_BYTES, _MOST_UNPACKED * dataset.id.get_storage_size()):
        raise _RefusedError(f"the array '{name}' claims far more than the file holds")
    return int(most)


def _names(group: h5py.Group, attribute: str, longest: int) -> list[str]:
    """A list of names, which Keras spreads over numbered attributes where it is longer than 64 kB."""
    if attribute in group.attrs:
        keys = [attribute]
    else:
        numbered = [key for key in group.attrs if key.startswith(attribute) and key[len(attribute) :].isdecimal()]
        keys = sorted(numbered, key=lambda key: int(key[len(attribute) :]))
    if not keys:
        raise KeyError(attribute)
    names: list[str] = []
    for key in keys:
        kept = group.attrs.get_id(key)
        count, length = math.prod(kept.shape), max(longest, kept.dtype.itemsize)
        if count * length > _MOST_BYTES or len(names) + count > _MOST_NAMES:
            raise _RefusedError(f"it has too many names, or too long ones, in '{key}'")
        names += [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]]
    return names


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
