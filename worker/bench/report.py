"""The result as people read it: the machine, the versions, a table for a terminal or in Markdown."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from worker.bench.rows import Row

_PACKAGES: Final = (
    "facestream", "openvino", "tensorflow", "keras", "faiss-cpu", "numpy", "opencv-python-headless", "av", "mtcnn",
    "facenet-pytorch", "torch", "onnxruntime",
)  # fmt: skip
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_COLUMNS: Final = ("row", "ours", "peer", "unit", "ratio", "spread of ours", "spread of the peer", "agree", "note")


def machine() -> dict[str, Any]:
    """The machine and the versions, as a document with the fields of a row, so that every line has them."""
    model, flags, memory_gb = _processor()
    versions = {package: _version(package) for package in _PACKAGES}
    isa = [flag for flag in _INSTRUCTIONS if flag in flags]
    cores = len(os.sched_getaffinity(0))
    described: dict[str, Any] = {
        "cpu": model,
        "cores": cores,
        "isa": isa,
        "memory_gb": memory_gb,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }
    note = f"{cores} cores of {model} ({' '.join(isa)}), {memory_gb} GB"
    empty = dict.fromkeys(("ours", "peer", "ratio", "spread", "agree"))
    return {"name": "machine", "unit": "", **empty, "note": note} | described


def table(rows: Sequence[Row], described: dict[str, Any]) -> Table:
    """For a terminal."""
    made = Table(title=_headline(described), caption=_versions(described), title_justify="left", caption_justify="left")
    for column in _COLUMNS:
        made.add_column(column, justify="right" if column in {"ours", "peer", "ratio"} else "left", overflow="fold")
    for row in rows:
        made.add_row(*_cells(row))
    return made


def markdown(rows: Sequence[Row], described: dict[str, Any]) -> str:
    """For a document."""
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


def _processor() -> tuple[str, set[str], int]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
            break
    kilobytes = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), 0)
    return model, flags, round(kilobytes / 1e6)


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
