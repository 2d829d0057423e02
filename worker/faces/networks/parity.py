"""Weights drawn at random, and with them our networks against keras-vggface itself.

Random weights have the released format and recognise nobody; they serve parity, measurements of speed, and tests.

keras-vggface was written for a Keras of 2018. It runs unchanged on ``tf_keras`` when the old module names lead
there; that, and our own Keras 3, each get a process of their own, so that neither is seen by the caller.
"""

import dataclasses
import importlib.util
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.manifests import load_manifest
from worker.faces.networks.conversion import run_apart
from worker.files import sha256_of

_PIXEL_SPREAD: Final = 64.0


def draw(layer: str, weight: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """An array for ``weight`` (``kernel``, ``bias``, ``gamma``, ...) of ``layer`` (its released name).

    Kernels follow He et al. (2015); residual branches are damped, so that features come out near 1 however deep
    the network is. Batch-norm statistics are drawn too.
    """
    if weight == "kernel":
        spread = np.sqrt(2.0 / np.prod(shape[:-1]))
        values = random.normal(0.0, spread / (_PIXEL_SPREAD if layer in {"conv1/7x7_s2", "conv1_1"} else 1.0), shape)
    elif weight == "gamma":
        values = random.uniform(0.5, 1.0, shape) * (0.4 if layer.endswith("increase/bn") else 1.0)
    elif weight == "moving_variance":
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.normal(0.0, 0.1, shape)
    return values.astype(np.float32)


def write_random_weights(model: str, path: Path, seed: int) -> Path:
    """Write random weights for a Keras model, and beside them a manifest that names them.

    Args:
        model: id or manifest of the model to imitate.
        path: where the weights go (``.h5``).
        seed: the same seed gives the same weights.

    Returns:
        Path of the manifest (``.yaml``), whose id is that of the model with ``-random``.

    Raises:
        ModelError: the model has no network in Keras.
    """
    manifest = load_manifest(model)
    if manifest.network is None:
        raise ModelError(f"{manifest.id} has no network in Keras: random weights exist for those only")
    write_random_h5(manifest.network, path, seed, manifest.dimension)
    document = manifest.model_dump(mode="json") | {
        "id": f"{manifest.id}-random",
        "description": f"{manifest.network} with random weights: recognises nobody",
        "files": [{"name": path.name, "sha256": sha256_of(path), "size": path.stat().st_size}],
        "licence": "none needed",
        "source": f"random, seed {seed}",
    }
    target = path.with_suffix(".yaml")
    target.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return target


def write_random_h5(network: str, path: Path, seed: int, dimension: int = 128) -> None:
    """Write random weights of ``network`` to ``path`` as its released files have them.

    ``dimension`` is the length of FaceNet's vectors; the other networks have one length each.
    """
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        names = []
        for layer in _build(network, dimension).layers:
            weights = [weight for weight in layer.weights if (network, weight.name) != ("facenet", "gamma")]
            if not weights:
                continue
            released = layer.name.replace("conv1_7x7_s2", "conv1/7x7_s2").replace("_bn", "/bn")
            names.append(released)
            group = file.create_group(released)
            group.attrs["weight_names"] = [f"{released}/{weight.name}:0".encode() for weight in weights]
            for weight in weights:
                group[f"{released}/{weight.name}:0"] = draw(released, weight.name, tuple(weight.shape), random)
        file.attrs["layer_names"] = [name.encode() for name in names]


def _build(network: str, dimension: int) -> Any:
    if network == "facenet":
        from worker.faces.networks import facenet

        return facenet.build(network, None, dimension=dimension)
    from worker.faces.networks import vggface2

    return vggface2.build(network, None)


TOLERANCE: Final = 1e-4
_FACES: Final = 3
_SEED: Final = 0
"""Of the weights and of the pictures of a check."""
_PREPROCESSING_VERSIONS: Final = {"resnet50": 2, "senet50": 2, "vgg16": 1}


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How far our network is from keras-vggface: largest absolute differences, on features of about 1."""

    model_id: str
    seed: int
    faces: int
    preprocessing_difference: float
    feature_difference: float
    feature_spread: float
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether both differences are within the tolerance, on features that are not all the same."""
        worst = max(self.preprocessing_difference, self.feature_difference)
        return worst <= self.tolerance and self.feature_spread > 100 * self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """The report and its verdict, in JSON types."""
        return {"model_id": self.model_id, "ok": self.ok} | dataclasses.asdict(self)

    def __str__(self) -> str:
        return (
            f"{'agrees with' if self.ok else 'DIFFERS FROM'} keras-vggface on {self.faces} pictures, random weights: "
            f"preprocessing within {self.preprocessing_difference:.1e}, features within {self.feature_difference:.1e} "
            f"(allowed {self.tolerance:.0e}, spread of the features {self.feature_spread:.1f})"
        )


def check_parity(model: str) -> ParityReport:
    """Draw weights for keras-vggface's network, let it save them, read them into ours, and compare the outputs.

    Args:
        model: id or manifest of a model of keras-vggface; only its network and preprocessing matter.

    Raises:
        ModelError: another model, keras-vggface or tf_keras is not installed, or one of the two sides failed.
    """
    manifest = load_manifest(model)
    if manifest.network not in _PREPROCESSING_VERSIONS:
        raise ModelError(f"{manifest.id} is not a network of keras-vggface: parity can be checked only for those")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_oracle(manifest.network, folder, _SEED)
        preprocessing = json.dumps(manifest.input.preprocessing)
        run_apart("parity", "ours", manifest.network, str(folder), preprocessing, what="the parity check (ours)")
        with np.load(folder / "oracle.npz") as oracle, np.load(folder / "ours.npz") as ours:
            return ParityReport(
                manifest.id,
                _SEED,
                len(oracle["chips"]),
                float(np.abs(oracle["preprocessed"] - ours["preprocessed"]).max()),
                float(np.abs(oracle["features"] - ours["features"]).max()),
                float(oracle["features"].std()),
            )


def run_oracle(network: str, folder: Path, seed: int = 0) -> None:
    """Leave in ``folder`` what keras-vggface made: ``weights.h5`` and ``oracle.npz``.

    The latter holds ``chips`` (uint8 RGB), ``preprocessed`` (float32 BGR) and ``features`` (float32).

    Raises:
        ModelError: keras-vggface or tf_keras is not installed, or it failed.
    """
    for module, package in [("tf_keras", "facestream[parity]"), ("keras_vggface", "keras-vggface==0.6")]:
        if importlib.util.find_spec(module) is None:
            raise ModelError(f"parity needs {module}, which is not installed: pip install '{package}'")
    run_apart("parity", "oracle", network, str(folder), str(seed), what="the parity check (oracle)")


def _lead_old_names_to_tf_keras() -> None:
    """The modules that keras-vggface 0.6 imports, from where their contents are today."""
    import tf_keras

    layer_utils, data_utils = ModuleType("keras.utils.layer_utils"), ModuleType("keras.utils.data_utils")
    engine, topology = ModuleType("keras.engine"), ModuleType("keras.engine.topology")
    applications, imagenet_utils = ModuleType("keras_applications"), ModuleType("keras_applications.imagenet_utils")
    vars(data_utils)["get_file"] = tf_keras.utils.get_file
    vars(topology)["get_source_inputs"] = tf_keras.utils.get_source_inputs
    vars(imagenet_utils)["_obtain_input_shape"] = lambda input_shape, **_: input_shape
    tf_keras.utils.layer_utils = layer_utils
    sys.modules |= {
        "keras": tf_keras,
        "keras.backend": tf_keras.backend,
        "keras.layers": tf_keras.layers,
        "keras.models": tf_keras.models,
        "keras.utils": tf_keras.utils,
        "keras.utils.layer_utils": layer_utils,
        "keras.utils.data_utils": data_utils,
        "keras.engine": engine,
        "keras.engine.topology": topology,
        "keras_applications": applications,
        "keras_applications.imagenet_utils": imagenet_utils,
    }


def _oracle(network: str, folder: Path, seed: int) -> None:
    from worker.faces.networks.parity import draw

    _lead_old_names_to_tf_keras()
    from keras_vggface.utils import preprocess_input
    from keras_vggface.vggface import VGGFace

    random = np.random.default_rng(seed)
    model = VGGFace(include_top=False, model=network, weights=None, input_shape=(224, 224, 3), pooling="avg")
    for layer in model.layers:
        names = [weight.name.rpartition("/")[2].partition(":")[0] for weight in layer.weights]
        layer.set_weights(
            [draw(layer.name, name, tuple(w.shape), random) for name, w in zip(names, layer.weights, strict=True)]
        )
    model.save_weights(folder / "weights.h5")
    chips = random.integers(0, 256, (_FACES, 224, 224, 3), dtype=np.uint8)
    preprocessed = preprocess_input(chips.astype(np.float32), version=_PREPROCESSING_VERSIONS[network])
    features = model(preprocessed, training=False).numpy()
    np.savez(folder / "oracle.npz", chips=chips, preprocessed=preprocessed, features=features)


def _ours(network: str, folder: Path, arguments: dict[str, Any]) -> None:
    import keras

    from worker.faces.networks import vggface2

    model = vggface2.build(network, str(folder / "weights.h5"), **arguments)
    both = keras.Model(model.input, [model.get_layer(vggface2.PREPROCESSING_LAYER).output, model.output])
    with np.load(folder / "oracle.npz") as oracle:
        preprocessed, features = (np.asarray(output) for output in both(oracle["chips"], training=False))
    if arguments.get("channel_order") == "bgr":
        preprocessed = preprocessed[..., ::-1]
    np.savez(folder / "ours.npz", preprocessed=preprocessed, features=features)


if __name__ == "__main__":
    _side, _network, _folder, _rest = sys.argv[1:]
    if _side == "oracle":
        _oracle(_network, Path(_folder), int(_rest))
    else:
        _ours(_network, Path(_folder), json.loads(_rest))
