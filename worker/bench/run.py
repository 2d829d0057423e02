"""The whole benchmark: all its rows one after another, the machine, and the table of the result."""

import fnmatch
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from worker.bench import chain, live, load, networks, search
from worker.bench.comparison import Row, Setup
from worker.bench.contest import ContestantProcess, Starter
from worker.bench.material import Material, make_material
from worker.errors import ConfigError
from worker.faces.engines import processor_flags
from worker.files import scratch_folder

_GROUPS: Final = (
    (networks.DETECTION_NAMES, networks.measure_detection),
    (networks.EMBEDDING_NAMES, networks.measure_embedding),
    (chain.CHAIN_NAMES, chain.measure_chain),
    (live.NAMES, live.measure),
    (load.NAMES, load.measure),
    (search.NAMES, search.measure),
    (chain.START_NAMES, chain.measure_start),
)
"""Names of rows, and the function that measures those of them that are wanted."""
NAMES: Final = tuple(name for names, _ in _GROUPS for name in names)
_FRAMES: Final = 16
_ROUNDS: Final = 3
_QUICK_ROUNDS: Final = 1
_PACKAGES: Final = (
    "facestream", "openvino", "tensorflow", "keras", "faiss-cpu", "numpy", "opencv-python-headless", "av", "mtcnn",
    "facenet-pytorch", "torch", "onnxruntime",
)  # fmt: skip
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_IDLE_BELOW: Final = 0.05
_COLUMNS: Final = ("row", "ours", "peer", "unit", "ratio", "spread of ours", "spread of the peer", "agree", "note")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure.

    ``patterns`` are patterns of row names, such as ``detect*``; without any, all rows are measured. ``quick`` measures
    less of everything. Without a ``clip``, facestream makes its own.
    """

    clip: Path | None = None
    patterns: Sequence[str] = ()
    quick: bool = False
    models_dir: Path | None = None


def measure(
    options: Options, say: Callable[[str], None] = lambda _text: None, *, start: Starter = ContestantProcess
) -> Iterator[Row]:
    """Yields each row as soon as it is measured. ``say`` is told what is being measured.

    Raises:
        ConfigError: a pattern matches no row.
        UnableError: the clip cannot be used.
    """
    for pattern in options.patterns:
        if not fnmatch.filter(NAMES, pattern):
            raise ConfigError(f"--rows {pattern} matches no row; the rows are {', '.join(NAMES)}")

    def wanted(name: str) -> bool:
        return not options.patterns or any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)

    with _setup(options, say, start, wanted) as setup:
        for names, measure_group in _GROUPS:
            if here := [name for name in names if wanted(name)]:
                say(f"measuring {', '.join(here)}")
                yield from measure_group(setup)


def measure_capacity(
    options: Options, say: Callable[[str], None] = lambda _text: None, *, start: Starter = ContestantProcess
) -> Row:
    """How many cameras like ``options.clip`` this machine carries.

    Raises:
        UnableError: the clip cannot be used, or there is no RTSP server or no Redis.
    """
    with _setup(options, say, start) as setup:
        return live.measure_capacity(setup, say)


@contextmanager
def _setup(
    options: Options, say: Callable[[str], None], start: Starter, wanted: Callable[[str], bool] = lambda _name: True
) -> Iterator[Setup]:
    with scratch_folder() as folder:

        def material() -> Material:
            say("making frames, faces and weights")
            return make_material(folder, options.clip, _FRAMES, options.models_dir, start=start)

        rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
        yield Setup(material, rounds=rounds, quick=options.quick, wanted=wanted, start=start)


def machine() -> dict[str, Any]:
    """The machine and the versions. The document also has all fields of a row, so that every line has the same.

    It takes a second: ``busy_ratio`` is the share of processor time that other work takes before the measurement begins
    (0..1), or ``None`` where the system does not tell.
    """
    model, memory_gb = _processor()
    flags = processor_flags()
    busy_ratio = _busy_ratio()
    versions = {package: _version(package) for package in _PACKAGES}
    isa = [flag for flag in _INSTRUCTIONS if flag in flags]
    cores = len(os.sched_getaffinity(0))
    described: dict[str, Any] = {
        "cpu": model,
        "cores": cores,
        "isa": isa,
        "memory_gb": memory_gb,
        "busy_ratio": busy_ratio,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }
    state = "" if busy_ratio is None else ", idle" if busy_ratio < _IDLE_BELOW else f", {busy_ratio:.0%} busy before"
    note = f"{cores} cores of {model} ({' '.join(isa)}), {memory_gb} GB{state}"
    empty = dict.fromkeys(("ours", "peer", "ratio", "spread", "agree"))
    return {"name": "machine", "unit": "", **empty, "note": note} | described


def table(rows: Sequence[Row], described: dict[str, Any]) -> Table:
    """The result as a table for a terminal; ``described`` comes from :func:`machine`."""
    made = Table(title=_headline(described), caption=_versions(described), title_justify="left", caption_justify="left")
    for column in _COLUMNS:
        made.add_column(column, justify="right" if column in {"ours", "peer", "ratio"} else "left", overflow="fold")
    for row in rows:
        made.add_row(*_cells(row))
    return made


def markdown(rows: Sequence[Row], described: dict[str, Any]) -> str:
    """The result as a table in Markdown; ``described`` comes from :func:`machine`."""
    head = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |" for row in rows]
    return "\n".join([_headline(described) + ".", "", *head, *body, "", _versions(described) + "."])


def _headline(described: dict[str, Any]) -> str:
    return f"{described['note']}, Python {described['python']}, {described['system']}"


def _versions(described: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number or 'not installed'}" for name, number in described["versions"].items())


def _cells(row: Row) -> list[str]:
    spread = row.spread or {}
    agree = {True: "yes", False: "NO", None: ""}[row.agree]
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}x"
    return [row.name, _number(row.ours), _number(row.peer), row.unit, ratio, _range(spread.get("ours")),
            _range(spread.get("peer")), agree, row.note]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _range(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{_number(limits[0])} to {_number(limits[1])}"


def _processor() -> tuple[str, int]:
    models = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    model = next(models, platform.processor() or platform.machine())
    kilobytes = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), 0)
    return model, round(kilobytes / 1e6)


def _busy_ratio() -> float | None:
    """The share of processor time that is in use during one second, of all processors that the system shows."""
    before = _processor_times()
    time.sleep(1)
    passed = [after - earlier for earlier, after in zip(before, _processor_times(), strict=False)]
    # man 5 proc: user, nice, system, idle, iowait, ...
    return round(1 - sum(passed[3:5]) / sum(passed), 3) if sum(passed) else None


def _processor_times() -> list[int]:
    first = next(iter(_lines("/proc/stat")), "")
    return [int(number) for number in first.split()[1:9]]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
