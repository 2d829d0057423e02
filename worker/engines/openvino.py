"""Run a network on the processor with OpenVINO."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from worker.errors import ModelError

Precision = Literal["fp32", "bf16"]


@functools.cache
def core(cache_dir: Path | None = None) -> openvino.Core:
    """The process's OpenVINO core; compiled networks are cached below ``cache_dir``."""
    made = openvino.Core()
    if cache_dir is not None:
        made.set_property({"CACHE_DIR": str(cache_dir / "compiled")})
    return made


def best_precision() -> Precision:
    """``bf16`` where the processor computes in it natively, else ``fp32``."""
    return "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"


class OpenVinoNetwork:
    """A compiled network: call it with arrays in the order of its inputs, get its outputs in order.

    Not safe for concurrent calls: one inference request, whose output buffers are reused by the next call.
    """

    device = "CPU"

    def __init__(
        self, path: Path, *, precision: Precision = "fp32", threads: int = 0, cache_dir: Path | None = None
    ) -> None:
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        engine = core(cache_dir)
        try:
            self._compiled = engine.compile_model(engine.read_model(path), "CPU", options)
        except RuntimeError as error:
            problem = " ".join(str(error).split())[-200:]
            raise ModelError(f"OpenVINO cannot load {path}: {problem}; is it an OpenVINO or ONNX network?") from None
        self._request = self._compiled.create_infer_request()

    def __call__(self, *inputs: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        results = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return tuple(results[output] for output in self._compiled.outputs)
