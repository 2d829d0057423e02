"""Who is in a photo: the stream's detection, alignment, embedding and decision, on one picture."""

import numpy as np

from worker.config import RecognitionConfig
from worker.faces.detection import FaceDetector, only_central
from worker.faces.embedding import FaceEmbedder
from worker.recognition import matching
from worker.types import Detections, Embeddings, Image, Match


def embed_faces(
    image: Image, detector: FaceDetector, embedder: FaceEmbedder, min_score: float = 0.9
) -> tuple[Detections, Embeddings]:
    """All faces of a photo with a detection score of at least ``min_score``, and their embeddings.

    Where there is none, the best of the others: a photo is more likely to show somebody than not, and enrolment takes
    such a face too.
    """
    (found,) = detector.detect([image])
    sure = found.scores >= min_score
    found = found.take(sure) if sure.any() else found.take(np.arange(len(found))[:1])
    return found, embedder.embed(embedder.align(image, found))


def identify_faces(embeddings: Embeddings, gallery: matching.People, threshold: float) -> list[Match]:
    """The open-set answer for each face; one photo is all the evidence there is."""
    config = RecognitionConfig(min_embeddings=1)
    return [
        matching.decide(
            candidate, config, threshold=threshold, evidence=1, gallery_version=gallery.version, previous=None
        )
        for candidate in gallery.search(embeddings)
    ]


def central_face(image: Image, detector: FaceDetector) -> Detections:
    """The face nearest the centre of ``image``: one detection, or none."""
    (found,) = detector.detect([image])
    return only_central(found, image)
