"""The runtime of the device path: TensorFlow, JAX or torch, one in a process, chosen before Keras is imported."""

import importlib.util
import logging
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.engines.backend import backend_in_use, use_backend
from worker.logs import get_logger

RUNTIMES: Final = {"tensorflow": "gpu", "jax": "gpu-jax", "torch": "gpu-torch"}
"""What can run the device path, and the extra that installs it; the first one that is there is the default."""

GPU_DEVICES: Final = (Path("/dev/nvidia0"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""A system that has one of these has a GPU, whether anything can use it or not."""

_LONGEST_REASON: Final = 300

Array = NDArray[Any]

_log = get_logger(__name__)


class Runtime(Protocol):
    """Moves arrays to the device and back, and compiles functions of ``keras.ops``.

    ``name`` is of :data:`RUNTIMES`, ``device`` is ``GPU`` or ``CPU``, ``card`` the device's own name. ``problem`` is
    why it sees no GPU, where it says that; else empty.
    """

    name: str
    device: str
    card: str
    problem: str

    def put(self, arrays: Any) -> Any:
        """Tensors on the device of an array or of arrays in lists, as they are nested; the copies may still be under
        way. To send many at once costs JAX a fraction."""
        ...

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` of tensors (and lists and dicts of them), compiled once for each shape that it meets. Its
        results may still be under way when it returns."""
        ...

    def fetched(self, tensor: Any) -> Array:
        """The values of a tensor, once they are there."""
        ...

    def free_bytes(self) -> int | None:
        """How much memory the device has left; None where that is not known."""
        ...


def installed() -> list[str]:
    """The runtimes that are installed, the default first."""
    return [name for name in RUNTIMES if importlib.util.find_spec(name) is not None]


def load_runtime(
    name: str | None = None,
    *,
    cache_dir: Path | None = None,
    processor: bool = False,
    make: Callable[[str, Path | None, bool], Runtime] | None = None,
) -> Runtime:
    """The runtime ``name``, or the one that this process uses already, or the first one that is installed and has a
    GPU.

    It is made once in a process; one that was made for the processor stays there.

    Args:
        cache_dir: where JAX keeps what it has compiled.
        processor: take the processor: for tests, and to compare.
        make: what makes a runtime of a name, ``cache_dir`` and ``processor``.

    Raises:
        ModelError: it is not installed, it sees no GPU, or Keras runs on another one in this process.
    """
    make = make or _made
    chosen = name or backend_in_use() or next(iter(_loaded), None) or (_installed()[0] if processor else None)
    if chosen is None:
        runtime = _first_with_gpu(cache_dir, make)
        use_backend(runtime.name)
        return _loaded.setdefault(runtime.name, runtime)
    if chosen not in RUNTIMES:
        raise ModelError(f"there is no runtime '{chosen}': take one of {', '.join(RUNTIMES)}")
    extra = f"pip install 'facestream[{RUNTIMES[chosen]}]'"
    if importlib.util.find_spec(chosen) is None:
        raise ModelError(f"the runtime {chosen} is not installed: {extra}")
    use_backend(chosen)
    runtime = _loaded.get(chosen) or make(chosen, cache_dir, processor)
    if runtime.device != "GPU" and not processor and chosen not in _loaded:
        raise ModelError(
            f"{chosen} sees no GPU{_in_brackets(runtime.problem)}: check the driver with nvidia-smi, install {chosen} "
            f"for it ({extra}), or choose the engine openvino, which runs on the processor"
        )
    return _loaded.setdefault(chosen, runtime)


def runtime_for_auto(cache_dir: Path | None = None, devices: Sequence[Path] = GPU_DEVICES) -> str | None:
    """The runtime that the engine ``auto`` stands for: the first one that sees the GPU; None where there is no GPU.

    Of a GPU that no runtime sees one line of the log tells, once in a process, and the processor is used. ``devices``
    are the files by which a GPU is known.
    """
    if not any(device.exists() for device in devices):
        return None
    try:
        return load_runtime(cache_dir=cache_dir).name
    except ModelError as error:
        problem = str(error)
        if problem not in _told:
            _told.add(problem)
            _log.warning("there is a GPU, and it cannot be used: going on with the processor", problem=problem)
        return None


def _installed() -> list[str]:
    there = installed()
    if not there:
        raise ModelError("no runtime for a GPU is installed: pip install 'facestream[gpu]'")
    return there


def _first_with_gpu(cache_dir: Path | None, make: Callable[[str, Path | None, bool], Runtime]) -> Runtime:
    there = _installed()
    broken = ""
    for name in there:
        try:
            runtime = make(name, cache_dir, False)
        except ModelError as problem:
            broken += _in_brackets(str(problem))
        else:
            if runtime.device == "GPU":
                return runtime
            broken += _in_brackets(runtime.problem and f"{name}: {runtime.problem}")
    raise ModelError(
        f"no GPU is seen by {' or '.join(there)}: check the driver with nvidia-smi, or choose the engine "
        f"openvino, which runs on the processor{broken}"
    )


def _made(name: str, cache_dir: Path | None, processor: bool) -> Runtime:
    try:
        return _CLASSES[name](cache_dir, processor)
    except (AssertionError, ImportError, OSError, RuntimeError) as error:
        # A plugin of another version, a library of the driver that is missing, a driver that is too old.
        reason = _in_short([str(error)]) or type(error).__name__
        raise ModelError(
            f"{name} cannot be used: {reason}. Install it anew (pip install 'facestream[{RUNTIMES[name]}]'), check the "
            "driver with nvidia-smi, or choose the engine openvino, which runs on the processor"
        ) from None


def _in_short(texts: Sequence[str]) -> str:
    return " ".join(" ".join(texts).split())[:_LONGEST_REASON]


def _in_brackets(text: str) -> str:
    return text and f" ({text})"


@contextmanager
def _heard(logger: str) -> Iterator[list[str]]:
    """What ``logger`` says meanwhile, in place of the tracebacks that it would write."""
    said: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        said.append(str(error) if error is not None else record.getMessage())
        return False

    logging.getLogger(logger).addFilter(hear)
    try:
        yield said
    finally:
        logging.getLogger(logger).removeFilter(hear)


class _TensorFlow:
    name = "tensorflow"
    problem = ""

    def __init__(self, _cache_dir: Path | None, processor: bool) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        self._tf = tf
        gpus = [] if processor else tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:  # TensorFlow is already running, with the setting it was given
                break
        self.device = "GPU" if gpus else "CPU"
        self.card = str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else "CPU"

    def put(self, arrays: Any) -> Any:
        return _of_each(self._tf.constant, arrays)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        run: Callable[..., Any] = self._tf.function(function, jit_compile=True, autograph=False)
        return run

    def fetched(self, tensor: Any) -> Array:
        return np.asarray(tensor.numpy())

    def free_bytes(self) -> int | None:
        return _free_by_driver() if self.device == "GPU" else None


class _Jax:
    name = "jax"

    def __init__(self, cache_dir: Path | None, processor: bool) -> None:
        # As TensorFlow is told to: memory is taken as it is needed, so that several workers share a card.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if processor:
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        self._jax = jax
        if cache_dir is not None:
            jax.config.update("jax_compilation_cache_dir", str(cache_dir / "jax"))
        with _heard("jax._src.xla_bridge") as said:
            (self._device, *_) = jax.devices()
        self.problem = _in_short(said)
        self.device = "GPU" if self._device.platform == "gpu" else "CPU"
        self.card = str(self._device.device_kind)

    def put(self, arrays: Any) -> Any:
        return self._jax.device_put(arrays, self._device)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        run: Callable[..., Any] = self._jax.jit(function)
        return run

    def fetched(self, tensor: Any) -> Array:
        return np.asarray(tensor)

    def free_bytes(self) -> int | None:
        used = self._device.memory_stats() or {}
        return int(used["bytes_limit"] - used["bytes_in_use"]) if "bytes_limit" in used else None


class _Torch:
    name = "torch"

    def __init__(self, _cache_dir: Path | None, processor: bool) -> None:
        import torch

        self._torch = torch
        with warnings.catch_warnings(record=True) as said:
            there = torch.cuda.is_available()
        self.problem = _in_short([str(warning.message) for warning in said])
        self.device = "GPU" if there and not processor else "CPU"
        self.card = torch.cuda.get_device_name() if self.device == "GPU" else "CPU"

    def put(self, arrays: Any) -> Any:
        return _of_each(self._put, arrays)

    def _put(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to("cuda", non_blocking=True) if self.device == "GPU" else tensor

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with self._torch.inference_mode():
                return function(*arguments)

        return run

    def fetched(self, tensor: Any) -> Array:
        return np.asarray(tensor.detach().cpu().numpy())

    def free_bytes(self) -> int | None:
        return int(self._torch.cuda.mem_get_info()[0]) if self.device == "GPU" else None


def _of_each(put: Callable[[Array], Any], arrays: Any) -> Any:
    return [_of_each(put, each) for each in arrays] if isinstance(arrays, list) else put(arrays)


def _free_by_driver() -> int | None:
    """What ``nvidia-smi`` says of the first card: TensorFlow does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
        return int(told.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


_CLASSES: Final[dict[str, Callable[[Path | None, bool], Runtime]]] = {
    "tensorflow": _TensorFlow,
    "jax": _Jax,
    "torch": _Torch,
}

_loaded: Final[dict[str, Runtime]] = {}
"""Detector, embedder and search share what lies on the device."""
_told: Final[set[str]] = set()
"""Detector and embedder ask for a GPU, each for itself."""
DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
