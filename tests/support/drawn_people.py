"""People as directions, for what is said of many of them: no photos, no network."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def draw_faces(
    generator: np.random.Generator, people: int, photos: int, dimension: int = 12
) -> tuple[Vectors, NDArray[np.int64]]:
    """Unit vectors of people, some of whom look more like everybody than others do."""
    common = generator.exponential(0.5, (people, 1)) * np.eye(dimension)[0]
    centres = generator.normal(size=(people, dimension)) + common
    vectors = np.repeat(centres, photos, axis=0) + 0.3 * generator.normal(size=(people * photos, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), photos)
