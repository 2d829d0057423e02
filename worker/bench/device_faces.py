"""Whether a device finds the processor's faces and makes the same vectors of them: rows of ``bench --device``.

The measure is the processor's path in FP32: OpenVINO for the networks, OpenCV for the pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.bench.material import random_model
from worker.boxes import iou_matrix
from worker.config import CameraConfig, DetectionConfig, cache_dir
from worker.faces.detection import load_detector
from worker.faces.device.runtimes import Runtime
from worker.faces.embedding import load_embedder
from worker.observer import Observer, Stage
from worker.types import Detections, Picture, image_of
from worker.video.addresses import parse_address
from worker.video.decoder import open_video
from worker.video.photos import list_photos, read_photo
from worker.video.planes import lazy_of, rgb_of

Document = dict[str, Any]

_PHOTO_FOLDERS: Final = ("dlib_faces", "photos")
_MIN_PHOTO_FACE_PX: Final = 20
_BATCH: Final = 8
_WANTED_SHARE: Final = 0.995
_SURE: Final = 0.95
_SAME_PLACE: Final = 0.8
_WANTED_COSINE: Final = 0.999
_MOST_EMBEDDED: Final = 64


class _Passes(Observer):
    count = 0

    def second_pass(self, stage: Stage) -> None:  # noqa: ARG002
        self.count += 1


def compare_faces(
    runtime: Runtime, clip: Path, data: Path | None, say: Callable[[str], None], *, every: int = 10, photos: bool = True
) -> Iterator[Document]:
    """The rows: each set of pictures, all of them together, and the vectors.

    Args:
        clip: each frame of which ``every`` counts so many is compared, at 40 and at 20 px.
        data: the photos of its folders ``dlib_faces`` and ``photos`` are compared if it has them.
    """
    described = {"runtime": runtime.name, "card": runtime.card, "device": runtime.device}
    frames = frames_of(clip, every)
    sets: list[tuple[str, int, list[Picture]]] = [(f"{clip.name}, {px} px", px, frames) for px in (40, 20)]
    for name in _PHOTO_FOLDERS if data is not None and photos else ():
        if data is not None and (data / name).is_dir():
            pictures: list[Picture] = [read_photo(path) for path in list_photos(data / name)]
            sets.append((name, _MIN_PHOTO_FACE_PX, pictures))
    together: list[Document] = []
    embedded: list[tuple[Picture, Detections]] = []
    for name, min_face_px, pictures in sets:
        expected, found, passes = _both(runtime, min_face_px, pictures)
        row = agreement(expected, found) | {"second_passes": passes, "pictures": len(pictures)}
        say(f"same faces, {name}: {row['same']} of {row['faces']}")
        yield {"row": f"same faces, {name}"} | described | row
        together.append(row)
        embedded += [
            (picture, faces.take(np.array([n])))
            for picture, faces in zip(pictures, expected, strict=True)
            for n in range(len(faces))
        ]
    sums = {key: sum(row[key] for row in together) for key in ("faces", "same", "sure_missed", "additional")}
    share = sums["same"] / max(sums["faces"], 1)
    agrees = share >= _WANTED_SHARE and not sums["sure_missed"]
    yield {"row": "same faces, together"} | described | sums | {"share": round(share, 4), "agree": agrees}
    step = max(1, len(embedded) // _MOST_EMBEDDED)
    yield {"row": "same vectors"} | described | _vectors(runtime, embedded[::step][:_MOST_EMBEDDED])


def agreement(reference: Sequence[Detections], found: Sequence[Detections]) -> Document:
    """How many faces of ``reference`` are in ``found`` at the same place, how many of the others are sure ones, and how
    many are in ``found`` only. Of each that differs the number of its picture, score, box, and best overlap."""
    same = missed = more = total = 0
    differ: list[list[float]] = []
    for number, (expected, seen) in enumerate(zip(reference, found, strict=True)):
        overlap = iou_matrix(expected.boxes, seen.boxes)
        best = overlap.max(axis=1, initial=0)
        total += len(expected)
        same += int((best >= _SAME_PLACE).sum())
        missed += int(((best < _SAME_PLACE) & (expected.scores >= _SURE)).sum())
        more += int((overlap.max(axis=0, initial=0) < _SAME_PLACE).sum())
        for lost in np.flatnonzero(best < _SAME_PLACE).tolist():
            place = [round(side, 1) for side in expected.boxes[lost].tolist()]
            differ.append([number, round(float(expected.scores[lost]), 4), *place, round(float(best[lost]), 3)])
    return {"faces": total, "same": same, "sure_missed": missed, "additional": more, "differ": differ}


def frames_of(clip: Path, every: int) -> list[Picture]:
    """Every so many frames of ``clip``, as planes where a device can convert them."""
    camera = CameraConfig.model_validate({"id": "clip", "source": str(clip)})
    video = open_video(parse_address(str(clip)), camera, Observer())
    taken: list[Picture] = []
    try:
        for number, picture in enumerate(video.pictures(lambda: True)):
            if picture is not None and picture.planes is not None and number % every == 0:
                planes = picture.planes()
                taken.append(lazy_of(planes) or rgb_of(planes))
    finally:
        video.close()
    return taken


def _both(
    runtime: Runtime, min_face_px: int, pictures: Sequence[Picture]
) -> tuple[list[Detections], list[Detections], int]:
    """What the processor and the device find, and how many batches the device did twice."""
    from worker.faces.device.detector import load_device_detector
    from worker.faces.device.pictures import pictures_on

    precise = DetectionConfig(min_face_px=min_face_px, precision="fp32")
    processor = load_detector(precise, cache_dir=cache_dir(), engine="openvino")
    passes = _Passes()
    config = DetectionConfig(min_face_px=min_face_px)
    device = load_device_detector(config, runtime, pictures_on(runtime), observer=passes)
    expected: list[Detections] = []
    found: list[Detections] = []
    for start in range(0, len(pictures), _BATCH):
        some = pictures[start : start + _BATCH]
        waiting = device.submit(some)
        expected += processor.detect([image_of(picture) for picture in some])
        found += device.collect(waiting)
    return expected, found, passes.count


def _vectors(runtime: Runtime, faces: Sequence[tuple[Picture, Detections]]) -> Document:
    """The cosines of both vectors of each face, once what all have in common is taken away."""
    if not faces:
        return {"faces": 0, "agree": None}
    manifest = random_model()
    embedders = [
        load_embedder(
            str(manifest), models_dir=manifest.parent, cache_dir=cache_dir(), engine=engine, precision=precision
        )
        for engine, precision in (("openvino", "fp32"), (runtime.name, "auto"))
    ]
    expected, found = (embedder.embed_found(faces).vectors for embedder in embedders)
    common = expected.mean(axis=0)
    cosines = np.sum(_unit(expected - common) * _unit(found - common), axis=1)
    return {
        "faces": len(faces),
        "precision": embedders[1].precision,
        "least_cosine": round(float(cosines.min()), 5),
        "median_cosine": round(float(np.median(cosines)), 5),
        "agree": bool(cosines.min() >= _WANTED_COSINE),
    }


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
