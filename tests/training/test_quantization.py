"""An INT8 model is a model of its own: digests, manifest, and directions near those of the original."""

import logging
from pathlib import Path

import numpy as np
import pytest

from worker.config import DetectionConfig
from worker.errors import ModelError, SourceError
from worker.evaluation.probes import embed_photos
from worker.faces.detection import load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.faces.engines.openvino import best_precision
from worker.faces.manifests import load_manifest
from worker.faces.standin import admit, standin_folder
from worker.training.quantization import FEWEST_FACES, quantize_faces, quantize_model
from worker.types import Chips
from worker.video.photos import list_photos

MODEL = "face-reidentification-retail-0095"


@pytest.mark.slow
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
    before, after = (embed_photos(photos[76:], detector, embedder) for embedder in (exact, reduced))
    cosines = (before.vectors * after.vectors).sum(axis=1)[before.found]
    assert len(cosines) >= 10
    assert np.median(cosines) >= 0.98
    assert min(cosines) < 1 - 1e-6


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(best_precision() == "bf16", reason="auto takes BF16 on this processor")
def test_an_int8_form_stands_in_for_its_model_only_where_that_was_shown(
    test_data: Path, shared_cache: Path, tmp_path: Path
) -> None:
    models, cache = test_data / "models", tmp_path / "cache"
    exact = load_embedder(MODEL, models_dir=models, cache_dir=shared_cache, precision="fp32")
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (64, exact.manifest.input.side, exact.manifest.input.side, 3), np.uint8)
    made = quantize_faces(exact.manifest, faces, tmp_path / "made", models_dir=models, cache_dir=cache)
    network = made.with_suffix(".xml")

    def loaded(precision: str) -> FaceEmbedder:
        return load_embedder(MODEL, models_dir=models, cache_dir=cache, precision=precision)

    with pytest.raises(ModelError, match="no INT8 form that was admitted"):
        loaded("int8")
    assert not admit(exact.manifest, network, (0.97, 0.9685, 0.97), 4000, cache).holds
    assert not admit(exact.manifest, network, (0.97, 0.97, 0.9685), 4000, cache).holds
    assert not admit(exact.manifest, network, (0.97, 0.97, 0.97), 999, cache).holds
    assert loaded("auto").precision == "fp32"

    assert admit(exact.manifest, network, (0.97, 0.969, 0.9695), 4000, cache).holds
    standing_in = loaded("auto")
    assert (standing_in.precision, loaded("int8").precision, loaded("fp32").precision) == ("int8", "int8", "fp32")
    galleries = (exact.model_id, exact.preprocessing_digest)
    assert (standing_in.model_id, standing_in.preprocessing_digest) == galleries
    own = load_embedder(str(made), models_dir=None, cache_dir=cache)
    chips = Chips(faces[:4], "rgb")
    np.testing.assert_allclose(standing_in.embed(chips).vectors, own.embed(chips).vectors, atol=1e-5)

    weights = standin_folder(exact.manifest, cache) / "network.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert loaded("auto").precision == "fp32"
    with pytest.raises(ModelError, match="no INT8 form that was admitted"):
        loaded("int8")


@pytest.mark.data
def test_too_few_faces_are_refused(test_data: Path, shared_cache: Path, tmp_path: Path) -> None:
    models = test_data / "models"
    exact = load_embedder(MODEL, models_dir=models, cache_dir=shared_cache, precision="fp32")
    detector = load_detector(DetectionConfig(), cache_dir=shared_cache)
    photos = list_photos(test_data / "photos" / "train")
    with pytest.raises(SourceError, match=f"at least {FEWEST_FACES} are needed"):
        quantize_model(exact, detector, photos, tmp_path, models_dir=models, cache_dir=shared_cache)
