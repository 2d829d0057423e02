"""Makes a model in INT8. It is a model of its own, with a manifest and digests; its threshold should be fitted anew."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.faces import alignment
from worker.faces.detection import FaceDetector, only_central
from worker.faces.embedding import FaceEmbedder, openvino_file
from worker.faces.manifests import Manifest
from worker.faces.weights import sha256_of
from worker.files import writing
from worker.logs import get_logger
from worker.video.photos import read_photo

FEWEST_FACES: Final = 64
MOST_FACES: Final = 512

_log = get_logger(__name__)


def quantize_model(
    embedder: FaceEmbedder,
    detector: FaceDetector,
    photos: Iterable[Path],
    output: Path,
    *,
    models_dir: Path | None,
    cache_dir: Path,
) -> Path:
    """Writes the model of ``embedder`` in INT8 to the folder ``output``; returns its manifest.

    The ranges of the activations come from the faces of ``photos``: at most 512 of them, and at least 64.

    Raises:
        SourceError: the photos show too few faces.
        ModelError: the model is not one that OpenVINO runs, or cannot be quantised.
        OutputError: ``output`` cannot be made.
    """
    chips = []
    for path in photos:
        try:
            image = read_photo(path)
        except SourceError as error:
            _log.warning("photo is left out", reason=str(error))
            continue
        face = only_central(detector.detect([image])[0], image)
        if len(face):
            chips.append(embedder.align(image, face).images)
        if len(chips) == MOST_FACES:
            break
    if len(chips) < FEWEST_FACES:
        raise SourceError(f"{len(chips)} faces found, at least {FEWEST_FACES} are needed: give more photos of people")
    faces = alignment.without_border(np.concatenate(chips).astype(np.uint8, copy=False), embedder.border_px)
    return quantize_faces(embedder.manifest, faces, output, models_dir=models_dir, cache_dir=cache_dir)


def quantize_faces(
    manifest: Manifest, faces: NDArray[np.uint8], output: Path, *, models_dir: Path | None, cache_dir: Path
) -> Path:
    """Like :func:`quantize_model`, from ``faces`` that are cut out already: uint8 RGB chips (n, side, side, 3), n >= 8.

    Raises:
        ModelError: NNCF is missing, or the model is not one that OpenVINO runs, or cannot be quantised.
        OutputError: ``output`` cannot be made.
    """
    from worker.faces.engines.openvino import quantize

    network = openvino_file(manifest, models_dir, cache_dir)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    name = f"{manifest.id}-int8"
    files = [output / f"{name}.xml", output / f"{name}.bin"]
    quantize(network, faces, files[0])
    document = {
        "id": name,
        "description": f"{manifest.description}, INT8 by post-training quantisation on {len(faces)} faces",
        "format": "openvino",
        "files": [{"name": file.name, "sha256": sha256_of(file), "size": file.stat().st_size} for file in files],
        "licence": manifest.licence,
        "source": manifest.source,
        "input": {"side": manifest.input.side, "channel_order": "rgb", "layout": "nhwc"},
        "alignment": manifest.alignment.model_dump(mode="json"),
        "dimension": manifest.dimension,
        "threshold": manifest.threshold,
        "threshold_fitted_on": f"{manifest.threshold_fitted_on}, before quantisation",
    }
    path = output / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
