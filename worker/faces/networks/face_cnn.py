"""A small convolutional network for faces of one's own people: 200 x 200 grey pixels to 128 numbers.

Strided convolutions, then a linear layer without activation, whose output is compared by its direction only
("NormFace", Wang et al. 2017). Trained by :mod:`worker.faces.networks.face_cnn_training`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.networks.vggface2 import read_h5

SIDE: Final = 200
DIMENSION: Final = 128
_FILTERS: Final = ((16, 5), (32, 3), (64, 3), (96, 3), (128, 3))
_GREY: Final = (0.299, 0.587, 0.114)
"""ITU-R BT.601: what OpenCV and Pillow take a grey picture to be."""

Arrays = dict[str, dict[str, NDArray[np.float32]]]
"""By layer, then by weight: ``{"convolution_1": {"kernel": ...}}``."""


def build(
    network: str,
    weights: str | None,
    side: int = SIDE,
    channel_order: str = "rgb",
    mean: Sequence[float] = (0.0, 0.0, 0.0),  # noqa: ARG001 - each picture is standardised by its own mean
    scale: Sequence[float] = (1.0, 1.0, 1.0),  # noqa: ARG001
    dtype: str = "float32",
) -> keras.Model:
    """The network from uint8 chips (n, side, side, 3) to float32 features (n, 128), not of unit length.

    The arguments are those of every builder, see :func:`worker.faces.networks.vggface2.build`; ``weights`` is a file of
    :func:`write_weights`.

    Raises:
        ModelError: a file that does not fit the network.
    """
    chips = keras.Input((side, side, 3), dtype="uint8", name="chips")
    pixels = layers.Rescaling(1.0, dtype="float32", name="pixels")(chips)
    to_grey = layers.Conv2D(1, 1, use_bias=False, trainable=False, dtype="float32", name="grey")
    grey = to_grey(pixels)
    share = _GREY if channel_order == "rgb" else _GREY[::-1]
    to_grey.set_weights([np.array(share, np.float32).reshape(1, 1, 3, 1)])
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        features = body(grey)
    finally:
        keras.config.set_dtype_policy(policy)
    model = keras.Model(chips, layers.Activation("linear", dtype="float32", name="features")(features), name=network)
    if weights is not None:
        _load(model, Path(weights))
    return model


def body(grey: Any) -> Any:
    """Features (n, 128) of grey pixels 0..255 (n, side, side, 1), each picture standardised by its own mean."""
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, dtype="float32", name="standardised")(grey)
    for number, (filters, size) in enumerate(_FILTERS, start=1):
        x = layers.Conv2D(
            filters, size, strides=2, padding="same", use_bias=False, name=f"convolution_{number}"
        )(x)  # fmt: skip
        x = layers.BatchNormalization(momentum=0.9, name=f"normalisation_{number}")(x)
        x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(DIMENSION, use_bias=False, name="projection")(x)
    return layers.BatchNormalization(momentum=0.9, scale=False, name="centring")(x)


def weights_of(model: keras.Model) -> Arrays:
    """The arrays of the layers that :func:`body` made."""
    return {
        layer.name: {weight.name: np.asarray(weight, np.float32) for weight in layer.weights}
        for layer in model.layers
        if layer.weights and layer.name not in _NOT_STORED
    }


def write_weights(arrays: Arrays, path: Path) -> None:
    """Writes ``arrays`` as an H5 weights file, which :func:`worker.faces.networks.vggface2.read_h5` reads.

    Raises:
        ModelError: it cannot be written.
    """
    try:
        with h5py.File(path, "w") as file:
            for layer, weights in arrays.items():
                group = file.create_group(layer)
                group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in weights]
                for name, values in weights.items():
                    group[f"{layer}/{name}:0"] = values
            file.attrs["layer_names"] = [layer.encode() for layer in arrays]
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None


def _load(model: keras.Model, path: Path) -> None:
    arrays = read_h5(path)
    weighted = [layer for layer in model.layers if layer.weights and layer.name not in _NOT_STORED]
    if {layer.name for layer in weighted} != set(arrays):
        raise ModelError(f"{path} is not for the network {model.name}: other layers")
    for layer in weighted:
        try:
            layer.set_weights([arrays[layer.name][weight.name] for weight in layer.weights])
        except (KeyError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise ModelError(f"{path} is not for the network {model.name}: layer {layer.name}: {problem}") from None


_NOT_STORED: Final = frozenset({"grey", "people"})
"""Layers that belong to the input, and to training only."""
