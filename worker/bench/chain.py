"""The whole chain, from a 1080p file to events in Redis, against what the tutorials build."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from worker.bench.agree import Verdict
from worker.bench.agreement import Run, Track, Visit, compare_runs
from worker.bench.comparison import Setup
from worker.bench.contest import Results, UnableError, compete
from worker.bench.material import REAL_MODEL_ID
from worker.bench.rows import Row, compared, joined, unable
from worker.config import DetectionConfig
from worker.redis.embedded import embedded_redis

NAMES: Final = ("chain_1080p/tutorial", "chain_1080p_20px/tutorial")
_UNIT: Final = "frames/s"
_TUTORIAL_FRAMES: Final = 4
_TUTORIAL_MIN_FACE_PX: Final = 20


def measure(setup: Setup) -> Iterator[Row]:
    """The worker as it ships, and looking for faces as small as the tutorial finds."""
    sizes = dict(zip(NAMES, (DetectionConfig().min_face_px, _TUTORIAL_MIN_FACE_PX), strict=True))
    wanted = {name: min_face_px for name, min_face_px in sizes.items() if setup.wanted(name)}
    if not wanted:
        return
    material = setup.material
    with embedded_redis() as redis_url:
        common = {"clip": str(material.clip), "redis_url": redis_url}
        ours = {
            "gallery": str(material.gallery),
            "model": str(material.manifest),
            "models_dir": str(material.manifest.parent),
        }
        tutorial = {"manifest": str(material.manifest), "frames": _TUTORIAL_FRAMES, "people": material.people}
        contestants: dict[str, tuple[str, Mapping[str, Any]]] = {
            f"{min_face_px}px": ("worker.bench.ours:chain", common | ours | {"min_face_px": min_face_px})
            for min_face_px in wanted.values()
        }
        contestants["tutorial"] = ("worker.bench.peers:tutorial", common | tutorial)
        works = [f"{name}/run" for name in contestants]
        results = compete(contestants, works, setup.rounds, start=setup.start)
        for name, min_face_px in wanted.items():
            yield row(name, min_face_px, results, *_recorded(setup, min_face_px, redis_url))


def row(name: str, min_face_px: int, results: Results, runs: Mapping[str, Any] | None, problem: str) -> Row:
    """The row ``name`` from what was measured, and from what ``runs`` (``every`` and ``fast``) saw.

    ``problem``: why there are no such runs, or what they leave out.
    """
    if why := results.problem(f"{min_face_px}px"):
        return unable(name, _UNIT, f"ours: {why}")
    verdict = judge(runs["every"], runs["fast"]) if runs else None
    ours = [outcome.answer["fps"] for outcome in results.outcomes[f"{min_face_px}px/run"]]
    peer = [1 / seconds for seconds in results.seconds("tutorial/run", per=_TUTORIAL_FRAMES)]
    note = joined(
        f"faces from {min_face_px} px",
        f"tutorial: {results.problem('tutorial')}" if results.problem("tutorial") else "",
        f"beside the frame-by-frame chain: {verdict.text}" if verdict else "",
        problem,
    )
    return compared(name, ours, peer, _UNIT, more_is_better=True, agree=verdict.agree if verdict else None, note=note)


def judge(every: Mapping[str, Any], fast: Mapping[str, Any]) -> Verdict:
    """Whether ``fast`` has every track and every identity that the frame-by-frame run ``every`` has."""
    agreement = compare_runs(_run(every), _run(fast))
    return Verdict(agreement.complete and agreement.tracks > 0, str(agreement))


def _recorded(setup: Setup, min_face_px: int, redis_url: str) -> tuple[dict[str, Any] | None, str]:
    """What both chains see, with a model that recognises; else with the random weights, whose names tell nothing."""
    material = setup.material
    arguments = {"clip": str(material.clip), "redis_url": redis_url, "min_face_px": min_face_px}
    model: dict[str, Any]
    if material.real_problem:
        problem = f"tracks only, for {material.real_problem}"
        model = {"gallery": str(material.gallery), "model": str(material.manifest),
                 "models_dir": str(material.manifest.parent)}  # fmt: skip
    else:
        problem = f"identities by {REAL_MODEL_ID}"
        model = {"gallery": str(material.real_gallery), "model": REAL_MODEL_ID,
                 "models_dir": str(material.models_dir) if material.models_dir else None}  # fmt: skip
    try:
        chains = setup.start("worker.bench.ours:chain_runs", arguments | model)
        try:
            runs = {name: chains.work(name).answer for name in ("every", "fast")}
        finally:
            chains.close()
    except UnableError as error:
        return None, f"agreement not measured: {error}"
    if material.real_problem:
        runs = {name: {"tracks": [[*track[:2], ""] for track in run["tracks"]], "visits": []}
                for name, run in runs.items()}  # fmt: skip
    return runs, problem


def _run(document: Mapping[str, Any]) -> Run:
    tracks = tuple(
        Track(np.array(times), np.array(boxes, np.float32).reshape(-1, 4), identity)
        for times, boxes, identity in document["tracks"]
    )
    return Run(tracks, tuple(Visit(*visit) for visit in document["visits"]))
