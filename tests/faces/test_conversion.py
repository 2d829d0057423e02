"""Converted networks that lie in a user's cache are found again, wherever the code that made them has moved to."""

from pathlib import Path
from typing import Any

import pytest

from worker.faces.detectors.mtcnn import MTCNN_BUILDER
from worker.faces.embedding import IMPORT_BUILDER
from worker.faces.networks import BUILDERS, mtcnn
from worker.faces.networks.conversion import network_folder

INPUT: dict[str, Any] = {
    "side": 224, "channel_order": "bgr", "mean": [91.4953, 103.8827, 131.0912], "scale": [1.0, 1.0, 1.0],
}  # fmt: skip


# The names of the folders were made by version 0.1, in which the builders lay in worker.networks and worker.engines.
@pytest.mark.parametrize(
    ("builder", "arguments", "key", "folder"),
    [
        (MTCNN_BUILDER, {"part": "proposal"}, mtcnn.DEFINITION, "build-1dc1322f1f717e92"),
        (MTCNN_BUILDER, {"part": "refinement"}, mtcnn.DEFINITION, "build-5ef7c895c88530f8"),
        (MTCNN_BUILDER, {"part": "output"}, mtcnn.DEFINITION, "build-2f9d8c3ea815c823"),
        (BUILDERS["resnet50"], {**INPUT, "network": "resnet50"}, "k-1", "build-609a831a1d92ba39"),
        (BUILDERS["facenet"], {**INPUT, "network": "facenet"}, "k-1", "build-316258a567eb8860"),
        (BUILDERS["face_cnn"], {**INPUT, "network": "face_cnn"}, "k-1", "build-af3efbfa2cc53b19"),
        (IMPORT_BUILDER, {**INPUT, "layout": "nchw", "max_batch": None}, "k-1", "build-1f8cea3f719175eb"),
    ],
)
def test_a_network_that_an_earlier_version_converted_is_found_again(
    builder: str, arguments: dict[str, Any], key: str, folder: str, tmp_path: Path
) -> None:
    assert network_folder(builder, arguments, key, tmp_path) == tmp_path / "networks" / folder


def test_where_the_weights_lie_makes_no_difference(tmp_path: Path) -> None:
    here, there = (
        network_folder(BUILDERS["vgg16"], {**INPUT, "weights": place}, "k", tmp_path)
        for place in ("/a/w.h5", "/b/w.h5")
    )
    other = network_folder(BUILDERS["vgg16"], {**INPUT, "weights": "/a/w.h5"}, "other weights", tmp_path)
    assert here == there != other
