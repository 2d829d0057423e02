"""What a worker's metrics say about people of a gallery who resemble each other."""

import math

import numpy as np

from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.service.metrics import Exposition, PrometheusObserver
from worker.service.resemblance import GalleryResemblance

MODEL = "face-reidentification-retail-0095"  # whose manifest says how similar different people are


def enrol(gallery: FolderGallery, count: int, alike: float, kind: str) -> None:
    vectors = np.random.default_rng(count).normal(size=(count, 256)) / 16 + alike * np.eye(256)[0]
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    gallery.add([NewSample(f"{kind}{row}", vector, f"{kind}{row}", f"{kind}{row}") for row, vector in enumerate(unit)])


def values(observer: PrometheusObserver) -> dict[str, float]:
    lines = Exposition(observer.registry).encode().decode().splitlines()
    rows = [line.split() for line in lines if line.startswith("facestream_gallery_")]
    return {name.removeprefix("facestream_gallery_"): float(value) for name, value in rows}


def test_the_metrics_follow_the_gallery_as_it_grows() -> None:
    gallery = FolderGallery.in_memory(MODEL, "d", 256)
    watched = GalleryResemblance(lambda: gallery, 0.32)

    def measure() -> tuple[float, float, bool] | None:
        found = watched.now()
        return None if found is None else (found.share, found.expected, found.is_high)

    observer = PrometheusObserver()
    observer.watch_resemblance(measure)
    assert math.isnan(values(observer)["people_resemble"])
    enrol(gallery, 30, 0.0, "stranger")
    told = values(observer)
    assert (told["people_resemble"], told["alike_pairs_ratio"]) == (0.0, 0.0)
    assert abs(told["alike_pairs_expected_ratio"] - 0.00158) < 1e-6
    enrol(gallery, 40, 1.0, "cousin")
    told = values(observer)
    assert told["people_resemble"] == 1.0
    assert told["alike_pairs_ratio"] > 0.1
