"""One epoch after the other of the face network, resumable after each.

It is shown the same faces as other photos might show them: moved, turned, lit differently, partly hidden.

The network learns to point at its people: cosines to one direction for each person, from which a margin is taken for
the right one ("CosFace", Wang et al. 2018), so that people stand apart and a stranger points nowhere.
"""

import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.faces.networks import face_cnn  # before Keras, which reads what this sets

import keras  # isort: skip
from keras import layers, ops  # isort: skip

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

    def __init__(self, people: int, epochs: int, seed: int, side: int = face_cnn.SIDE) -> None:
        keras.utils.set_random_seed(seed)
        self._seed, self._epochs = seed, epochs
        grey = keras.Input((side, side, 1), name="grey_pixels")
        unit = layers.UnitNormalization(name="direction")(face_cnn.body(grey))
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
            return np.empty((0, self.directions.shape[0]), np.float32), np.empty((0, face_cnn.DIMENSION), np.float32)
        return np.concatenate(cosines), np.concatenate(features)

    @property
    def directions(self) -> Floats:
        """The unit vector of each person (k, 128)."""
        kernel: Floats = np.asarray(self._model.get_layer("people").kernel, np.float32).T
        return kernel

    @property
    def weights(self) -> face_cnn.Arrays:
        """What :func:`worker.faces.networks.face_cnn.write_weights` takes."""
        return face_cnn.weights_of(self._model)

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
