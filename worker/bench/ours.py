"""The contestants of facestream."""

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worker.bench.agreement import ChainOutput, run_chain
from worker.bench.contest import Work, private_mb
from worker.bench.material import query_vectors, rows_of, stored_vectors
from worker.config import Config, DetectionConfig, cache_dir, load_config
from worker.faces.detection import load_detector
from worker.faces.embedding import load_embedder
from worker.faces.manifests import load_manifest
from worker.gallery.index import PersonIndex
from worker.service.service import Service, Stopped
from worker.training.quantization import quantize_faces
from worker.types import Chips, Detections


def detectors(frames: str, variants: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Work]:
    """A work for each variant: all ``frames``, ``batch`` at a time, with the detection settings of the variant."""
    images = list(np.load(frames, mmap_mode=None))
    return {name: _detection(images, **dict(settings)) for name, settings in variants.items()}


def _detection(images: Sequence[Any], batch: int, count: int, **settings: Any) -> Work:
    detector = load_detector(DetectionConfig(**settings), cache_dir=cache_dir())
    images = images[:count]

    def detect() -> list[Detections]:
        found = []
        for first in range(0, len(images), batch):
            found += detector.detect(images[first : first + batch])
        return found

    return detect, lambda found: [rows_of(faces) for faces in found]


def embedders(chips: str, manifest: str, variants: Mapping[str, str], cache: Path | None = None) -> Mapping[str, Work]:
    """A work for each variant: all ``chips`` at once, in the precision of the variant."""
    return {name: _embedding(chips, manifest, precision, cache or cache_dir()) for name, precision in variants.items()}


def _embedding(chips: str, manifest: str, precision: str, cache: Path) -> Work:
    embedder = load_embedder(manifest, models_dir=Path(manifest).parent, cache_dir=cache, precision=precision)
    faces = Chips(np.load(chips), "rgb")
    return lambda: embedder.embed(faces), lambda embeddings: embeddings.vectors.astype(float).tolist()


def quantized(chips: str, manifest: str) -> Mapping[str, Work]:
    """The network in INT8, for its speed. Its ranges come from the same ``chips``, so its accuracy says nothing."""
    faces = np.load(chips)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        path = quantize_faces(
            load_manifest(manifest), faces, output, models_dir=Path(manifest).parent, cache_dir=cache_dir()
        )
        # Not the common cache: the digests differ in every run, so nothing there would be used again.
        return embedders(chips, str(path), {"int8": "auto"}, output)


def chain(clip: str, gallery: str, model: str, models_dir: str, redis_url: str, min_face_px: int) -> Mapping[str, Work]:
    """The whole worker on the clip, from the file to the events in Redis."""
    config = chain_config([clip], gallery, model, models_dir, redis_url, min_face_px)

    def run() -> Stopped:
        return Service(config).run()

    def describe(stopped: Stopped) -> dict[str, Any]:
        if stopped.errors:
            raise stopped.errors[0]
        summary = stopped.summary
        return {"fps": summary.frames / summary.duration_s, "frames": summary.frames, "tracks": summary.tracks}

    return {"run": (run, describe)}


def chain_config(
    clips: Sequence[str], gallery: str, model: str, models_dir: str | None, redis_url: str, min_face_px: int
) -> Config:
    """The configuration of a worker on ``clips``, with nothing changed that a user would have to know."""
    return load_config(
        None,
        {
            "cameras": [{"id": f"camera-{number}", "source": clip} for number, clip in enumerate(clips, start=1)],
            "gallery": gallery,
            "model": model,
            "models_dir": models_dir,
            "redis": {"url": redis_url, "stream": "facestream:bench"},
            "detection": {"min_face_px": min_face_px},
            "metrics": {"enabled": False},
            "log": {"level": "warning"},
        },
    )


def chain_runs(
    clip: str, gallery: str, model: str, models_dir: str | None, redis_url: str, min_face_px: int
) -> Mapping[str, Work]:
    """What the worker finds in the clip as it ships (``fast``), and if it searches every frame (``every``)."""
    fast = chain_config([clip], gallery, model, models_dir, redis_url, min_face_px)
    cameras = tuple(camera.model_copy(update={"policy": "every"}) for camera in fast.cameras)
    nothing_left_out = {
        "interval_s": 0.0, "settled_interval_s": 0.0, "search_interval_s": 0.0, "motion_gate": False,
    }  # fmt: skip
    detection = fast.detection.model_copy(update=nothing_left_out)
    every = fast.model_copy(update={"cameras": cameras, "detection": detection})
    return {
        "fast": (lambda: run_chain(fast), _describe_output),
        "every": (lambda: run_chain(every), _describe_output),
    }


def _describe_output(run: ChainOutput) -> dict[str, Any]:
    return {
        "tracks": [
            [track.times_s.tolist(), track.boxes.astype(float).tolist(), track.identity] for track in run.tracks
        ],
        "sightings": [[sighting.identity, sighting.start_s, sighting.end_s] for sighting in run.sightings],
    }


def search(folder: str, people: int, samples: int, queries: int) -> Mapping[str, Work]:
    """The index of the worker, of ``people`` with ``samples`` vectors each. It gets one query at a time."""
    blocks = stored_vectors(Path(folder), people, samples)
    importlib.import_module("worker.gallery.codes")  # with FAISS, which the other side has loaded by now, too
    before_mb = private_mb()
    index = PersonIndex(blocks, np.repeat(np.arange(people), samples))
    asked, threads = query_vectors(people, samples, queries), len(os.sched_getaffinity(0))

    def ask() -> list[list[float]]:
        answers = [index.search(asked[row : row + 1], threads=threads) for row in range(len(asked))]
        return [[float(who[0, 0]), float(similarity[0, 0])] for who, similarity in answers]

    def describe(found: list[list[float]]) -> dict[str, Any]:
        return {
            "found": found,
            "memory_mb": private_mb() - before_mb,
            "kind": index.representation,
        }

    return {"query": (ask, describe)}
