"""Run an ONNX file with ONNX Runtime, where it is asked for by name. By default OpenVINO runs such files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError

try:
    import onnxruntime
except ImportError:
    raise ModelError(
        "the engine 'onnx' needs onnxruntime, which is missing: pip install onnxruntime, or leave --engine at auto"
    ) from None

onnxruntime.disable_telemetry_events()  # its builds for Windows report to their maker


class OnnxNetwork:
    """An ONNX network with its preprocessing: call it with uint8 RGB chips (n, side, side, 3)."""

    def __init__(
        self,
        path: Path,
        *,
        side: int,
        channel_order: str,
        layout: str,
        mean: Sequence[float],
        scale: Sequence[float],
        threads: int = 0,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class but this
            problem = " ".join(str(error).split())[-200:]
            raise ModelError(f"ONNX Runtime cannot load {path}: {problem}; is it an ONNX network?") from None
        self.device = "GPU" if self._session.get_providers()[0].startswith("CUDA") else "CPU"
        self._input = self._session.get_inputs()[0].name
        expected = [3, side, side] if layout == "nchw" else [side, side, 3]
        shape = self._session.get_inputs()[0].shape[1:]
        if any(isinstance(have, int) and have != want for have, want in zip(shape, expected, strict=False)):
            raise ModelError(f"{path.name} takes {shape}, its manifest says {expected}: correct side or layout there")
        self._bgr, self._nchw = channel_order == "bgr", layout == "nchw"
        self._mean, self._scale = np.asarray(mean, np.float32), np.asarray(scale, np.float32)

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        ordered = batch[..., ::-1] if self._bgr else batch
        values = (ordered - self._mean) / self._scale
        if self._nchw:
            values = values.transpose(0, 3, 1, 2)
        outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: np.ascontiguousarray(values)})
        return tuple(outputs)
