"""Run a network on the processor with OpenVINO."""

import functools
import os
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from worker.errors import ModelError

Precision = Literal["fp32", "bf16"]

_SHAPES_KEPT: Final = 16


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

    With ``chunk`` the network has one input and one output, both batched, and is compiled for exactly ``chunk``
    items of each item shape that it meets: any number of items is computed in chunks, side by side on all threads,
    and an item's result does not depend on the others. Without it the whole call is one inference.

    Not safe for concurrent calls.
    """

    device = "CPU"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "fp32",
        threads: int = 0,
        cache_dir: Path | None = None,
        chunk: int | None = None,
    ) -> None:
        self._chunk = chunk
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        threads = threads or (len(os.sched_getaffinity(0)) if chunk else 0)
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        if chunk:
            self._options |= {"NUM_STREAMS": threads, "PERFORMANCE_HINT": "THROUGHPUT"}
        self._streams = threads
        self._path = path
        self._core = core(cache_dir)
        self._requests_for = functools.lru_cache(_SHAPES_KEPT)(self._compile_chunk)
        try:
            self._model = self._core.read_model(path)
            if chunk is None:
                self._compiled = self._core.compile_model(self._model, "CPU", self._options)
                self._request = self._compiled.create_infer_request()
        except RuntimeError as error:
            problem = " ".join(str(error).split())[-200:]
            raise ModelError(f"OpenVINO cannot load {path}: {problem}; is it an OpenVINO or ONNX network?") from None

    def __call__(self, *inputs: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        if self._chunk is not None:
            return (self._run_in_chunks(inputs[0], self._chunk),)
        results = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return tuple(results[output] for output in self._compiled.outputs)

    def _compile_chunk(self, *item_shape: int) -> tuple[list[openvino.InferRequest], tuple[int, ...]]:
        model = self._model.clone()
        model.reshape([self._chunk, *item_shape])
        compiled = self._core.compile_model(model, "CPU", self._options)
        return [compiled.create_infer_request() for _ in range(self._streams)], tuple(compiled.outputs[0].shape)[1:]

    def _run_in_chunks(self, items: NDArray[Any], chunk: int) -> NDArray[np.float32]:
        """One result for each item. Chunks are views of ``items``; only an incomplete last one is copied."""
        requests, result_shape = self._requests_for(*items.shape[1:])
        count = -(-len(items) // chunk)
        results = np.empty((count * chunk, *result_shape), np.float32)
        for number in range(count):
            some = items[number * chunk : (number + 1) * chunk]
            if len(some) < chunk:
                some = np.concatenate([some, np.zeros((chunk - len(some), *items.shape[1:]), items.dtype)])
            request = requests[number % len(requests)]
            request.wait()
            request.set_input_tensor(openvino.Tensor(some, shared_memory=True))
            place = results[number * chunk : (number + 1) * chunk]
            request.set_output_tensor(openvino.Tensor(place, shared_memory=True))
            request.start_async()
        for request in requests:
            request.wait()
        return results[: len(items)]
