"""DeviceNetwork: a face network on a GPU, of chips or of faces in pictures that lie there already."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from worker.faces.device.pictures import OnDevice, Pictures
from worker.faces.device.runtimes import DTYPES, Runtime
from worker.faces.device.sampling import chips
from worker.types import Picture

BATCH_SIZES: Final = (1, 8, 16, 32, 48, 64, 96, 128, 192, 256)
"""The only batch sizes that are compiled; a batch is filled up to the next."""


class DeviceNetwork:
    """A Keras network on the device. Batches that are larger than the largest size are under way together."""

    def __init__(
        self, builder: str, arguments: Mapping[str, Any], runtime: Runtime, pictures: Pictures, *, precision: str
    ) -> None:
        """``builder`` is ``"module:function"``; it gets ``arguments`` and a Keras ``dtype`` policy."""
        module, _, function = builder.partition(":")
        policy = "float32" if precision == "fp32" else f"mixed_{DTYPES[precision]}"
        model = folded(getattr(importlib.import_module(module), function)(**arguments, dtype=policy))
        self.device = runtime.device
        self._runtime, self.pictures = runtime, pictures
        self._side = int(model.input.shape[1])
        self._weights = [
            [runtime.put(np.asarray(ops.convert_to_numpy(each), np.float32)) for each in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]

        def features(weights: list[list[Any]], batch: Any) -> Any:
            return ops.cast(model.stateless_call(*weights, batch, training=False)[0], "float32")

        def features_of(weights: list[list[Any]], pixels: Any, owners: Any, to_picture: Any, last: Any) -> Any:
            cut = chips(pixels, owners, to_picture, last, self._side)
            return features(weights, ops.cast(cut, "uint8"))

        self._features, self._features_of = runtime.compiled(features), runtime.compiled(features_of)

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Features float32 (n, d) of uint8 RGB chips (n, side, side, 3), as the only member of a tuple."""
        waiting = [
            self.submit(batch[start : start + BATCH_SIZES[-1]]) for start in range(0, len(batch), BATCH_SIZES[-1])
        ]
        return (np.concatenate([self.collect(each) for each in waiting]),)

    def submit(self, batch: NDArray[np.uint8]) -> tuple[Any, int]:
        """Begins with one batch and returns at once; :meth:`collect` takes what it returns."""
        filled = np.zeros((_size(len(batch)), *batch.shape[1:]), np.uint8)
        filled[: len(batch)] = batch
        return self.features(self._runtime.put(filled)), len(batch)

    def features(self, chips: Any) -> Any:
        """A tensor of features float32 (n, d) of a tensor of chips; both stay on the device."""
        return self._features(self._weights, chips)

    def collect(self, waiting: tuple[Any, int]) -> NDArray[np.float32]:
        """Features float32 (n, d) of a batch, once they are there."""
        tensor, count = waiting
        return self._runtime.fetched(tensor)[:count]

    def submit_faces(self, images: Sequence[Picture], matrices: NDArray[np.float64]) -> list[tuple[list[int], Any]]:
        """Begins with faces that are cut out on the device; :meth:`collect_faces` takes what it returns.

        Args:
            images: the picture of each face, uint8 (H, W, 3) or planes; those that the detector has
                just seen are there already.
            matrices: (n, 2, 3), from px of the picture to px of the chip.
        """
        inverse = np.linalg.inv(np.concatenate([matrices, np.tile([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 1))], axis=1))
        to_picture = inverse[:, :2].astype(np.float32)
        groups: dict[int, tuple[OnDevice, list[int], list[int]]] = {}
        for index, image in enumerate(images):
            found = self.pictures.find(image) or (self.pictures.upload([image], image.shape[1], image.shape[0]), 0)
            _, places, members = groups.setdefault(id(found[0]), (found[0], [], []))
            places.append(found[1])
            members.append(index)
        waiting = []
        for on_device, places, members in groups.values():
            for start in range(0, len(members), BATCH_SIZES[-1]):
                some = members[start : start + BATCH_SIZES[-1]]
                size = _size(len(some))
                owners, cut = np.zeros(size, np.int32), np.zeros((size, 2, 3), np.float32)
                owners[: len(some)], cut[: len(some)] = places[start : start + len(some)], to_picture[some]
                where = self._runtime.put([owners, cut])
                features = self._features_of(self._weights, on_device.pixels, *where, on_device.last)
                waiting.append((some, features))
        return waiting

    def collect_faces(self, waiting: Sequence[tuple[list[int], Any]]) -> NDArray[np.float32]:
        """Features float32 (n, d), in the order of the faces, once they are there; (0, 0) of none."""
        if not waiting:
            return np.empty((0, 0), np.float32)
        order = np.concatenate([some for some, _ in waiting])
        features = np.concatenate([self.collect((tensor, len(some))) for some, tensor in waiting])
        return features[np.argsort(order)]


def _size(count: int) -> int:
    return next(size for size in BATCH_SIZES if size >= count)


def folded(model: Any) -> Any:
    """``model`` with each batch normalisation that follows a convolution put into the convolution's weights."""
    after = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if isinstance(before, keras.layers.Conv2D) and before.activation is keras.activations.linear:
                after[before.name] = layer
    normalisations = {layer.name for layer in after.values()}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config(config | {"use_bias": True} if layer.name in after else config)

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if layer.name in normalisations else layer(*arguments, **options)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.name in after:
            kernel, *bias = layer.get_weights()
            normalisation = after[layer.name]
            weights = {weight.name: ops.convert_to_numpy(weight) for weight in normalisation.weights}
            factor = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + normalisation.epsilon)
            shift = ((bias[0] if bias else 0.0) - weights["moving_mean"]) * factor + weights.get("beta", 0.0)
            copy.get_layer(layer.name).set_weights([kernel * factor, shift])
        elif layer.weights and layer.name not in normalisations:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy
