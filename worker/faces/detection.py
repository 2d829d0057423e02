"""Faces and their landmarks in batches of pictures, by the detector that is configured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from worker.boxes import nearest_to_centre
from worker.config import DetectionConfig
from worker.faces.engines import DEVICE_ENGINES
from worker.observer import Observer
from worker.types import Detections, Image

if TYPE_CHECKING:
    from worker.faces.device.detector import DeviceDetector


class FaceDetector(Protocol):
    """Finds faces in batches of images of any sizes. Not safe for concurrent calls."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """The faces of each image, best score first, in px of that image; the same whatever else is in the batch.

        Scores are of one scale for all detectors: from 0.9 on a face counts as sure. Boxes may reach beyond the
        image's edges. An image smaller than the smallest face has none.

        Args:
            images: each uint8 (H, W, 3), RGB; sizes may differ.

        Raises:
            ValueError: an image is not uint8 (H, W, 3); the message says which.
        """
        ...

    def follow(self, images: Sequence[Image], expected: Sequence[NDArray[np.float32]]) -> list[Detections]:
        """The faces of each image at or near the boxes where they are expected, at a fraction of a search's cost.

        A face that is not expected need not be found.

        Args:
            images: each uint8 (H, W, 3), RGB.
            expected: boxes float32 (n, 4) px, one array for each image.
        """
        ...


def load_detector(
    config: DetectionConfig,
    *,
    cache_dir: Path,
    models_dir: Path | None = None,
    engine: str = "auto",
    threads: int = 0,
    observer: Observer | None = None,
) -> FaceDetector:
    """The detector that ``config.detector`` names, ready to run.

    Args:
        cache_dir: where pulled weights and converted networks are kept.
        models_dir: folder in which weight files are looked for, at any depth.
        engine: what runs MTCNN's networks: ``openvino`` or ``keras``; ``tensorflow``, ``jax`` and ``torch`` run the
            whole cascade on a GPU. ``auto`` takes one of these where there is a GPU, and ``openvino`` elsewhere. The
            other detectors have one engine each.
        threads: of MTCNN's engine; 0 leaves it to it.

    Raises:
        ModelError: the engine cannot run the networks, their weights are missing or damaged, or cannot be converted.
    """
    if config.detector == "mtcnn":
        engine = engine_or_device(engine, cache_dir)
        if engine in DEVICE_ENGINES:
            from worker.faces.device.runtimes import load_runtime

            runtime = load_runtime(engine, cache_dir=cache_dir)
            from worker.faces.device.detector import load_device_detector
            from worker.faces.device.pictures import pictures_on

            return load_device_detector(config, runtime, pictures_on(runtime), observer=observer)
        from worker.faces.detectors.mtcnn import load_mtcnn

        return load_mtcnn(config, cache_dir=cache_dir, engine=engine, threads=threads, observer=observer)
    from worker.faces.detectors.one_by_one import OneByOneDetector, Search
    from worker.faces.manifests import load_detector_manifest
    from worker.faces.weights import find_weights

    manifest = load_detector_manifest(config.detector)
    (path,) = find_weights(manifest, models_dir, cache_dir).values()
    search: Search
    if config.detector == "yunet":
        from worker.faces.detectors.yunet import YuNet

        search = YuNet(path, config.max_side_px)
    else:
        from worker.faces.detectors.dlib_hog import DlibHog

        search = DlibHog(path, config.max_side_px)
    if observer is not None:
        observer.engine_loaded("detect", "opencv" if config.detector == "yunet" else "dlib", "CPU", "fp32")
    return OneByOneDetector(search, config, observer=observer)


def engine_or_device(engine: str, cache_dir: Path) -> str:
    """``engine``, or for ``auto`` the runtime of the GPU that is there."""
    if engine != "auto":
        return engine
    from worker.faces.device.runtimes import runtime_for_auto

    return runtime_for_auto(cache_dir) or engine


def on_device(detector: FaceDetector) -> "DeviceDetector | None":
    """``detector``, if it is one that looks at a batch on a device while something else is done."""
    return cast("DeviceDetector", detector) if hasattr(detector, "submit") else None


def only_central(found: Detections, image: Image) -> Detections:
    """Of ``found``, the face nearest the centre of ``image``."""
    if not len(found):
        return found
    return found.take(np.array([nearest_to_centre(found.boxes, image.shape[1], image.shape[0])]))


def central_face(image: Image, detector: FaceDetector) -> Detections:
    """The face nearest the centre of ``image``: one detection, or none."""
    (found,) = detector.detect([image])
    return only_central(found, image)
