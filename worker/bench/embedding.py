"""Embedding of 32 faces of the clip with ResNet-50 at 224x224 and random weights."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from worker.bench.agree import same_vectors
from worker.bench.comparison import Comparison, Family, Setup
from worker.bench.material import CHIPS, Material
from worker.bench.rows import Row

NAMES: Final = (
    "embed/keras_predict_b32",
    "embed/tf_function_b32",
    "embed/onnxruntime_b32",
    "embed/onnxruntime_b32_fp32",
    "embed/int8_b32",
)
INT8_MIN_COSINE: Final = 0.95
"""Random weights hardly tell faces apart, so that what 8 bits round off weighs heavily beside what is left without the
mean; a network that was quantised wrongly is far below."""
_INT8_NOTE: Final = (
    f"speed only: the ranges were read off these very faces, and agree means a cosine of {INT8_MIN_COSINE}; random "
    "weights cannot show what INT8 costs in accuracy: evaluate the model that 'facestream models quantize' makes"
)


def measure(setup: Setup) -> Iterator[Row]:
    """A row for each of :data:`NAMES` that is wanted."""
    if any(map(setup.wanted, NAMES)):
        yield from family(setup.material).measure(setup)


def family(material: Material) -> Family:
    """All rows take one full batch a turn."""
    network: dict[str, Any] = {"chips": str(material.chips), "manifest": str(material.manifest)}
    folder = {"folder": str(material.chips.parent)}
    variants = {"auto": "auto", "fp32": "fp32"}
    contestants = {
        "ours": ("worker.bench.ours:embedders", network | {"variants": variants}),
        "int8": ("worker.bench.ours:quantized", network),
        "keras": ("worker.bench.peers:keras", network),
        "onnx": ("worker.bench.peers:onnxruntime", network | folder),
    }
    near_vectors = partial(same_vectors, min_cosine=INT8_MIN_COSINE)
    comparisons = (
        Comparison("embed/keras_predict_b32", "ours/auto", ("keras/predict",), same_vectors),
        Comparison("embed/tf_function_b32", "ours/auto", ("keras/tf_function",), same_vectors),
        Comparison("embed/onnxruntime_b32", "ours/auto", ("onnx/run",), same_vectors),
        Comparison("embed/onnxruntime_b32_fp32", "ours/fp32", ("onnx/run",), partial(same_vectors, min_cosine=0.9999)),
        Comparison("embed/int8_b32", "int8/int8", ("keras/predict",), near_vectors, _INT8_NOTE),
    )
    works = {work for comparison in comparisons for work in comparison.works}
    return Family(contestants, comparisons, dict.fromkeys(works, CHIPS), "faces/s")
