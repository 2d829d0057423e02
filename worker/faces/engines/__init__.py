"""What runs a network. Each runtime has a module of its own, imported only when it is chosen."""

from pathlib import Path
from typing import Final

from worker.errors import ModelError

DEVICE_ENGINES: Final = ("tensorflow", "jax", "torch")
"""The runtimes of :mod:`worker.faces.device`, which need a GPU."""
ENGINES_OF_FORMAT: Final = {
    "h5": ("openvino", "keras", *DEVICE_ENGINES),
    "openvino": ("openvino",),
    "onnx": ("openvino", "onnx"),
    "dlib": ("dlib",),
}
"""The engines that can run a model of each format, the one for a processor first."""


def choose_engine(model_id: str, model_format: str, requested: str = "auto") -> str:
    """The engine for a model: the one that is ``requested``, or for ``auto`` the fastest on a processor.

    Where there is a GPU, ``auto`` was replaced before, see :func:`worker.faces.device.runtimes.runtime_for_auto`.

    Raises:
        ModelError: the requested engine cannot run the model.
    """
    possible = ENGINES_OF_FORMAT[model_format]
    if requested == "auto":
        return possible[0]
    if requested not in possible:
        raise ModelError(
            f"{model_id} runs on {' or '.join(possible)}, not on the engine '{requested}': leave it at auto"
        )
    return requested


def processor_flags() -> frozenset[str]:
    """The instruction sets of this processor by Linux' names, such as ``avx2``; empty if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
