"""The networks alone: detection of faces from 20 px on 1080p frames, and embedding of 32 faces of the clip.

The embedding is that of ResNet-50 at 224x224 with random weights.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from worker.bench.comparison import Comparison, Family, Row, Setup, same_faces, same_vectors
from worker.bench.material import CHIPS, Material

DETECTION_NAMES: Final = (
    "detect_1080p/mtcnn",
    "detect_1080p/mtcnn_single",
    "detect_1080p/mtcnn_fp32",
    "detect_1080p/facenet_pytorch",
)

_FRAMES: Final = 8
_ORACLE: Final = partial(same_faces, by="mtcnn")
# facenet-pytorch cuts crops differently and has a lower last threshold: its boxes differ from those of mtcnn, too.
_COUSIN: Final = partial(same_faces, overlap=0.5, by="facenet-pytorch")


def measure_detection(setup: Setup) -> Iterator[Row]:
    """A row for each of :data:`DETECTION_NAMES` that is wanted."""
    if any(map(setup.wanted, DETECTION_NAMES)):
        yield from _detection(setup.material, large_batch=not setup.quick).measure(setup)


def measure_embedding(setup: Setup) -> Iterator[Row]:
    """A row for each of :data:`EMBEDDING_NAMES` that is wanted."""
    if any(map(setup.wanted, EMBEDDING_NAMES)):
        yield from _embedding(setup.material).measure(setup)


def _detection(material: Material, *, large_batch: bool = True) -> Family:
    """Each side takes 8 frames a turn; mtcnn takes 16 in a ``large_batch``."""
    counts = {"single": (_FRAMES, 1), "batch8": (_FRAMES, 8)} | ({"batch16": (16, 16)} if large_batch else {})
    common = {"count": _FRAMES, "min_face_px": 20}
    variants: dict[str, dict[str, Any]] = {
        "batch8": common | {"batch": 8},
        "fp32": common | {"batch": 8, "precision": "fp32"},
        "single": common | {"batch": 1},
    }
    peers: dict[str, tuple[str, dict[str, Any]]] = {
        "mtcnn": ("mtcnn", {"counts": counts}),
        "facenet": ("facenet_pytorch", {"counts": {name: counts[name] for name in ("single", "batch8")}}),
    }
    path = {"frames": str(material.frames)}
    contestants: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("worker.bench.ours:detectors", path | {"variants": variants}),
        **{name: (f"worker.bench.peers:{target}", path | arguments) for name, (target, arguments) in peers.items()},
    }
    mtcnn = tuple(f"mtcnn/{name}" for name in counts)
    facenet = ("facenet/single", "facenet/batch8")
    comparisons = (
        # The answer of mtcnn to one image at a time is the right one: in a batch its boxes change.
        Comparison("detect_1080p/mtcnn", "ours/batch8", mtcnn, _ORACLE, judged_by_first=True),
        Comparison("detect_1080p/mtcnn_single", "ours/single", ("mtcnn/single",), _ORACLE),
        Comparison("detect_1080p/mtcnn_fp32", "ours/fp32", mtcnn, _ORACLE, judged_by_first=True),
        Comparison("detect_1080p/facenet_pytorch", "ours/batch8", facenet, _COUSIN),
    )
    items = {f"ours/{name}": _FRAMES for name in variants}
    items |= {f"mtcnn/{name}": count for name, (count, _) in counts.items()}
    items |= dict.fromkeys(facenet, _FRAMES)
    return Family(contestants, comparisons, items, "ms/frame")


EMBEDDING_NAMES: Final = (
    "embed/keras_predict_b32",
    "embed/tf_function_b32",
    "embed/onnxruntime_b32",
    "embed/onnxruntime_b32_fp32",
    "embed/int8_b32",
)
INT8_MIN_COSINE: Final = 0.95
"""With random weights the vectors of all faces are nearly the same. Little is left of them without the mean, and the
rounding to 8 bits is large beside it. A network that was quantised wrongly is far below this cosine."""
_INT8_NOTE: Final = (
    f"speed only: the ranges come from the same faces, and agree means a cosine of {INT8_MIN_COSINE}; random "
    "weights cannot show what INT8 costs in accuracy: evaluate the model that 'facestream models quantize' makes"
)


def _embedding(material: Material) -> Family:
    """All rows take one full batch a turn."""
    network: dict[str, Any] = {"chips": str(material.chips), "manifest": str(material.manifest)}
    folder = {"folder": str(material.chips.parent)}
    variants = {"auto": "auto", "fp32": "fp32"}
    contestants = {
        "ours": ("worker.bench.ours:embedders", network | {"variants": variants}),
        "int8": ("worker.bench.ours:quantized", network),
        "keras": ("worker.bench.peers:keras", network),
        "onnx": ("worker.bench.peers:onnxruntime", network | folder),
    }
    near_vectors = partial(same_vectors, min_cosine=INT8_MIN_COSINE)
    comparisons = (
        Comparison("embed/keras_predict_b32", "ours/auto", ("keras/predict",), same_vectors),
        Comparison("embed/tf_function_b32", "ours/auto", ("keras/tf_function",), same_vectors),
        Comparison("embed/onnxruntime_b32", "ours/auto", ("onnx/run",), same_vectors),
        Comparison("embed/onnxruntime_b32_fp32", "ours/fp32", ("onnx/run",), partial(same_vectors, min_cosine=0.9999)),
        Comparison("embed/int8_b32", "int8/int8", ("keras/predict",), near_vectors, _INT8_NOTE),
    )
    works = {work for comparison in comparisons for work in comparison.works}
    return Family(contestants, comparisons, dict.fromkeys(works, CHIPS), "faces/s")
