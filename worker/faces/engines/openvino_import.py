"""Make a network file of somebody else's take our chips: preprocessing and batches put into the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino
from openvino.preprocess import ColorFormat, PrePostProcessor

from worker.errors import ModelError


class ImportedNetwork:
    """A network that takes uint8 RGB (n, side, side, 3); ``export`` is called as that of a Keras model would be."""

    def __init__(self, model: openvino.Model) -> None:
        self._model = model

    def export(self, path: str, **_: Any) -> None:
        """Write the network to ``path`` (``.xml``) and its weights beside it."""
        openvino.serialize(self._model, path)


def build(
    paths: Sequence[str],
    side: int,
    channel_order: str,
    layout: str,
    mean: Sequence[float],
    scale: Sequence[float],
    max_batch: int | None,
) -> ImportedNetwork:
    """Read an ONNX file, or an OpenVINO ``.xml`` and its ``.bin``, and put the preprocessing into the network.

    The network computes ``(pixel - mean) / scale`` in its own channel order. Its batch is left open, or fixed
    at ``max_batch``.

    Raises:
        ModelError: no such network, one with another input, or one that cannot take batches.
    """
    where = Path(paths[0]).name
    try:
        model = openvino.Core().read_model(*paths)
        picture = [3, side, side] if layout == "nchw" else [side, side, 3]
        takes = model.input().get_partial_shape()
        if not takes.compatible(openvino.PartialShape([-1, *picture])):
            raise ModelError(f"{where} takes {takes}, its manifest says {picture}: correct side or layout there")
        model.reshape([max_batch or -1, *picture])
        if model.input().get_element_type() == openvino.Type.u8:
            return ImportedNetwork(model)  # the preprocessing is in there already: a network that we quantised
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().tensor().set_color_format(ColorFormat.RGB)
        steps.input().model().set_layout(openvino.Layout(layout.upper()))
        preprocess = steps.input().preprocess().convert_element_type(openvino.Type.f32)
        if channel_order == "bgr":
            preprocess = preprocess.convert_color(ColorFormat.BGR)
        if any(mean):
            preprocess = preprocess.mean(list(mean))
        if any(divisor != 1.0 for divisor in scale):
            preprocess.scale(list(scale))
        prepared = steps.build()
    except RuntimeError as error:
        problem = " ".join(str(error).split())[-200:]
        raise ModelError(
            f"{where} cannot be prepared as its manifest says: {problem}; check side, layout, and 'max_batch: 1'"
        ) from None
    if max_batch is None and not prepared.outputs[0].get_partial_shape()[0].is_dynamic:
        raise ModelError(f"{where} can take one face at a time only: say 'max_batch: 1' under 'input' in its manifest")
    return ImportedNetwork(prepared)
