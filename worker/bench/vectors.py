"""Galleries of any size, made up: people spread as face embeddings are, few directions holding most of the spread.

Everything comes from seeds, block by block, and lies in files that both sides map.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIMENSION: Final = 2048
_RANK: Final = 256
_CHUNK: Final = 62_500  # a million is 16 of them: the index of FAISS then grows by doubling to just that
_WITHIN: Final = 0.5
_NOISE: Final = 0.3
_NOISE_ROWS: Final = 4096


def stored(folder: Path, people: int, samples: int) -> list[NDArray[np.float32]]:
    """Unit vectors of ``people`` with ``samples`` each, person after person, in blocks float32 (n, 2048) that are
    mapped from files of ``folder``; those that are not there yet are made."""
    folder.mkdir(exist_ok=True)
    total, blocks = people * samples, []
    for first in range(0, total, _CHUNK):
        path = folder / f"{samples}-{total}-{first}.npy"
        if not path.exists():
            np.save(path, _vectors(np.arange(first, min(total, first + _CHUNK)) // samples, first))
        blocks.append(np.load(path, mmap_mode="r"))
    return blocks


def queries(people: int, samples: int, count: int) -> NDArray[np.float32]:
    """New vectors (count, 2048): every fourth of a stranger, the others of people spread over the gallery."""
    who = np.linspace(0, people - 1, count).astype(np.int64)
    who[::4] = people + np.arange(len(who[::4]))
    return _vectors(who, people * samples)


def own_memory_mb() -> float:
    """Resident memory of this process that is its own and backed by no file, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon:"))


def _vectors(who: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """A vector of each person in ``who``; ``seed`` tells their samples apart."""
    random = np.random.default_rng([seed, 1])
    known, places = np.unique(who, return_inverse=True)
    centres = np.stack([np.random.default_rng([int(one), 2]).standard_normal(_RANK, np.float32) for one in known])
    latent = centres[places] + _WITHIN * random.standard_normal((len(who), _RANK), np.float32)
    mixing, noise = _mixing()
    made = latent @ mixing
    made += noise[random.integers(0, len(noise), len(who))]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _mixing() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How latent directions (256) show in a vector, the first ones most; and rows of noise to add."""
    random = np.random.default_rng(3)
    weights = (1 + np.arange(_RANK, dtype=np.float32)) ** -0.25
    mixing = weights[:, None] * random.standard_normal((_RANK, DIMENSION), np.float32)
    spread = float(np.sqrt(np.square(weights).sum()))
    return mixing, _NOISE * spread * random.standard_normal((_NOISE_ROWS, DIMENSION), np.float32)
