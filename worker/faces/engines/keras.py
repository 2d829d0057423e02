"""Run a Keras network with TensorFlow: the engine for a GPU."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from worker.faces.engines.backend import use_backend

use_backend("tensorflow")

import numpy as np  # noqa: E402 - only now is the backend chosen
import tensorflow as tf  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

_POLICIES: Final = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def gpu_count() -> int:
    """How many GPUs TensorFlow can use; the first call makes TensorFlow take their memory only as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow is already running, with the setting it was given
            break
    return len(gpus)


def best_precision() -> str:
    """``fp16`` on GPUs that compute in it fast (compute capability 7.0 and up), else ``fp32``.

    Not ``bf16``: it takes vectors too far from those in fp32, and sure faces get lost.
    """
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return "fp16" if capabilities and min(capabilities) >= (7, 0) else "fp32"


class KerasNetwork:
    """A Keras network as one compiled graph for each batch size that it meets.

    Call it with a uint8 batch; it goes to the device in one copy. Keep to few batch sizes, since each is
    compiled when it first occurs.
    """

    def __init__(
        self,
        builder: str,
        arguments: Mapping[str, Any],
        *,
        precision: str = "fp32",
        compile_with_xla: bool | None = None,
    ) -> None:
        """``builder`` is ``"module:function"``; it gets ``arguments`` and a Keras ``dtype`` policy.

        XLA is used on a GPU unless ``compile_with_xla`` says otherwise; on a processor it gains nothing.
        """
        on_gpu = gpu_count() > 0
        self.device = "GPU" if on_gpu else "CPU"
        module, _, function = builder.partition(":")
        model = getattr(importlib.import_module(module), function)(**arguments, dtype=_POLICIES[precision])
        self._xla = on_gpu if compile_with_xla is None else compile_with_xla
        self._model = model
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Features float32 (n, d) of a uint8 batch (n, side, side, 3), as the only member of a tuple."""
        run = self._compiled.get(batch.shape)
        if run is None:
            run = self._compiled[batch.shape] = self._compile(batch.shape)
        return (run(tf.constant(batch)).numpy(),)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        function = tf.function(lambda chips: self._model(chips, training=False), jit_compile=self._xla)
        return function.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
