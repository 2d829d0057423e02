"""FaceNet's network against facenet-pytorch's, with random weights carried over, and its files."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.embedding import load_embedder
from worker.faces.networks.facenet import build
from worker.faces.networks.h5 import read_h5
from worker.faces.networks.parity import write_random_h5, write_random_weights
from worker.faces.networks.vggface2 import PREPROCESSING_LAYER
from worker.types import Chips

pytestmark = [pytest.mark.slow, pytest.mark.peers]
_STEM = {
    "conv2d_1a": "Conv2d_1a_3x3", "conv2d_2a": "Conv2d_2a_3x3", "conv2d_2b": "Conv2d_2b_3x3",
    "conv2d_3b": "Conv2d_3b_1x1", "conv2d_4a": "Conv2d_4a_3x3", "conv2d_4b": "Conv2d_4b_3x3",
}  # fmt: skip
_RESIDUAL = {
    "Block35": {"branch0": ["1x1"], "branch1": ["0a_1x1", "0b_3x3"], "branch2": ["0a_1x1", "0b_3x3", "0c_3x3"]},
    "Block17": {"branch0": ["1x1"], "branch1": ["0a_1x1", "0b_1x7", "0c_7x1"]},
    "Block8": {"branch0": ["1x1"], "branch1": ["0a_1x1", "0b_1x3", "0c_3x1"]},
}
_REDUCTIONS = {
    "mixed_6a": {"branch0": ["1a_3x3"], "branch1": ["0a_1x1", "0b_3x3", "1a_3x3"]},
    "mixed_7a": {
        "branch0": ["0a_1x1", "1a_3x3"],
        "branch1": ["0a_1x1", "1a_3x3"],
        "branch2": ["0a_1x1", "0b_3x3", "1a_3x3"],
    },
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 512-d file, the length that facenet-pytorch has."""
    path = tmp_path_factory.mktemp("facenet") / "facenet_keras.h5"
    write_random_h5("facenet", path, seed=3, dimension=512)
    return path


@pytest.fixture(scope="module")
def chips() -> NDArray[np.uint8]:
    """Noise, coarse noise, and a ramp."""
    random = np.random.default_rng(0)
    fine = random.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    ramp = np.linspace(0, 255, 160 * 160 * 3).reshape(160, 160, 3).astype(np.uint8)
    return np.stack([fine, coarse, ramp])


@pytest.fixture
def torch_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """torch, and facenet-pytorch's untrained network in inference mode."""
    torch = pytest.importorskip("torch")
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or not package.submodule_search_locations:
        pytest.skip("facenet-pytorch is not installed")
    # Importing the package itself would need what its detector and its downloads need: torchvision, requests, tqdm.
    root = Path(package.submodule_search_locations[0])
    for name, folder in {"": root, ".models": root / "models"}.items():
        module = ModuleType(f"facenet_pytorch{name}")
        module.__path__ = [str(folder)]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("requests", "requests.adapters", "facenet_pytorch.models.utils.download"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    yield torch, importlib.import_module("facenet_pytorch.models.inception_resnet_v1").InceptionResnetV1().eval()
    for name in [name for name in sys.modules if name.startswith("facenet_pytorch")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


def _layers_by_torch_name() -> dict[str, str]:
    """Our name of each convolution with batch-norm by the name of facenet-pytorch's."""
    names = dict(_STEM)
    blocks = [("Block35", f"repeat_1.{i}", i + 1) for i in range(5)]
    blocks += [("Block17", f"repeat_2.{i}", i + 1) for i in range(10)]
    blocks += [("Block8", f"repeat_3.{i}", i + 1) for i in range(5)] + [("Block8", "block8", 6)]
    paths = [(f"{kind}_{number}", theirs, _RESIDUAL[kind]) for kind, theirs, number in blocks]
    paths += [(theirs.capitalize(), theirs, branches) for theirs, branches in _REDUCTIONS.items()]
    for ours, theirs, branches in paths:
        for branch, convolutions in branches.items():
            for step, convolution in enumerate(convolutions):
                place = f"{theirs}.{branch}" + (f".{step}" if len(convolutions) > 1 else "")
                names[place] = f"{ours}_Branch_{branch[-1]}_Conv2d_{convolution}"
    return names


def _carry_over(torch: Any, arrays: dict[str, dict[str, NDArray[np.float32]]], network: Any) -> None:
    state = network.state_dict()

    def put(name: str, array: NDArray[np.float32]) -> None:
        assert tuple(state[name].shape) == array.shape, name
        state[name] = torch.from_numpy(np.ascontiguousarray(array))

    def put_norm(name: str, layer: str) -> None:
        put(f"{name}.bias", arrays[layer]["beta"])
        put(f"{name}.running_mean", arrays[layer]["moving_mean"])
        put(f"{name}.running_var", arrays[layer]["moving_variance"])

    for theirs, ours in _layers_by_torch_name().items():
        put(f"{theirs}.conv.weight", arrays[ours]["kernel"].transpose(3, 2, 0, 1))
        put_norm(f"{theirs}.bn", f"{ours}_BatchNorm")
    for name in [name for name in state if name.endswith("conv2d.weight")]:
        block = name.removesuffix(".conv2d.weight")
        kind = {"repeat_1": "Block35", "repeat_2": "Block17", "repeat_3": "Block8", "block8": "Block8"}[
            block.partition(".")[0]
        ]
        number = 6 if block == "block8" else int(block.partition(".")[2]) + 1
        wide = arrays[f"{kind}_{number}_Conv2d_1x1"]
        put(name, wide["kernel"].transpose(3, 2, 0, 1))
        put(f"{block}.conv2d.bias", wide["bias"])
    put("last_linear.weight", arrays["Bottleneck"]["kernel"].T)
    put_norm("last_bn", "Bottleneck_BatchNorm")
    network.load_state_dict(state)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def test_embeddings_are_those_of_facenet_pytorch(
    torch_network: tuple[Any, Any], weights: Path, chips: NDArray[np.uint8]
) -> None:
    torch, network = torch_network
    _carry_over(torch, read_h5(weights), network)
    values = chips.astype(np.float64)
    standard = (values - values.mean(axis=(1, 2, 3), keepdims=True)) / values.std(axis=(1, 2, 3), keepdims=True)
    with torch.no_grad():
        expected = network(torch.from_numpy(standard.astype(np.float32).transpose(0, 3, 1, 2))).numpy()
    ours = np.asarray(build("facenet", str(weights))(chips, training=False))
    np.testing.assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), expected, atol=1e-4)
    assert (expected @ expected.T).min() < 0.99  # the pictures are told apart, so that an agreement says something


def test_a_chip_is_standardised_as_the_tutorials_do(chips: NDArray[np.uint8]) -> None:
    import keras

    model = build("facenet", None)
    prepared = keras.Model(model.input, model.get_layer(PREPROCESSING_LAYER).output)
    grey = np.full((1, 160, 160, 3), 77, np.uint8)
    found = np.asarray(prepared(np.concatenate([chips, grey])))
    for chip, ours in zip(chips, found, strict=False):
        face = chip.astype(np.float32)
        np.testing.assert_allclose(ours, (face - face.mean()) / face.std(), atol=1e-4)
    assert np.abs(found[-1]).max() == 0


def test_the_engine_gives_the_unit_vectors_of_keras(
    tmp_path: Path, shared_cache: Path, chips: NDArray[np.uint8]
) -> None:
    manifest = write_random_weights("facenet", tmp_path / "facenet_keras.h5", seed=4)
    embedder = load_embedder(
        str(manifest), models_dir=None, cache_dir=shared_cache, engine="openvino", precision="fp32"
    )
    vectors = embedder.embed(Chips(chips)).vectors
    expected = np.asarray(build("facenet", str(tmp_path / "facenet_keras.h5"))(chips))
    assert vectors.shape == (3, 128)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_a_whole_saved_model_that_counts_branches_by_the_block_is_read_too(
    weights: Path, tmp_path: Path, chips: NDArray[np.uint8]
) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(weights) as source, h5py.File(other, "w") as target:
        root = target.create_group("model_weights")
        names = []
        for name in [_text(name) for name in source.attrs["layer_names"]]:
            renamed = name
            if name.startswith("Block8_"):
                renamed = name.replace("_Branch_1_", f"_Branch_{name.split('_')[1]}_")
            names.append(renamed)
            group = root.create_group(renamed)
            stored = [_text(weight) for weight in source[name].attrs["weight_names"]]
            group.attrs["weight_names"] = [weight.replace(name, renamed).encode() for weight in stored]
            for weight in stored:
                group[weight.replace(name, renamed)] = source[name][weight][()]
        root.attrs["layer_names"] = [name.encode() for name in ["input_1", *names]]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
    one = np.asarray(build("facenet", str(weights))(chips[:1]))
    np.testing.assert_array_equal(np.asarray(build("facenet", str(other))(chips[:1])), one)


def test_a_file_of_another_network_is_refused_with_the_layer(tmp_path: Path, weights: Path) -> None:
    write_random_h5("vgg16", tmp_path / "x.h5", seed=0)
    with pytest.raises(ModelError, match=r"x\.h5 is not for the network facenet: it has no layer Bottleneck"):
        build("facenet", str(tmp_path / "x.h5"))
    with h5py.File(weights) as source, h5py.File(tmp_path / "cut.h5", "w") as target:
        source.copy(source["Bottleneck"], target)
        target.attrs["layer_names"] = [b"Bottleneck"]
    with pytest.raises(ModelError, match=r"cut\.h5 is not for the network facenet: layer \w+ is in one of the two"):
        build("facenet", str(tmp_path / "cut.h5"))


def test_a_mean_of_ones_own_is_refused() -> None:
    with pytest.raises(ModelError, match="standardises each chip"):
        build("facenet", None, mean=(127.5, 127.5, 127.5))
