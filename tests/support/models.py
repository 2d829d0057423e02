"""A model of one's own, as files, whose embedding is the mean colour of a chip; and chips for it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from worker.types import Chips

SIDE = 16
MEAN, SCALE = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "id": "means",
        "description": "mean colour of a chip",
        "format": "onnx",
        "files": [{"name": "means.onnx", "sha256": "0" * 64}],
        "licence": "none",
        "source": "made here",
        "input": {"side": SIDE, "channel_order": "bgr", "layout": "nchw", "mean": MEAN, "scale": SCALE},
        "alignment": {"kind": "five_point"},
        "dimension": 3,
        "threshold": 0.4,
        "threshold_fitted_on": "nothing",
    } | changes


def chips(n: int, seed: int = 0, side: int = SIDE) -> Chips:
    random = np.random.default_rng(seed)
    colours = random.integers(1, 200, (n, 1, 1, 3))
    return Chips((colours + random.integers(0, 50, (n, side, side, 3))).astype(np.uint8))


def _field(number: int, value: bytes | int) -> bytes:
    """One field of a protocol buffer, which is all that an ONNX file is."""
    if isinstance(value, int):
        return bytes([number << 3]) + _varint(value)
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _tensor(name: str, *sizes: int | str) -> bytes:
    dimensions = b"".join(
        _field(1, _field(1, size) if isinstance(size, int) else _field(2, size.encode())) for size in sizes
    )
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, 1) + _field(2, dimensions)))


def onnx_file(path: Path, batch: int | str = "n") -> None:
    node = _field(1, b"chips") + _field(2, b"features") + _field(4, b"GlobalAveragePool")
    graph = (
        _field(1, node)
        + _field(2, b"means")
        + _field(11, _tensor("chips", batch, 3, SIDE, SIDE))
        + _field(12, _tensor("features", batch, 3, 1, 1))
    )
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 13)))


def openvino_files(folder: Path) -> None:
    import openvino

    onnx_file(folder / "means.onnx", batch=1)
    openvino.save_model(openvino.Core().read_model(folder / "means.onnx"), folder / "means.xml")
    (folder / "means.onnx").unlink()
    # OpenVINO writes no weights file content for a network without weights.
    if not (folder / "means.bin").stat().st_size:
        (folder / "means.bin").write_bytes(b"\0")


def own_model(folder: Path, model_format: str) -> Path:
    if model_format == "onnx":
        onnx_file(folder / "means.onnx")
        names = ["means.onnx"]
    else:
        openvino_files(folder)
        names = ["means.xml", "means.bin"]
    files = [{"name": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in names]
    path = folder / "means.yaml"
    path.write_text(yaml.safe_dump(document(format=model_format, files=files, input={
        "side": SIDE, "channel_order": "bgr", "layout": "nchw", "mean": list(MEAN), "scale": list(SCALE),
    })))  # fmt: skip
    return path
