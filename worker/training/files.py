"""The files of a training besides the classifier itself: its network, and the faces it was trained with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from worker.errors import GalleryError, SinkError
from worker.gallery.classifier import DESCRIPTION_FILE
from worker.training.cnn import CHECKPOINT_FILE
from worker.training.dataset import Photo

CNN_ENLARGE: Final = 1.3
"""The box is enlarged by this before it is cut out for the network: a face with its outline."""
FILES: Final = frozenset(
    {DESCRIPTION_FILE, CHECKPOINT_FILE, "report.json", "report.md", "confusion.png", "learning.png"}
)
"""What a training writes, besides files named after their digest."""


@dataclass(slots=True)
class Embedded:
    """Photos with their vectors (n, d), and their chips where they are kept."""

    photos: list[Photo]
    vectors: NDArray[np.float32]
    chips: list[NDArray[np.uint8]]


def require_own_folder(output: Path) -> None:
    """Raises GalleryError unless the folder ``output`` is new, empty, or of an earlier training."""
    if output.exists() and not output.is_dir():
        raise GalleryError(f"{output} is a file; a classifier is a folder")
    ours = ("arrays-", "cnn-", "checkpoint.npz", f"{DESCRIPTION_FILE}.")
    if output.is_dir():
        for entry in output.iterdir():
            if entry.name not in FILES and not entry.name.startswith(ours):
                raise GalleryError(f"{output} holds other things ({entry.name}); choose another folder (--output)")


def write_network(output: Path, weights: dict[str, Any], threshold: float) -> Path:
    """Writes the arrays of a face network, and the manifest that makes an embedder of them; returns the manifest.

    Raises:
        GalleryError: they cannot be written.
    """
    from worker.faces.networks.face_cnn import DIMENSION, SIDE, write_weights
    from worker.faces.weights import sha256_of

    try:
        output.mkdir(parents=True, exist_ok=True)
        draft = output / "cnn-draft.h5"
        write_weights(weights, draft)
        digest = sha256_of(draft)
        model_id = f"cnn-{digest[:12]}"
        draft.replace(output / f"{model_id}.h5")
        manifest = {
            "id": model_id,
            "description": "a face network trained with 'facestream train cnn'",
            "format": "h5",
            "network": "face_cnn",
            "files": [{"name": f"{model_id}.h5", "sha256": digest}],
            "licence": "that of the photos it was trained with",
            "source": "trained on this machine",
            "input": {"side": SIDE, "channel_order": "rgb", "layout": "nhwc"},
            "alignment": {"kind": "box", "enlarge": CNN_ENLARGE, "shorter_side": SIDE},
            "dimension": DIMENSION,
            "threshold": min(max(threshold, -0.99), 0.99),
            "threshold_fitted_on": "people held out of the training",
        }
        path = output / f"{model_id}.yaml"
        path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise GalleryError(f"classifier {output} cannot be written: {error.strerror or error}") from None
    return path


def drop_old_networks(output: Path, model_id: str) -> None:
    """Removes the networks of earlier trainings."""
    for old in output.glob("cnn-*"):
        if old.stem != model_id:
            old.unlink(missing_ok=True)


def write_npz(path: Path, trained: Embedded, tested: Embedded) -> None:
    """Writes ``train_faces``, ``train_embeddings``, ``train_names``, and the same of ``test``, without pickle.

    Raises:
        SinkError: the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    for name, found in (("train", trained), ("test", tested)):
        faces = np.concatenate(found.chips) if found.chips else np.empty((0, 0, 0, 3), np.uint8)
        names = np.array([photo.name for photo in found.photos], dtype=np.str_)
        arrays |= {f"{name}_faces": faces, f"{name}_embeddings": found.vectors, f"{name}_names": names}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from None
