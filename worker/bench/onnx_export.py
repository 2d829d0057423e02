"""A residual Keras network as an ONNX file, for ONNX Runtime: the layers that such networks have, and no others."""

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np

OPSET: Final = 17


class _Graph:
    """The nodes written so far."""

    def __init__(self) -> None:
        self.onnx: Any = importlib.import_module("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"value_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name


def export(model: Any, path: Path) -> None:
    """Writes the Keras ``model`` (uint8 NHWC pictures in, features out), which the file computes in NCHW.

    Raises:
        ValueError: a layer that this does not know.
    """
    graph = _Graph()
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    values: dict[Any, str] = {model.inputs[0]._keras_history.operation.name: "chips"}
    for layer in model.layers[1:]:
        sources = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[source._keras_history.operation.name] for source in sources]
        values[layer.name] = _write(graph, layer, inputs)
    last = values[model.layers[-1].name]
    side = model.inputs[0].shape[1]
    document = helper.make_graph(
        graph.nodes,
        model.name,
        [helper.make_tensor_value_info("chips", types.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info(last, types.FLOAT, ["n", model.outputs[0].shape[1]])],
        graph.constants,
    )
    made = helper.make_model(document, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    graph.onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _write(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    kind = type(layer).__name__
    if kind == "Rescaling":
        pixels = graph.node("Cast", inputs, to=graph.onnx.TensorProto.FLOAT)
        scaled = graph.node("Mul", [pixels, graph.constant(layer.scale)])
        shifted = graph.node("Add", [scaled, graph.constant(layer.offset)])
        return graph.node("Transpose", [shifted], perm=[0, 3, 1, 2])
    if kind == "Conv2D":
        kernel = graph.constant(np.asarray(layer.kernel).transpose(3, 2, 0, 1))
        bias = [graph.constant(np.asarray(layer.bias))] if layer.use_bias else []
        return graph.node("Conv", [*inputs, kernel, *bias], strides=list(layer.strides), auto_pad="SAME_UPPER")
    if kind == "BatchNormalization":
        arrays = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
        names = [graph.constant(np.asarray(array)) for array in arrays]
        return graph.node("BatchNormalization", [*inputs, *names], epsilon=float(layer.epsilon))
    if kind == "MaxPooling2D":
        return graph.node("MaxPool", inputs, kernel_shape=list(layer.pool_size), strides=list(layer.strides))
    if kind == "GlobalAveragePooling2D" and not layer.keepdims:
        return graph.node("Flatten", [graph.node("GlobalAveragePool", inputs)])
    if kind in {"ReLU", "Add"}:
        return graph.node({"ReLU": "Relu"}.get(kind, kind), inputs)
    raise ValueError(f"the layer {kind} has no counterpart here")
