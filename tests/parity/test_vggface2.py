"""The VGGFace2 networks against keras-vggface itself, with random weights that it wrote."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.faces.engines.openvino import OpenVinoNetwork
from worker.faces.manifests import load_manifest
from worker.faces.networks.conversion import converted_network
from worker.faces.networks.h5 import read_h5
from worker.faces.networks.parity import ParityReport, check_parity, run_oracle, write_random_weights
from worker.faces.networks.vggface2 import build
from worker.faces.weights import find_weights
from worker.types import Chips, Detections

pytestmark = pytest.mark.slow
PREPROCESSING = load_manifest("vggface2-resnet50").input.preprocessing


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What keras-vggface made of its ResNet-50: ``weights.h5`` and ``oracle.npz``."""
    pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("oracle")
    run_oracle("resnet50", folder, seed=1)
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of VGGFace2's ResNet-50 with random weights."""
    return write_random_weights("vggface2-resnet50", tmp_path_factory.mktemp("random") / "random.h5", seed=2)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_features_of_keras_and_of_openvino_are_those_of_keras_vggface(oracle: Path, cache: Path) -> None:
    arguments = {"network": "resnet50", "weights": str(oracle / "weights.h5")} | PREPROCESSING
    path = converted_network("worker.faces.networks.vggface2:build", arguments, "oracle", cache)
    with np.load(oracle / "oracle.npz") as made:
        chips, expected = made["chips"], made["features"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.asarray(build(**arguments)(chips)), expected, atol=1e-4)
    (features,) = OpenVinoNetwork(path, precision="fp32")(chips)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_the_parity_check_passes_and_finds_a_wrong_mean(oracle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(network: str, folder: Path, _seed: int) -> None:
        assert network == "resnet50"
        shutil.copytree(oracle, folder, dirs_exist_ok=True)

    monkeypatch.setattr("worker.faces.networks.parity.run_oracle", copied)
    report = check_parity("vggface2-resnet50")
    assert report.ok, report
    right = load_manifest("vggface2-resnet50")
    wrong = right.model_copy(update={"input": right.input.model_copy(update={"mean": (93.594, 103.8827, 131.0912)})})
    monkeypatch.setattr("worker.faces.networks.parity.load_manifest", lambda _: wrong)
    report = check_parity("vggface2-resnet50")
    assert not report.ok
    assert report.preprocessing_difference == pytest.approx(93.594 - 91.4953, abs=1e-3)


@pytest.mark.parametrize(
    "difference", [{"feature_difference": 2e-4}, {"preprocessing_difference": 1.0}, {"feature_spread": 0.0}]
)
def test_a_report_is_ok_only_if_all_agrees(difference: dict[str, float]) -> None:
    good = {"preprocessing_difference": 0.0, "feature_difference": 1e-5, "feature_spread": 1.0}
    assert ParityReport("m", 0, 3, **good).ok
    assert not ParityReport("m", 0, 3, **(good | difference)).ok
    assert ParityReport("m", 0, 3, **good).as_dict()["ok"] is True


def test_parity_is_for_the_models_of_keras_vggface() -> None:
    with pytest.raises(ModelError, match="not a network of keras-vggface"):
        check_parity("dlib-resnet")


def test_random_weights_have_the_released_format(oracle: Path, random_model: Path) -> None:
    theirs, ours = read_h5(oracle / "weights.h5"), read_h5(random_model.with_suffix(".h5"))
    assert {layer: {name: a.shape for name, a in arrays.items()} for layer, arrays in theirs.items()} == {
        layer: {name: a.shape for name, a in arrays.items()} for layer, arrays in ours.items()
    }
    assert sum(array.size for arrays in ours.values() for array in arrays.values()) == 23_561_152


def test_the_same_seed_gives_the_same_model(random_model: Path, tmp_path: Path) -> None:
    again = load_manifest(str(write_random_weights("vggface2-resnet50", tmp_path / "again.h5", seed=2)))
    other = load_manifest(str(write_random_weights("vggface2-resnet50", tmp_path / "other.h5", seed=3)))
    made = load_manifest(str(random_model))
    assert made.id == "vggface2-resnet50-random"
    assert made.preprocessing_digest == again.preprocessing_digest != other.preprocessing_digest
    assert find_weights(made, None, tmp_path) == {"random.h5": random_model.with_suffix(".h5")}


def test_weights_of_another_network_are_refused_with_the_layer(random_model: Path) -> None:
    with pytest.raises(ModelError, match=r"random\.h5 is not for the network senet50: layer conv2_1_1x1_down"):
        build("senet50", str(random_model.with_suffix(".h5")))


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"x\.h5 is not a Keras H5 weights file"):
        build("resnet50", str(tmp_path / "x.h5"))


def _embedder(random_model: Path, cache: Path, engine: str, precision: str) -> FaceEmbedder:
    return load_embedder(str(random_model), models_dir=None, cache_dir=cache, engine=engine, precision=precision)


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = vectors - vectors.mean(axis=0)
    unit: NDArray[np.float32] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit


@pytest.mark.data
def test_engines_and_precisions_agree_on_real_faces(test_data: Path, random_model: Path, cache: Path) -> None:
    exact = _embedder(random_model, cache, "openvino", "fp32")
    box = Detections(
        np.array([[75, 70, 175, 190]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)
    )
    paths = sorted((test_data / "lfw_dev" / "images").glob("*/*_0001.jpg"))[:300:20]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    chips = Chips(np.concatenate([exact.align(image, box).images for image in images]))
    reference = exact.embed(chips).vectors
    tensorflow = _embedder(random_model, cache, "keras", "fp32")
    assert (tensorflow.engine, tensorflow.device) == ("keras", "CPU")
    np.testing.assert_allclose(tensorflow.embed(chips).vectors, reference, atol=1e-5)
    for engine in ("openvino", "keras"):
        reduced = _embedder(random_model, cache, engine, "bf16").embed(chips).vectors
        assert (_centred(reduced) * _centred(reference)).sum(axis=1).min() >= 0.998, engine
