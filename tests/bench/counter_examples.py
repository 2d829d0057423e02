"""When is a face not the person whose name a stranger got before? Rules compared on Labeled Faces in the Wild.

    python -m tests.bench.counter_examples LFW_DIR --model ID [--models-dir DIR]

Half of the people are enrolled. Each of the others is a stranger; where one is named, the face becomes a
counter-example. Then the stranger's other photos show how often the name comes again, and the other photos of the
person with that name show how often it is missed. "camera" probes and counter-examples are photos made small, blurred,
dark and noisy; the enrolled photos are not.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from worker.cli.options import open_embedder, photo_detector
from worker.faces.detection import only_central
from worker.types import Image, Vectors
from worker.video.photos import read_photo

RULES: Final[dict[str, Callable[[float, float, float], bool]]] = {
    "none": lambda _counter, _own, _threshold: False,
    "counter >= own": lambda counter, own, _threshold: counter >= own,
    "counter >= own - 0.05": lambda counter, own, _threshold: counter >= own - 0.05,
    "counter >= own + 0.05": lambda counter, own, _threshold: counter >= own + 0.05,
    "counter >= threshold": lambda counter, _own, threshold: counter >= threshold,
}
"""Whether a face is denied the name: cosines to the counter-example and to the person's nearest sample; threshold."""
MOST_PHOTOS: Final = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    given = parser.parse_args()
    names, kinds, threshold = embed(given.lfw, given.model, given.models_dir)
    for samples in (1, 2):
        for kind, probes in kinds.items():
            compare(names, kinds["clean"], probes, samples, threshold, kind)


def embed(lfw: Path, model: str, models_dir: Path | None) -> tuple[np.ndarray, dict[str, Vectors], float]:
    """The names of all photos of people with two or more, their vectors as they are and as a camera would see them, and
    the model's threshold."""
    embedder, detector = open_embedder(model, models_dir), photo_detector()
    random = np.random.default_rng(0)
    folders = sorted(lfw.glob("images/*"))
    paths = [path for folder in folders for path in several(folder)]
    names, clean, camera = [], [], []
    for start in range(0, len(paths), 16):
        some = paths[start : start + 16]
        images = [read_photo(path) for path in some]
        for path, image, found in zip(some, images, detector.detect(images), strict=True):
            face = only_central(found, image)
            if not len(face):
                continue
            names.append(path.parent.name)
            clean.append(embedder.embed(embedder.align(image, face)).vectors[0])
            camera.append(embedder.embed(embedder.align(spoilt(image, random), face)).vectors[0])
    return np.array(names), {"clean": np.array(clean), "camera": np.array(camera)}, embedder.threshold


def several(folder: Path) -> list[Path]:
    photos = sorted(folder.glob("*.jpg"))[:MOST_PHOTOS]
    return photos if len(photos) > 1 else []


def spoilt(image: Image, random: np.random.Generator) -> Image:
    """The picture as a camera far away would send it, at its old size."""
    height, width = image.shape[:2]
    scale = random.uniform(0.28, 0.45)
    small = cv2.resize(image, (int(width * scale), int(height * scale)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), random.uniform(0.4, 0.9))
    noisy = small * random.uniform(0.6, 1.0) + random.normal(0, 4, small.shape)
    _, jpeg = cv2.imencode(".jpg", np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 45])
    sent = cv2.imdecode(np.frombuffer(jpeg.tobytes(), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.resize(sent, (width, height)), np.uint8)


def compare(names: np.ndarray, enrolled: Vectors, probes: Vectors, samples: int, threshold: float, kind: str) -> None:
    people = np.unique(names)
    np.random.default_rng(1).shuffle(people)
    half = len(people) // 2
    rows = {name: np.flatnonzero(names == name) for name in people}
    known = [(name, row) for name in people[:half] if len(rows[name]) > samples for row in rows[name][:samples]]
    owners, gallery = np.array([name for name, _ in known]), enrolled[[row for _, row in known]]

    def nearest(row: int) -> tuple[str, float]:
        cosines = gallery @ probes[row]
        return str(owners[cosines.argmax()]), float(cosines.max())

    def cosines(name: str, counter: int, others: np.ndarray) -> Iterator[tuple[float, float]]:
        """Of those ``others`` that get the name: to the counter-example, and to the person."""
        for row in others:
            who, own = nearest(row)
            if who == name and own >= threshold:
                yield float(probes[counter] @ probes[row]), own

    first = [(name, rows[name][0], *nearest(rows[name][0])) for name in people[half:]]
    wrong = [(stranger, row, name) for stranger, row, name, cosine in first if cosine >= threshold]
    again = [pair for stranger, row, name in wrong for pair in cosines(name, row, rows[stranger][1:])]
    right = [pair for _, row, name in wrong for pair in cosines(name, row, rows[name][samples:])]
    head = f"{samples} sample(s), {kind} probes, threshold {threshold:.2f}"
    sys.stdout.write(f"{head}: {len(wrong)} of {len(first)} strangers named\n")
    for rule, denies in RULES.items():
        strangers = sum(not denies(counter, own, threshold) for counter, own in again)
        themselves = sum(not denies(counter, own, threshold) for counter, own in right)
        sys.stdout.write(f"  {rule:<22} stranger named so again {strangers:>4}  person still named {themselves:>4}\n")


if __name__ == "__main__":
    main()
