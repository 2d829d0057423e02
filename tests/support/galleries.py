"""What tests enrol in a gallery and look up in it: every number stands for a face."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.postgres import with_tables
from worker.gallery.contents import NewSample
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.types import Embeddings

MODEL, DIGEST, DIMENSION = "tiny", "digest-1", 8


def vector(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=DIMENSION)
    return (made / np.linalg.norm(made)).astype(np.float32)


def sample(name: str, seed: int) -> NewSample:
    return NewSample(name, vector(seed), f"{seed}.jpg", hashlib.sha256(str(seed).encode()).hexdigest(), quality=0.5)


def probe(*seeds: int, model_id: str = MODEL) -> Embeddings:
    return Embeddings(np.stack([vector(seed) for seed in seeds]), model_id)


def made_gallery(request: pytest.FixtureRequest, folder: Path) -> Gallery:
    """An empty gallery where the fixture's parameter says: in ``folder`` ("folder") or in a database ("database")."""
    if request.param == "folder":
        return FolderGallery.create(folder, MODEL, DIGEST, DIMENSION)
    return DatabaseGallery.create(with_tables(request.getfixturevalue("postgres_url")), MODEL, DIGEST, DIMENSION)
