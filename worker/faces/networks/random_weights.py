"""Weights drawn at random, in the released format: for parity, for speed, for tests. They recognise nobody."""

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces.manifests import load_manifest
from worker.faces.weights import sha256_of

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
