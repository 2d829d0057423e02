"""The contestants of the peers. Each package is used as its own documentation uses it.

They take all cores, as they do by default. A package that is not installed raises ``ModuleNotFoundError``.
"""

import contextlib
import importlib
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.bench.contest import Work, private_mb
from worker.faces.manifests import load_manifest
from worker.faces.weights import find_weights
from worker.video.clips import open_clip

_MIN_FACE_PX: Final = 20
_STREAM: Final = "facestream:bench:tutorial"
_OPSET: Final = 17


def mtcnn(frames: str, counts: Mapping[str, Sequence[int]]) -> Mapping[str, Work]:
    """mtcnn 1.0.0. ``counts`` by name: the number of frames, and how many at a time (1: one image, not a batch)."""
    from mtcnn import MTCNN

    detector, images = MTCNN(), list(np.load(frames))

    def work(count: int, batch: int) -> Work:
        def detect() -> list[Any]:
            options = {"fit_to_image": False, "box_format": "xyxy"}
            if batch == 1:
                return [detector.detect_faces(image, **options) for image in images[:count]]
            found: list[Any] = []
            for first in range(0, count, batch):
                found += detector.detect_faces(images[first : first + batch], **options)
            return found

        return detect, lambda found: [[[*map(float, f["box"]), float(f["confidence"])] for f in one] for one in found]

    return {name: work(*numbers) for name, numbers in counts.items()}


def facenet_pytorch(
    frames: str, counts: Mapping[str, Sequence[int]], min_face_px: int = _MIN_FACE_PX
) -> Mapping[str, Work]:
    """The MTCNN of facenet-pytorch; ``counts`` as for :func:`mtcnn`."""
    torch = importlib.import_module("torch")
    _provide_torchvision(torch)
    detector = importlib.import_module("facenet_pytorch").MTCNN(keep_all=True, min_face_size=min_face_px)
    images = np.load(frames)

    def work(count: int, batch: int) -> Work:
        def detect() -> list[Any]:
            found = []
            for first in range(0, count, batch):
                some = images[first : first + batch]
                boxes, scores = detector.detect(some[0] if batch == 1 else list(some))
                found += [(boxes, scores)] if batch == 1 else list(zip(boxes, scores, strict=True))
            return found

        return detect, lambda found: [_torch_rows(boxes, scores) for boxes, scores in found]

    return {name: work(*numbers) for name, numbers in counts.items()}


def _torch_rows(boxes: Any, scores: Any) -> list[list[float]]:
    return [] if boxes is None else np.column_stack([boxes, scores]).astype(float).tolist()


def _provide_torchvision(torch: Any) -> None:
    """Makes a stand-in for the one function of torchvision that is used, if torchvision is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("torchvision")
        return

    def batched_nms(boxes: Any, scores: Any, groups: Any, threshold: float) -> Any:
        found = boxes.numpy()
        # Boxes of different groups are moved apart, so that they never overlap.
        moved = found + (groups.numpy() * (found.max(initial=0) - found.min(initial=0) + 1))[:, None]
        rectangles = np.concatenate([moved[:, :2], moved[:, 2:] - moved[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, threshold)
        return torch.as_tensor(np.asarray(kept, np.int64).reshape(-1))

    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision.ops.boxes"].__dict__["batched_nms"] = batched_nms
    sys.modules["torchvision.transforms"].__dict__["functional"] = types.ModuleType("torchvision.transforms.functional")


def keras(chips: str, manifest: str) -> Mapping[str, Work]:
    """The Keras network: ``model.predict`` in one batch, and in a compiled ``tf.function``."""
    import tensorflow as tf

    model, faces = _keras_model(manifest), np.load(chips)
    compiled = tf.function(lambda batch: model(batch, training=False))

    def describe(features: Any) -> Any:
        return np.asarray(features, np.float64).tolist()

    return {
        "predict": (lambda: model.predict(faces, batch_size=len(faces), verbose=0), describe),
        "tf_function": (lambda: compiled(tf.constant(faces)).numpy(), describe),
    }


def onnxruntime(chips: str, manifest: str, folder: str) -> Mapping[str, Work]:
    """The same network in ONNX Runtime."""
    import onnxruntime

    importlib.import_module("onnx")
    path, faces = Path(folder) / "network.onnx", np.load(chips)
    export_onnx(_keras_model(manifest), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {
        "run": (
            lambda: session.run(None, {name: faces})[0],
            lambda features: np.asarray(features, np.float64).tolist(),
        )
    }


def _keras_model(manifest: str) -> Any:
    from worker.faces.networks import vggface2

    described = load_manifest(manifest)
    files = find_weights(described, Path(manifest).parent, Path(manifest).parent)
    weights = str(files[described.file_with_suffix(".h5")])
    return vggface2.build(str(described.network), weights, **described.input.preprocessing)


def tutorial(clip: str, manifest: str, redis_url: str, frames: int, people: int) -> Mapping[str, Work]:
    """The chain of the tutorials: each frame through mtcnn, each face through ``predict``, a flat index, XADD.

    It gets ``frames`` decoded frames, which are taken evenly over the clip.
    """
    import faiss
    import redis
    from mtcnn import MTCNN

    detector, model = MTCNN(), _keras_model(manifest)
    client, pictures = redis.Redis.from_url(redis_url), _evenly(clip, frames)
    enrolled = np.random.default_rng(0).standard_normal((people, 2048)).astype(np.float32)
    faiss.normalize_L2(enrolled)
    index = faiss.IndexFlatIP(enrolled.shape[1])
    index.add(enrolled)

    def run() -> list[list[list[float]]]:
        seen = []
        for picture in pictures:
            faces = detector.detect_faces(picture, box_format="xyxy")
            for face in faces:
                x1, y1, x2, y2 = face["box"]
                chip = cv2.resize(picture[y1:y2, x1:x2], (224, 224))
                vector = model.predict(chip[None], verbose=0)
                faiss.normalize_L2(vector)
                similarity, row = index.search(vector, 1)
                client.xadd(_STREAM, {"person": int(row[0, 0]), "similarity": float(similarity[0, 0])})
            seen.append([[*map(float, face["box"]), float(face["confidence"])] for face in faces])
        return seen

    return {"run": (run, lambda seen: seen)}


def first_frame(clip: str, manifest: str, redis_url: str, people: int) -> Mapping[str, Work]:
    """The same chain, which is ready only when it has done one frame. This shows how long it takes to start."""
    works = tutorial(clip, manifest, redis_url, 1, people)
    works["run"][0]()
    return works


def _evenly(clip: str, count: int) -> list[NDArray[np.uint8]]:
    with open_clip(Path(clip)) as reader:
        total = sum(1 for _ in reader)
    wanted = {int(total * number / count) for number in range(count)}
    with open_clip(Path(clip)) as reader:
        return [picture for number, picture in enumerate(reader) if number in wanted]


def flat_search(folder: str, people: int, samples: int, queries: int) -> Mapping[str, Work]:
    """The exact index of FAISS over all samples, which gets one query at a time."""
    import faiss

    # Imported here only: what the other contestants import counts as their start and their memory.
    from worker.bench import material

    blocks = material.stored_vectors(Path(folder), people, samples)
    before_mb = private_mb()
    index = faiss.IndexFlatIP(material.DIMENSION)
    for block in blocks:
        index.add(np.asarray(block))
    asked = material.query_vectors(people, samples, queries)

    def ask() -> list[list[float]]:
        answers = [index.search(asked[row : row + 1], 1) for row in range(len(asked))]
        return [[float(rows[0, 0] // samples), float(similarity[0, 0])] for similarity, rows in answers]

    def describe(found: list[list[float]]) -> dict[str, Any]:
        return {"found": found, "memory_mb": private_mb() - before_mb, "kind": "IndexFlatIP"}

    return {"query": (ask, describe)}


class _Graph:
    """The nodes of an ONNX graph that were written so far."""

    def __init__(self) -> None:
        self.onnx: Any = importlib.import_module("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"value_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name


def export_onnx(model: Any, path: Path) -> None:
    """Writes a residual Keras ``model`` (uint8 NHWC pictures in, features out) as an ONNX file that computes in NCHW.

    Raises:
        ValueError: the model has a layer of another kind than such networks have.
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
    made = helper.make_model(document, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
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
    raise ValueError(f"the layer {kind} cannot be written to an ONNX file here")
