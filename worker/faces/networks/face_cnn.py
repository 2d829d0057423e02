"""A small convolutional network for faces of one's own people, and its training.

From 200 x 200 grey pixels to 128 numbers: strided convolutions, then a linear layer without activation, whose output
is compared by its direction only ("NormFace", Wang et al. 2017).

It is trained one epoch after the other, resumable after each. It is shown the same faces as other photos might show
them: moved, turned, lit differently, partly hidden. It learns to point at its people: cosines to one direction for each
person, from which a margin is taken for the right one ("CosFace", Wang et al. 2018), so that people stand apart and a
stranger points nowhere.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import h5py
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.networks.h5 import read_h5

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
    """Writes ``arrays`` as an H5 weights file, which :func:`worker.faces.networks.h5.read_h5` reads.

    Raises:
        ModelError: it exists or cannot be written.
    """
    try:
        with h5py.File(path, "x") as file:
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


_TURN_DEGREES: Final = 10.0
_SCALE: Final = 0.10
_SHIFT: Final = 0.06
_CONTRAST: Final = 0.25
_BRIGHTNESS: Final = 25.0
_HIDDEN: Final = (0.1, 0.35)
"""Sides of the patch that hides part of every second face, in sides of the picture."""


def augmented(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Each of ``images`` (n, side, side) changed at random."""
    return np.stack([_changed(image, random) for image in images])


def _changed(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    side = image.shape[0]
    turn, scale = random.uniform(-_TURN_DEGREES, _TURN_DEGREES), 1 + random.uniform(-_SCALE, _SCALE)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn, scale)
    matrix[:, 2] += random.uniform(-_SHIFT, _SHIFT, 2) * side
    moved = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < 0.5:
        moved = moved[:, ::-1]
    middle = float(moved.mean())
    contrast, brightness = 1 + random.uniform(-_CONTRAST, _CONTRAST), random.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    lit = (moved.astype(np.float32) - middle) * contrast + middle + brightness
    changed: NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        height, width = (random.uniform(*_HIDDEN, 2) * side).astype(int)
        top, left = random.integers(0, side - height), random.integers(0, side - width)
        changed[top : top + height, left : left + width] = int(middle)
    return changed


SCALE: Final = 16.0
"""Factor of the cosines before the softmax: high enough for probabilities near 1, low enough to keep learning."""
MARGIN: Final = 0.2
_BATCH: Final = 32
_LEAST_PICTURES: Final = 128
"""The fewest in an epoch: if there are fewer photos, each is shown several times, changed in another way each time."""
_LEARNING_RATE: Final = 2e-3
_LEAST_RATE: Final = 0.02
_WARM_UP: Final = 3
_WEIGHT_DECAY: Final = 0.02

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Training:
    """A network in training. Everything that an epoch depends on is in :meth:`state` and the arguments."""

    def __init__(self, people: int, epochs: int, seed: int, side: int = SIDE) -> None:
        keras.utils.set_random_seed(seed)
        self._seed, self._epochs = seed, epochs
        grey = keras.Input((side, side, 1), name="grey_pixels")
        unit = layers.UnitNormalization(name="direction")(body(grey))
        cosines = layers.Dense(people, use_bias=False, kernel_constraint=keras.constraints.UnitNorm(), name="people")
        self._model = keras.Model(grey, [cosines(unit), unit])
        cosines.kernel.assign(keras.constraints.UnitNorm()(cosines.kernel))
        self._model.compile(
            optimizer=keras.optimizers.AdamW(_LEARNING_RATE, weight_decay=_WEIGHT_DECAY),
            loss=[_margin_loss, None],
        )
        self._model.optimizer.build(self._model.trainable_variables)

    def epoch(self, number: int, images: Pixels, labels: NDArray[np.int64]) -> float:
        """Trains on every image (n, side, side), changed at random; returns the mean loss."""
        random = np.random.default_rng((self._seed, number))
        times = -(-_LEAST_PICTURES // len(images))
        order = np.concatenate([random.permutation(len(images)) for _ in range(times)])
        self._model.optimizer.learning_rate = self._rate(number)
        losses, weights = [], []
        for rows in np.array_split(order, max(1, round(len(order) / _BATCH))):
            pixels = augmented(images[rows], random).astype(np.float32)[..., None]
            losses.append(float(self._model.train_on_batch(pixels, labels[rows])))
            weights.append(len(rows))
        return float(np.average(losses, weights=weights))

    def look(self, images: Pixels) -> tuple[Floats, Floats]:
        """Cosines to the people (n, k), and unit features (n, 128), of grey images (n, side, side)."""
        cosines, features = [], []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            padded = np.zeros((_BATCH, *images.shape[1:], 1), np.float32)  # one size, so that it is compiled once
            padded[: len(batch), ..., 0] = batch
            found = self._model.predict_on_batch(padded)
            cosines.append(found[0][: len(batch)])
            features.append(found[1][: len(batch)])
        if not cosines:
            return np.empty((0, self.directions.shape[0]), np.float32), np.empty((0, DIMENSION), np.float32)
        return np.concatenate(cosines), np.concatenate(features)

    @property
    def directions(self) -> Floats:
        """The unit vector of each person (k, 128)."""
        kernel: Floats = np.asarray(self._model.get_layer("people").kernel, np.float32).T
        return kernel

    @property
    def weights(self) -> Arrays:
        """What :func:`write_weights` takes."""
        return weights_of(self._model)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next epoch depends on."""
        return {f"{number:04d}": np.asarray(variable) for number, variable in enumerate(self._variables())}

    def resume(self, state: dict[str, NDArray[Any]]) -> None:
        """Goes on from :meth:`state` of a network for as many people."""
        for number, variable in enumerate(self._variables()):
            variable.assign(state[f"{number:04d}"])

    def _variables(self) -> list[Any]:
        return [*self._model.variables, *self._model.optimizer.variables]

    def _rate(self, number: int) -> float:
        """Up for some epochs, then down along half a cosine."""
        if number < _WARM_UP:
            return _LEARNING_RATE * (number + 1) / (_WARM_UP + 1)
        done = min(1.0, (number - _WARM_UP) / max(1, self._epochs - _WARM_UP))
        return _LEARNING_RATE * (_LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def _margin_loss(labels: Any, cosines: Any) -> Any:
    right = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), cosines.shape[-1])
    return keras.losses.categorical_crossentropy(right, SCALE * (cosines - MARGIN * right), from_logits=True)
