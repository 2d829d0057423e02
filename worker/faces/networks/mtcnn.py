"""The three MTCNN networks (Zhang et al. 2016), with the weights that the PyPI package ``mtcnn`` 1.0.0 carries.

Each takes uint8 RGB pixels as they are: the usual ``(x - 127.5) / 128`` is folded into the first convolution,
which is exact because none of these convolutions pads. Instead of two softmax classes each gives the difference
of their logits, face minus not face, which has the same order and spares the exponentials.
"""

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError

Part = Literal["proposal", "refinement", "output"]

_FILES: Final[dict[Part, tuple[str, str]]] = {
    "proposal": ("pnet.lz4", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"),
    "refinement": ("rnet.lz4", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"),
    "output": ("onet.lz4", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"),
}
DEFINITION: Final = "d0ed221382499fd9b0291205cc71a2199cf574591f8e5d06fc8232333f8c12da"
"""Stands for what :func:`build` makes of the weights above. Write another text here when that changes, so that networks
converted before are made anew. (It is the digest of this file as it was when the first networks were converted, so
that those are found again.)"""
_REMEDY: Final = "install mtcnn==1.0.0 again (pip install --force-reinstall --no-deps mtcnn==1.0.0)"


def load_weights(part: Part) -> list[NDArray[np.float32]]:
    """The arrays of one network, from the installed ``mtcnn`` package and nowhere else.

    The files are pickles, so their bytes are checked against a pinned digest before they are interpreted.

    Raises:
        ModelError: the package or the file is missing, or the file is not the released one.
    """
    name, expected = _FILES[part]
    package = importlib.util.find_spec("mtcnn")
    if package is None or not package.submodule_search_locations:
        raise ModelError(f"MTCNN's weights are missing: the package mtcnn is not installed; {_REMEDY}")
    path = Path(package.submodule_search_locations[0]).resolve() / "assets" / "weights" / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"MTCNN's weights {path}: {error.strerror or error}; {_REMEDY}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(f"MTCNN's weights {path} are not the released ones: sha256 {found}, not {expected}; {_REMEDY}")
    import joblib  # a worker with converted networks does without it

    return [np.asarray(array, np.float32) for array in joblib.load(io.BytesIO(content))]


def build(part: Part, dtype: str = "float32") -> Any:
    """One network as a ``keras.Model`` with its weights, computing by the Keras policy ``dtype``.

    ``proposal``: uint8 (b, H, W, 3), H and W even -> float32 (b, H / 2 - 5, W / 2 - 5, 5), one cell for each 12x12 px
    window at a stride of 2 px: logit difference, then offsets of x1, y1, x2, y2 in window sizes.
    ``refinement``: uint8 (n, 24, 24, 3) -> float32 (n, 5), the same five.
    ``output``: uint8 (n, 48, 48, 3) -> float32 (n, 15), the same five, then x of the five landmarks, then y.

    Raises:
        ModelError: see :func:`load_weights`.
    """
    import keras

    policy_before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        inputs, outputs = _layers(keras, part)
        network = keras.Model(inputs, keras.ops.cast(outputs, "float32"), name=part)
    finally:
        keras.config.set_dtype_policy(policy_before)
    network.set_weights(_ported(load_weights(part)))
    return network


def centred_weights(part: Part) -> list[NDArray[np.float32]]:
    """The arrays that :func:`applied` takes: of pixels as ``(x - 127.5) / 128``, the heads joined into one.

    Raises:
        ModelError: see :func:`load_weights`.
    """
    return _joined(load_weights(part))


def applied(part: Part, weights: list[Any], pixels: Any) -> Any:
    """What :func:`build`'s network gives, from ``pixels`` (x - 127.5) / 128 of any floating type, as a plain function
    of tensors of the backend in use. Such pixels are exact even in bf16."""
    from keras import ops

    remaining = iter(weights)

    def active(x: Any) -> Any:
        return ops.relu(x) - next(remaining) * ops.relu(-x)

    _, _, kernels, pools, dense, _ = _SHAPES[part]
    x = pixels
    for _, pool in zip(kernels, pools, strict=True):
        x = active(ops.conv(x, next(remaining), padding="valid", data_format="channels_last") + next(remaining))
        if pool:
            x = ops.max_pool(x, pool[0], 2, padding=pool[1], data_format="channels_last")
    if dense is None:
        return ops.conv(x, next(remaining), data_format="channels_last") + next(remaining)
    x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (x.shape[0], -1))
    x = active(ops.matmul(x, next(remaining)) + next(remaining))
    return ops.matmul(x, next(remaining)) + next(remaining)


def _layers(keras: Any, part: Part) -> tuple[Any, Any]:
    layers = keras.layers
    side, channels, kernels, pools, dense, heads = _SHAPES[part]
    inputs = keras.Input((side, side, 3), dtype="uint8", name="pixels")
    x = keras.ops.cast(inputs, "float32")
    for number, (count, kernel, pool) in enumerate(zip(channels, kernels, pools, strict=True), start=1):
        x = layers.Conv2D(count, kernel, name=f"conv{number}")(x)
        x = layers.PReLU(shared_axes=[1, 2], name=f"prelu{number}")(x)
        if pool:
            x = layers.MaxPooling2D(pool[0], 2, padding=pool[1], name=f"pool{number}")(x)
    if dense is None:
        return inputs, layers.Conv2D(heads, 1, name="heads")(x)
    x = layers.Permute((2, 1, 3), name="columns_first")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dense, name="dense")(x)
    x = layers.PReLU(name="prelu_dense")(x)
    return inputs, layers.Dense(heads, name="heads")(x)


_Pool = tuple[int, Literal["same", "valid"]] | None
_SHAPES: Final[dict[Part, tuple[int | None, tuple[int, ...], tuple[int, ...], tuple[_Pool, ...], int | None, int]]] = {
    "proposal": (None, (10, 16, 32), (3, 3, 3), ((2, "same"), None, None), None, 5),
    "refinement": (24, (28, 48, 64), (3, 3, 2), ((3, "same"), (3, "valid"), None), 128, 5),
    "output": (48, (32, 64, 64, 128), (3, 3, 3, 2), ((3, "same"), (3, "valid"), (2, "same"), None), 256, 15),
}
"""Side of the input, channels, kernels and poolings of the convolutions, width of the dense layer, outputs."""


def _ported(arrays: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The released arrays with the normalisation folded in and the heads joined into one."""
    joined = _joined(arrays)
    kernel = (joined[0] / 128).astype(np.float32)
    return [kernel, joined[1] - 127.5 * kernel.sum(axis=(0, 1, 2)), *joined[2:]]


def _joined(arrays: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    heads = next(i for i in range(len(arrays) - 1) if arrays[i].shape[-1] == 4 and arrays[i + 1].shape == (4,))
    trunk, tail = arrays[:heads], arrays[heads:]
    weights, biases = tail[::2], tail[1::2]
    joined = [np.concatenate([_face_minus_not(part[-1]), *part[:-1]], axis=-1) for part in (weights, biases)]
    return [*trunk, *joined]


def _face_minus_not(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array[..., 1:] - array[..., :1]
