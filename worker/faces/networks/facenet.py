"""FaceNet's Inception-ResNet-v1 (Szegedy et al. 2016; Schroff et al. 2015) in Keras 3.

Layer names are those of the ``facenet_keras.h5`` files. Each chip is brought to zero mean and unit variance by
itself, as these weights expect.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import layers, ops

from worker.errors import ModelError
from worker.faces.networks.h5 import Arrays, read_h5
from worker.faces.networks.vggface2 import PREPROCESSING_LAYER

_EPSILON: Final = 1e-3
_BOTTLENECK: Final = "Bottleneck"
_TWO_BRANCHES: Final = re.compile(r"^(Block(?:17|8)_\d+_Branch_)[1-9]\d*(_)")
_Path = Sequence[tuple[int, int | tuple[int, int], str]]


def build(
    network: str,
    weights: str | None,
    side: int = 160,
    channel_order: str = "rgb",
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: str = "float32",
    dimension: int = 128,
) -> keras.Model:
    """The network from uint8 RGB chips (n, side, side, 3) to float32 embeddings (n, d), not of unit length.

    Args:
        network: ``facenet``.
        weights: an H5 file as ``facenet_keras.h5``, whose last layer says how long an embedding is; None leaves
            Keras' random initial values, and ``dimension`` says it.
        side: height and width of a chip, px.
        channel_order, mean, scale: the standardisation leaves nothing for these to change.
        dtype: Keras policy of the body; preprocessing and output stay float32.

    Raises:
        ModelError: a file that does not fit the network, or preprocessing that it cannot have.
    """
    if channel_order != "rgb" or any(mean) or any(value != 1 for value in scale):
        raise ModelError(f"{network} standardises each chip: channel_order rgb, and no mean or scale in its manifest")
    arrays = _arrays(Path(weights)) if weights is not None else None
    if arrays is not None:
        dimension = _dimension(arrays, Path(str(weights)))
    pixels = keras.Input((side, side, 3), dtype="uint8", name="chips")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        features = _body(_Standardisation(dtype="float32", name=PREPROCESSING_LAYER)(pixels))
        x = layers.GlobalAveragePooling2D(dtype="float32", name="AvgPool")(features)
        x = layers.Dense(dimension, use_bias=False, dtype="float32", name=_BOTTLENECK)(x)
        x = layers.BatchNormalization(epsilon=_EPSILON, dtype="float32", name=f"{_BOTTLENECK}_BatchNorm")(x)
    finally:
        keras.config.set_dtype_policy(policy)
    model = keras.Model(pixels, x, name=network)
    if arrays is not None:
        _set(model, arrays, Path(str(weights)))
    return model


class _Standardisation(layers.Layer):  # type: ignore[misc]
    """Zero mean and unit variance over all pixels and channels of each chip; a chip of one colour becomes zero."""

    def call(self, pixels: Any) -> Any:
        values = ops.cast(pixels, "float32")
        centred = values - ops.mean(values, axis=(1, 2, 3), keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centred), axis=(1, 2, 3), keepdims=True))
        count = float(np.prod(pixels.shape[1:]))
        return centred / ops.maximum(deviation, 1.0 / count**0.5)


def _body(x: Any) -> Any:
    x = _convolution(x, 32, 3, "Conv2d_1a_3x3", strides=2, padding="valid")
    x = _convolution(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = _convolution(x, 64, 3, "Conv2d_2b_3x3")
    x = layers.MaxPooling2D(3, strides=2, name="MaxPool_3a_3x3")(x)
    x = _convolution(x, 80, 1, "Conv2d_3b_1x1", padding="valid")
    x = _convolution(x, 192, 3, "Conv2d_4a_3x3", padding="valid")
    x = _convolution(x, 256, 3, "Conv2d_4b_3x3", strides=2, padding="valid")
    for number in range(1, 6):
        paths: list[_Path] = [[(32, 1, "1x1")], [(32, 1, "0a_1x1"), (32, 3, "0b_3x3")],
                 [(32, 1, "0a_1x1"), (32, 3, "0b_3x3"), (32, 3, "0c_3x3")]]  # fmt: skip
        x = _residual(x, f"Block35_{number}", paths, 0.17)
    x = _reduction(x, "Mixed_6a", [[(384, "1a")], [(192, "0a"), (192, "0b"), (256, "1a")]])
    for number in range(1, 11):
        paths = [[(128, 1, "1x1")], [(128, 1, "0a_1x1"), (128, (1, 7), "0b_1x7"), (128, (7, 1), "0c_7x1")]]
        x = _residual(x, f"Block17_{number}", paths, 0.1)
    x = _reduction(
        x, "Mixed_7a", [[(256, "0a"), (384, "1a")], [(256, "0a"), (256, "1a")], [(256, "0a"), (256, "0b"), (256, "1a")]]
    )
    for number in range(1, 7):
        paths = [[(192, 1, "1x1")], [(192, 1, "0a_1x1"), (192, (1, 3), "0b_1x3"), (192, (3, 1), "0c_3x1")]]
        x = _residual(x, f"Block8_{number}", paths, 1.0 if number == 6 else 0.2, activate=number < 6)
    return x


def _residual(
    x: Any,
    name: str,
    paths: Sequence[_Path],
    scale: float,
    *,
    activate: bool = True,
) -> Any:
    """Parallel paths of (filters, kernel, name), joined, brought to the width of ``x``, scaled and added to it."""
    ends = []
    for branch, path in enumerate(paths):
        y = x
        for filters, kernel, layer in path:
            y = _convolution(y, filters, kernel, f"{name}_Branch_{branch}_Conv2d_{layer}")
        ends.append(y)
    joined = layers.Concatenate(name=f"{name}_Concatenate")(ends)
    wide = layers.Conv2D(x.shape[-1], 1, padding="same", name=f"{name}_Conv2d_1x1")(joined)
    x = layers.Add()([x, layers.Rescaling(scale)(wide)])
    return layers.ReLU(name=f"{name}_Activation")(x) if activate else x


def _reduction(x: Any, name: str, paths: Sequence[Sequence[tuple[int, str]]]) -> Any:
    """Parallel paths of (filters, name), the last convolution of each with a stride, and a pooling beside them."""
    ends = []
    for branch, path in enumerate(paths):
        y = x
        for filters, layer in path:
            kernel, strides, padding = {"0a": (1, 1, "same"), "0b": (3, 1, "same"), "1a": (3, 2, "valid")}[layer]
            full_name = f"{name}_Branch_{branch}_Conv2d_{layer}_{kernel}x{kernel}"
            y = _convolution(y, filters, kernel, full_name, strides=strides, padding=padding)
        ends.append(y)
    ends.append(layers.MaxPooling2D(3, strides=2, name=f"{name}_Branch_{len(paths)}_MaxPool_1a_3x3")(x))
    return layers.Concatenate(name=name)(ends)


def _convolution(
    x: Any, filters: int, kernel: int | tuple[int, int], name: str, strides: int = 1, padding: str = "same"
) -> Any:
    x = layers.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_BatchNorm")(x)
    return layers.ReLU(name=f"{name}_Activation")(x)


def _arrays(path: Path) -> Arrays:
    """The file's arrays by our layer names.

    Some files count the second branch of Block17 and Block8 by the block: these have two branches only.
    """
    return {_TWO_BRANCHES.sub(r"\g<1>1\g<2>", name): found for name, found in read_h5(path).items()}


def _dimension(arrays: Arrays, path: Path) -> int:
    kernel = arrays.get(_BOTTLENECK, {}).get("kernel")
    if kernel is None or kernel.ndim != 2:
        raise ModelError(f"{path} is not for the network facenet: it has no layer {_BOTTLENECK}")
    return int(kernel.shape[1])


def _set(model: keras.Model, arrays: Arrays, path: Path) -> None:
    weighted = [layer for layer in model.layers if layer.weights]
    if odd := sorted({layer.name for layer in weighted} ^ set(arrays)):
        raise ModelError(f"{path} is not for the network {model.name}: layer {odd[0]} is in one of the two only")
    for layer in weighted:
        found = arrays[layer.name]
        if "moving_mean" in found:
            # These files leave out gamma, which is 1 in them.
            found = {"gamma": np.ones_like(found["moving_mean"])} | found
        try:
            layer.set_weights([found[weight.name] for weight in layer.weights])
        except (KeyError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise ModelError(f"{path} is not for the network {model.name}: layer {layer.name}: {problem}") from None
