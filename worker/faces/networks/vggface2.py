"""The face networks of keras-vggface, in Keras 3.

ResNet-50 and SE-ResNet-50: Cao et al., "VGGFace2: A dataset for recognising faces across pose and age" (2018);
VGG-16: Parkhi et al., "Deep Face Recognition" (2015). Layer names are those of the released files with ``/``
replaced by ``_``, because Keras 3 allows no slash. The networks end in global average pooling.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import layers

from worker.errors import ModelError
from worker.faces.networks.h5 import read_h5

PREPROCESSING_LAYER: Final = "preprocessing"
_RESNET_STAGES: Final = ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3))
_VGG16_BLOCKS: Final = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_RESNET_EPSILON: Final = 1e-3
_SENET_EPSILON: Final = 1e-4
_SQUEEZE: Final = 16


def build(
    network: str,
    weights: str | None,
    side: int = 224,
    channel_order: str = "rgb",
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: str = "float32",
) -> keras.Model:
    """A network from uint8 RGB chips (n, side, side, 3) to float32 features (n, d), not of unit length.

    Args:
        network: ``resnet50``, ``senet50`` or ``vgg16``.
        weights: an H5 file as keras-vggface released them; None leaves Keras' random initial values.
        side: height and width of a chip, px.
        channel_order: order in which the weights expect the channels, and in which ``mean`` and ``scale`` count.
        mean: subtracted from pixels 0..255.
        scale: divides what is left.
        dtype: Keras policy of the body, such as ``mixed_bfloat16``; preprocessing and output stay float32.

    Raises:
        ModelError: unknown network, or a file that does not fit it.
    """
    if network not in _BODIES:
        raise ModelError(f"there is no network '{network}': take one of {', '.join(_BODIES)}")
    # The chips stay RGB: for a BGR network the first kernel is turned round instead of every picture.
    turned = channel_order == "bgr"
    step = -1 if turned else 1
    divisor, offset = np.asarray(scale)[::step], np.asarray(mean)[::step]
    pixels = keras.Input((side, side, 3), dtype="uint8", name="chips")
    centred = layers.Rescaling(
        (1.0 / divisor).tolist(), (-offset / divisor).tolist(), dtype="float32", name=PREPROCESSING_LAYER
    )(pixels)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        features = _BODIES[network](centred)
    finally:
        keras.config.set_dtype_policy(policy)
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name="features")(features)
    model = keras.Model(pixels, pooled, name=network)
    if weights is not None:
        _load(model, Path(weights), turned=turned)
    return model


def _load(model: keras.Model, path: Path, *, turned: bool) -> None:
    arrays = read_h5(path)
    weighted = [layer for layer in model.layers if layer.weights]
    if {layer.name for layer in weighted} != set(arrays):
        odd = sorted({layer.name for layer in weighted} ^ set(arrays))
        raise ModelError(f"{path} is not for the network {model.name}: layer {odd[0]} is in one of the two only")
    for layer in weighted:
        try:
            values = [arrays[layer.name][weight.name] for weight in layer.weights]
            if turned and layer is weighted[0]:
                values[0] = values[0][:, :, ::-1]
            layer.set_weights(values)
        except (KeyError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise ModelError(f"{path} is not for the network {model.name}: layer {layer.name}: {problem}") from None


def _resnet50(x: Any) -> Any:
    return _residual_network(x, _RESNET_EPSILON, squeeze=False)


def _senet50(x: Any) -> Any:
    return _residual_network(x, _SENET_EPSILON, squeeze=True)


def _residual_network(x: Any, epsilon: float, *, squeeze: bool) -> Any:
    x = _convolution(x, 64, 7, "conv1_7x7_s2", epsilon, strides=2)
    x = layers.MaxPooling2D(3, strides=2)(layers.ReLU()(x))
    for stage, filters, blocks in _RESNET_STAGES:
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and stage > 2 else 1
            x = _bottleneck(x, filters, f"conv{stage}_{block}", epsilon, strides, project=block == 1, squeeze=squeeze)
    return x


def _bottleneck(x: Any, filters: int, name: str, epsilon: float, strides: int, *, project: bool, squeeze: bool) -> Any:
    """The stride is on the first 1x1 convolution, as in the original Caffe networks."""
    y = layers.ReLU()(_convolution(x, filters, 1, f"{name}_1x1_reduce", epsilon, strides))
    y = layers.ReLU()(_convolution(y, filters, 3, f"{name}_3x3", epsilon))
    y = _convolution(y, 4 * filters, 1, f"{name}_1x1_increase", epsilon)
    if squeeze:
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(4 * filters // _SQUEEZE, 1, activation="relu", name=f"{name}_1x1_down")(gate)
        gate = layers.Conv2D(4 * filters, 1, activation="sigmoid", name=f"{name}_1x1_up")(gate)
        y = layers.Multiply()([y, gate])
    shortcut = _convolution(x, 4 * filters, 1, f"{name}_1x1_proj", epsilon, strides) if project else x
    return layers.ReLU()(layers.Add()([y, shortcut]))


def _convolution(x: Any, filters: int, size: int, name: str, epsilon: float, strides: int = 1) -> Any:
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(epsilon=epsilon, name=f"{name}_bn")(x)


def _vgg16(x: Any) -> Any:
    for block, (filters, convolutions) in enumerate(_VGG16_BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{block}_{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    return x


_BODIES: Final[dict[str, Callable[[Any], Any]]] = {"resnet50": _resnet50, "senet50": _senet50, "vgg16": _vgg16}
