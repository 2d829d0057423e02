"""Detection on 1080p frames, smallest face 20 px."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from worker.bench.agree import same_faces
from worker.bench.comparison import Comparison, Family, Setup
from worker.bench.material import Material
from worker.bench.rows import Row

NAMES: Final = (
    "detect_1080p/mtcnn",
    "detect_1080p/mtcnn_single",
    "detect_1080p/mtcnn_fp32",
    "detect_1080p/facenet_pytorch",
)

_FRAMES: Final = 8
_ORACLE: Final = partial(same_faces, by="mtcnn")
# facenet-pytorch cuts crops otherwise and has a lower last threshold, so that its boxes differ from mtcnn's too.
_COUSIN: Final = partial(same_faces, overlap=0.5, by="facenet-pytorch")


def measure(setup: Setup) -> Iterator[Row]:
    """A row for each of :data:`NAMES` that is wanted."""
    if any(map(setup.wanted, NAMES)):
        yield from family(setup.material, large_batch=not setup.quick).measure(setup)


def family(material: Material, *, large_batch: bool = True) -> Family:
    """Each side takes 8 frames a turn; mtcnn in a ``large_batch`` 16."""
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
        # One image at a time is how mtcnn is right: a batch changes its boxes.
        Comparison("detect_1080p/mtcnn", "ours/batch8", mtcnn, _ORACLE, judged_by_first=True),
        Comparison("detect_1080p/mtcnn_single", "ours/single", ("mtcnn/single",), _ORACLE),
        Comparison("detect_1080p/mtcnn_fp32", "ours/fp32", mtcnn, _ORACLE, judged_by_first=True),
        Comparison("detect_1080p/facenet_pytorch", "ours/batch8", facenet, _COUSIN),
    )
    items = {f"ours/{name}": _FRAMES for name in variants}
    items |= {f"mtcnn/{name}": count for name, (count, _) in counts.items()}
    items |= dict.fromkeys(facenet, _FRAMES)
    return Family(contestants, comparisons, items, "ms/frame")
