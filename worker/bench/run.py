"""All rows of the benchmark, family by family."""

import fnmatch
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.bench import chain, detection, embedding, live_row, search, startup
from worker.bench.comparison import Setup
from worker.bench.contest import ContestantProcess, Starter
from worker.bench.material import Material, make_material
from worker.bench.rows import Row
from worker.errors import ConfigError

_FAMILIES: Final = (detection, embedding, chain, live_row, search, startup)
NAMES: Final = tuple(name for family in _FAMILIES for name in family.NAMES)
_FRAMES: Final = 16
_ROUNDS: Final = 3
_QUICK_ROUNDS: Final = 1


@dataclass(frozen=True, slots=True)
class Options:
    """``patterns`` of row names, such as ``detect*``; none means all. ``quick`` takes less of everything."""

    clip: Path | None = None
    patterns: Sequence[str] = ()
    quick: bool = False
    models_dir: Path | None = None


def measure(
    options: Options, say: Callable[[str], None] = lambda _text: None, *, start: Starter = ContestantProcess
) -> Iterator[Row]:
    """Yields each row as soon as it is measured; ``say`` is told what is under way.

    Raises:
        ConfigError: a pattern that fits no row.
        UnableError: the clip cannot be used.
    """
    for pattern in options.patterns:
        if not fnmatch.filter(NAMES, pattern):
            raise ConfigError(f"--rows {pattern} fits no row; there are {', '.join(NAMES)}")

    def wanted(name: str) -> bool:
        return not options.patterns or any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)

    with tempfile.TemporaryDirectory(prefix="facestream-bench-") as name:

        def material() -> Material:
            say("frames, faces and weights")
            return make_material(Path(name), options.clip, _FRAMES, options.models_dir, start=start)

        rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
        setup = Setup(material, rounds=rounds, quick=options.quick, wanted=wanted, start=start)
        for family in _FAMILIES:
            names = [name for name in family.NAMES if wanted(name)]
            if names:
                say(", ".join(names))
                yield from family.measure(setup)
