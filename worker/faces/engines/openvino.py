"""Networks with OpenVINO, on the processor: run one, take in another project's file, quantise one to INT8."""

import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError

# ``import openvino`` tries to load what converts models, too. A worker has no use for it, and it takes half the time.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("openvino.tools.ovc", None)
try:
    import openvino
finally:
    if _modules["openvino.tools.ovc"] is None:
        del _modules["openvino.tools.ovc"]

Precision = Literal["fp32", "bf16"]

_SHAPES_KEPT: Final = 16
_QUANTIZATION_BATCH: Final = 8


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
            # Pinned, a thread would wait for its core while other work has it, and the whole inference for the thread.
            "ENABLE_CPU_PINNING": False,
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


class ImportedNetwork:
    """A network that takes uint8 RGB (n, side, side, 3); ``export`` is called as that of a Keras model would be."""

    def __init__(self, model: openvino.Model) -> None:
        self._model = model

    def export(self, path: str, **_: Any) -> None:
        """Write the network to ``path`` (``.xml``) and its weights beside it."""
        openvino.serialize(self._model, path)


def import_network(
    paths: Sequence[str],
    side: int,
    channel_order: str,
    layout: str,
    mean: Sequence[float],
    scale: Sequence[float],
    max_batch: int | None,
) -> ImportedNetwork:
    """Make the network file of another project take our chips: the preprocessing is put into the network.

    The file is an ONNX file, or an OpenVINO ``.xml`` and its ``.bin``. The network computes
    ``(pixel - mean) / scale`` in its own channel order. Its batch is left open, or fixed at ``max_batch``.

    Raises:
        ModelError: no such network, one with another input, or one that cannot take batches.
    """
    from openvino.preprocess import ColorFormat, PrePostProcessor

    where = Path(paths[0]).name
    try:
        model = openvino.Core().read_model(*paths)
        picture = [3, side, side] if layout == "nchw" else [side, side, 3]
        takes = model.input().get_partial_shape()
        if not takes.compatible(openvino.PartialShape([-1, *picture])):
            raise ModelError(f"{where} takes {takes}, its manifest says {picture}: correct side or layout there")
        model.reshape([max_batch or -1, *picture])
        if model.input().get_element_type() == openvino.Type.u8:
            return ImportedNetwork(model)  # the preprocessing is in there already: we quantised this network
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().tensor().set_color_format(ColorFormat.RGB)
        steps.input().model().set_layout(openvino.Layout(layout.upper()))
        preprocess = steps.input().preprocess().convert_element_type(openvino.Type.f32)
        if channel_order == "bgr":
            preprocess = preprocess.convert_color(ColorFormat.BGR)
        if any(mean):
            preprocess = preprocess.mean(list(mean))
        if any(divisor != 1.0 for divisor in scale):
            preprocess.scale(list(scale))
        prepared = steps.build()
    except RuntimeError as error:
        problem = " ".join(str(error).split())[-200:]
        raise ModelError(
            f"{where} cannot be prepared as its manifest says: {problem}; check side, layout, and 'max_batch: 1'"
        ) from None
    if max_batch is None and not prepared.outputs[0].get_partial_shape()[0].is_dynamic:
        raise ModelError(f"{where} can take one face at a time only: say 'max_batch: 1' under 'input' in its manifest")
    return ImportedNetwork(prepared)


def quantize(network: Path, chips: NDArray[np.uint8], path: Path) -> None:
    """Quantise after training, with NNCF: write ``network``, an OpenVINO file that takes uint8 RGB chips, in INT8 to
    ``path`` (``.xml``).

    The ranges of its activations are read off ``chips`` uint8 (n, side, side, 3); a few hundred faces of many people
    are enough.

    Raises:
        ModelError: NNCF is not installed, or cannot quantise the network.
    """
    try:
        import nncf
    except ImportError:
        raise ModelError("quantising needs NNCF: pip install 'facestream[int8]'") from None
    # Not by NNCF's own function, which changes every handler that it finds at its logger, whoever set them.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    size = _QUANTIZATION_BATCH
    batches = [chips[first : first + size] for first in range(0, len(chips) - size + 1, size)]
    try:
        made: Any = nncf.quantize(
            openvino.Core().read_model(network),
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )
    except (RuntimeError, nncf.ValidationError) as error:
        problem = " ".join(str(error).split())[-200:]
        raise ModelError(f"{network.name} cannot be quantised: {problem}") from None
    openvino.save_model(made, path, compress_to_fp16=False)
