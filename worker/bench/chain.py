"""The whole worker against what the tutorials build: its speed on a 1080p file, its start and its memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import httpx
import numpy as np
import yaml

from worker.bench.agreement import ChainOutput, NamedSighting, Track, compare_outputs
from worker.bench.comparison import AnswerCheck, Row, Setup, compared, joined, unable
from worker.bench.contest import Results, UnableError, compete, environment
from worker.bench.material import REAL_MODEL_ID
from worker.bench.scraping import free_port, gauge
from worker.config import DetectionConfig
from worker.redis.embedded import embedded_redis

CHAIN_NAMES: Final = ("chain_1080p/tutorial", "chain_1080p_20px/tutorial")
START_NAMES: Final = ("start/first_frame", "memory/worker")
_UNIT: Final = "frames/s"
_TUTORIAL_FRAMES: Final = 4
_TUTORIAL_MIN_FACE_PX: Final = 20
CAMERAS: Final = 4
_DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.02


def measure_chain(setup: Setup) -> Iterator[Row]:
    """The worker as it ships, and the worker that searches for faces as small as the tutorial finds."""
    sizes = dict(zip(CHAIN_NAMES, (DetectionConfig().min_face_px, _TUTORIAL_MIN_FACE_PX), strict=True))
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
    """The row ``name`` from the measured ``results``, and from what ``runs`` (``every`` and ``fast``) found.

    ``problem`` says why there are no such runs, or what they leave out.
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


def judge(every: Mapping[str, Any], fast: Mapping[str, Any]) -> AnswerCheck:
    """Whether ``fast`` has all tracks and identities of the frame-by-frame run ``every``."""
    agreement = compare_outputs(_output(every), _output(fast))
    return AnswerCheck(agreement.complete and agreement.tracks > 0, str(agreement))


def _recorded(setup: Setup, min_face_px: int, redis_url: str) -> tuple[dict[str, Any] | None, str]:
    """What both chains find, with a model that recognises people, and a note on how it was found.

    Without such a model they use the random weights, and the names are left out because they mean nothing.
    """
    material = setup.material
    arguments = {"clip": str(material.clip), "redis_url": redis_url, "min_face_px": min_face_px}
    model: dict[str, Any]
    if material.real_problem:
        problem = f"tracks only: {material.real_problem}"
        model = {"gallery": str(material.gallery), "model": str(material.manifest),
                 "models_dir": str(material.manifest.parent)}  # fmt: skip
    else:
        problem = f"identities by {REAL_MODEL_ID}"
        model = {"gallery": str(material.real_gallery), "model": REAL_MODEL_ID,
                 "models_dir": str(material.models_dir) if material.models_dir else None}  # fmt: skip
    try:
        with closing(setup.start("worker.bench.ours:chain_runs", arguments | model)) as chains:
            runs = {name: chains.work(name).answer for name in ("every", "fast")}
    except UnableError as error:
        return None, f"agreement not measured: {error}"
    if material.real_problem:
        runs = {name: {"tracks": [[*track[:2], ""] for track in run["tracks"]], "sightings": []}
                for name, run in runs.items()}  # fmt: skip
    return runs, problem


def _output(document: Mapping[str, Any]) -> ChainOutput:
    tracks = tuple(
        Track(np.array(times), np.array(boxes, np.float32).reshape(-1, 4), identity)
        for times, boxes, identity in document["tracks"]
    )
    return ChainOutput(tracks, tuple(NamedSighting(*sighting) for sighting in document["sightings"]))


def measure_start(setup: Setup) -> Iterator[Row]:
    """The rows ``start/first_frame`` and ``memory/worker``, as far as they are wanted."""
    names = [name for name in START_NAMES if setup.wanted(name)]
    if not names:
        return
    with embedded_redis() as redis_url:
        starts_s, peaks_mb, problem = _tutorial(setup, redis_url)
        problem = f"tutorial: {problem}" if problem else ""
        if "start/first_frame" in names:
            yield _row("start/first_frame", "s", lambda: [first_frame_s(setup, redis_url) for _ in range(setup.rounds)],
                       starts_s, joined("caches warm; beside the tutorial's start", problem))  # fmt: skip
        if "memory/worker" in names:
            note = f"largest, with {CAMERAS} files of 1080p; beside the tutorial with one"
            yield _row("memory/worker", "MB", lambda: [peak_mb(setup, redis_url)], peaks_mb, joined(note, problem))


def _row(name: str, unit: str, measure_ours: Callable[[], list[float]], peer: list[float], note: str) -> Row:
    try:
        return compared(name, measure_ours(), peer, unit, note=note)
    except UnableError as error:
        return unable(name, unit, f"ours: {error}")


def first_frame_s(setup: Setup, redis_url: str) -> float:
    """Seconds from the start of ``facestream run`` until its metrics say that the first frame went through.

    The metrics are read every 20 ms, which is the precision of the result.

    Raises:
        UnableError: the worker ended before, or took longer than two minutes.
    """
    port = free_port()
    command = [*_command(setup, redis_url), "--source", str(setup.material.clip), "--metrics-port", str(port)]
    begun_s = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=subprocess.DEVNULL, stderr=said, env=environment()
        )
        try:
            while not _frames_done(port):
                if process.poll() is not None:
                    said.seek(0)
                    raise UnableError(f"the worker ended early: {said.read().decode(errors='replace')[-300:].strip()}")
                if time.perf_counter() - begun_s > _DEADLINE_S:
                    raise UnableError(f"no frame within {_DEADLINE_S:.0f} s")
                time.sleep(_POLL_S)
            return time.perf_counter() - begun_s
        finally:
            process.terminate()
            process.wait()


def peak_mb(setup: Setup, redis_url: str) -> float:
    """Largest resident memory in MB of a worker that reads the clip as four cameras.

    Raises:
        UnableError: the worker failed.
    """
    cameras = [{"id": f"camera-{number}", "source": str(setup.material.clip)} for number in range(1, CAMERAS + 1)]
    config = setup.material.frames.with_name("memory.yaml")
    config.write_text(yaml.safe_dump({"cameras": cameras, "metrics": {"host": "127.0.0.1", "port": 0}}))
    command = [*_command(setup, redis_url), "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UnableError(f"the worker ended with {process.returncode}")
    return usage.ru_maxrss / 1000


def _command(setup: Setup, redis_url: str) -> list[str]:
    material = setup.material
    return [
        sys.executable, "-m", "worker", "run", "--gallery", str(material.gallery), "--model", str(material.manifest),
        "--models-dir", str(material.manifest.parent), "--redis", redis_url, "--log-level", "warning",
    ]  # fmt: skip


def _frames_done(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        return gauge(url, "facestream_stage_duration_seconds_count", stage="track") >= 1
    except httpx.HTTPError:
        return False


def _tutorial(setup: Setup, redis_url: str) -> tuple[list[float], list[float], str]:
    """Of the tutorial: seconds to its first frame and its largest memory in MB for each turn, or why there are none."""
    material = setup.material
    arguments: dict[str, Any] = {
        "clip": str(material.clip),
        "manifest": str(material.manifest),
        "redis_url": redis_url,
        "people": material.people,
    }
    starts, peaks = [], []
    try:
        for _ in range(setup.rounds):
            begun_s = time.perf_counter()
            with closing(setup.start("worker.bench.peers:first_frame", arguments)) as process:
                starts.append(time.perf_counter() - begun_s)
                peaks.append(process.work("run").peak_mb)
    except UnableError as error:
        return [], [], str(error)
    return starts, peaks, ""
