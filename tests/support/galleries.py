"""What tests enrol in a gallery and look up in it: every number stands for a face."""

import hashlib

import numpy as np

from worker.gallery.contents import NewSample
from worker.types import Embeddings

MODEL, DIGEST, DIMENSION = "tiny", "digest-1", 8


def vector(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=DIMENSION)
    return (made / np.linalg.norm(made)).astype(np.float32)


def sample(name: str, seed: int) -> NewSample:
    return NewSample(name, vector(seed), f"{seed}.jpg", hashlib.sha256(str(seed).encode()).hexdigest(), quality=0.5)


def probe(*seeds: int, model_id: str = MODEL) -> Embeddings:
    return Embeddings(np.stack([vector(seed) for seed in seeds]), model_id)
