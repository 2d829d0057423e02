"""An INT8 model is a model of its own: digests, manifest, and directions near those of the original."""

import logging
from pathlib import Path

import numpy as np
import pytest

from worker.config import DetectionConfig
from worker.errors import SourceError
from worker.faces.detection import central_face, load_detector
from worker.faces.embedding import load_embedder
from worker.faces.manifests import load_manifest
from worker.training.quantization import FEWEST_FACES, quantize_model
from worker.video.photos import list_photos, read_photo

MODEL = "face-reidentification-retail-0095"


@pytest.mark.data
def test_quantised_model_keeps_directions_and_belongs_to_its_own_galleries(
    test_data: Path, shared_cache: Path, tmp_path: Path
) -> None:
    models = test_data / "models"
    detector = load_detector(DetectionConfig(), cache_dir=shared_cache)
    exact = load_embedder(MODEL, models_dir=models, cache_dir=shared_cache, precision="fp32")
    photos = list_photos(test_data / "five_celebrities" / "train")
    of_somebody_else = logging.NullHandler()
    logging.getLogger("nncf").addHandler(of_somebody_else)
    path = quantize_model(
        exact, detector, photos[:76], tmp_path / "made", models_dir=models, cache_dir=tmp_path / "cache"
    )
    assert of_somebody_else.level == logging.NOTSET
    manifest = load_manifest(str(path))
    assert manifest.id == f"{MODEL}-int8"
    assert manifest.preprocessing_digest != exact.preprocessing_digest
    reduced = load_embedder(str(path), models_dir=None, cache_dir=tmp_path / "cache")
    images = [read_photo(photo) for photo in photos[76:]]
    faces = [(image, central_face(image, detector)) for image in images]
    pairs = [
        [model.embed(model.align(image, face)).vectors[0] for model in (exact, reduced)]
        for image, face in faces
        if len(face)
    ]
    cosines = [float(before @ after) for before, after in pairs]
    assert len(cosines) >= 10
    assert np.median(cosines) >= 0.98
    assert min(cosines) < 1 - 1e-6


@pytest.mark.data
def test_too_few_faces_are_refused(test_data: Path, shared_cache: Path, tmp_path: Path) -> None:
    models = test_data / "models"
    exact = load_embedder(MODEL, models_dir=models, cache_dir=shared_cache, precision="fp32")
    detector = load_detector(DetectionConfig(), cache_dir=shared_cache)
    photos = list_photos(test_data / "photos" / "train")
    with pytest.raises(SourceError, match=f"at least {FEWEST_FACES} are needed"):
        quantize_model(exact, detector, photos, tmp_path, models_dir=models, cache_dir=shared_cache)
