"""Convert a Keras network to OpenVINO once, and keep the result.

Keras and TensorFlow take seconds to import and half a gigabyte of memory, so the conversion runs in a process
of its own; a worker with a warm cache never loads them.
"""

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from worker.errors import ModelError
from worker.files import sha256_of

_DIGEST_FILE: Final = "sha256.json"
_TIMEOUT_S: Final = 600
_IDENTITIES: Final = {
    "worker.faces.networks.mtcnn:build": "worker.networks.mtcnn:build",
    "worker.faces.networks.vggface2:build": "worker.networks.vggface2:build",
    "worker.faces.networks.facenet:build": "worker.networks.facenet:build",
    "worker.faces.networks.face_cnn:build": "worker.networks.face_cnn:build",
    "worker.faces.engines.openvino:import_network": "worker.engines.openvino_import:build",
}
"""Under which name each builder counts in the cache. These are the places where the builders lay when the first
networks were converted: a network that lies in a user's cache is found again, wherever the code moves to."""


def converted_network(builder: str, arguments: Mapping[str, Any], key: str, cache_dir: Path) -> Path:
    """Path of the OpenVINO ``.xml`` of the network that ``builder`` makes, converted now if it is not cached.

    Args:
        builder: ``"module:function"`` returning a built ``keras.Model``.
        arguments: keyword arguments of the builder (JSON types).
        key: digest of all that determines the result (weights, version of the definition).
        cache_dir: folder for converted networks; each is checked against its digest before use.

    Raises:
        ModelError: the conversion failed; the message holds its last line.
    """
    return converted_networks(builder, [arguments], key, cache_dir)[0]


def converted_networks(builder: str, arguments: Sequence[Mapping[str, Any]], key: str, cache_dir: Path) -> list[Path]:
    """As :func:`converted_network` for each of ``arguments``, with one process for all that are not cached."""
    folders = [network_folder(builder, each, key, cache_dir) for each in arguments]
    missing = [(dict(each), folder) for each, folder in zip(arguments, folders, strict=True) if not _is_intact(folder)]
    if missing:
        _convert(builder, missing)
    return [folder / "network.xml" for folder in folders]


def run_apart(module: str, *arguments: str, what: str) -> None:
    """Runs a ``module`` of this package in a process of its own, with Keras on TensorFlow and without a GPU.

    Raises:
        ModelError: it failed, or took too long; the message begins with ``what`` and holds the last line it wrote.
    """
    command = [sys.executable, "-m", f"worker.faces.networks.{module}", *arguments]
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_HOME": scratch,  # the user's keras.json must not decide what a network looks like
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and module
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{what} took longer than {_TIMEOUT_S} s; try again") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1].removeprefix("worker.errors.ModelError: ")
        if done.returncode < 0:
            last = f"its process was ended by {signal.Signals(-done.returncode).name}"
        raise ModelError(f"{what} failed: {last}")


def network_folder(builder: str, arguments: Mapping[str, Any], key: str, cache_dir: Path) -> Path:
    """Where the converted network lies, or will lie; arguments as for :func:`converted_network`."""
    # ``key`` stands for the weights themselves: where their file lies makes no difference.
    decisive = {name: value for name, value in arguments.items() if name not in ("weights", "paths")}
    known_as = _IDENTITIES.get(builder, builder)
    identity = json.dumps([known_as, decisive, key], sort_keys=True)
    name = f"{known_as.rpartition(':')[2]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return cache_dir / "networks" / name


def _is_intact(folder: Path) -> bool:
    try:
        digests: dict[str, str] = json.loads((folder / _DIGEST_FILE).read_text())
        return bool(digests) and all(sha256_of(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _convert(builder: str, wanted: Sequence[tuple[dict[str, Any], Path]]) -> None:
    parent = wanted[0][1].parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        jobs = [(arguments, str(Path(scratch) / folder.name)) for arguments, folder in wanted]
        run_apart("conversion", builder, json.dumps(jobs), what=f"converting {builder} for OpenVINO")
        for _, folder in wanted:
            made = Path(scratch) / folder.name
            digests = {file.name: sha256_of(file) for file in sorted(made.iterdir())}
            (made / _DIGEST_FILE).write_text(json.dumps(digests))
            _replace_folder(made, folder)


def _replace_folder(made: Path, folder: Path) -> None:
    """Moves ``made`` to ``folder``; if another process was quicker, its result stays: it is the same."""
    if folder.exists():
        folder.rename(made.parent / f"{made.name}-damaged")
    try:
        made.rename(folder)
    except OSError:
        if not _is_intact(folder):
            raise


def main(builder: str, jobs: str) -> None:
    """Runs in the process of its own: builds each network and writes its ``network.xml`` and ``.bin``."""
    # Keras imports it if it is there, only to draw: it takes a second, and makes a cache of fonts in the user's home.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    module, _, function = builder.partition(":")
    build = getattr(importlib.import_module(module), function)
    for arguments, folder in json.loads(jobs):
        Path(folder).mkdir()
        build(**arguments).export(str(Path(folder) / "network.xml"), format="openvino", verbose=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
