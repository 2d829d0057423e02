"""The worker as it ships, beside the chain that searches every frame: the same tracks, the same people."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.ground_truth import make_ground_truth_clip
from worker.bench.agreement import (
    Agreement,
    ChainOutput,
    Track,
    compare_outputs,
    run_chain,
)
from worker.boxes import clip as clip_boxes
from worker.boxes import expand
from worker.config import load_config
from worker.faces.detection import load_detector
from worker.faces.embedding import load_embedder
from worker.gallery.enrolment import enroll_photos
from worker.gallery.folder import FolderGallery
from worker.types import Image
from worker.video.clips import ClipWriter, open_clip
from worker.video.drawing import save_picture

pytestmark = pytest.mark.data
MODEL = "face-reidentification-retail-0095"


class Chain:
    """Runs of the worker on clips of ``data``, with people enrolled as photos of ``folder`` say."""

    def __init__(self, data: Path, folder: Path, cache: Path, redis_url: str) -> None:
        self.data, self.folder, self.redis_url = data, folder, redis_url
        self.cache = cache
        self.gallery: Path | None = None

    def enroll(self, photos: Path) -> int:
        """Returns how many people were taken in."""
        models = self.data / "models"
        embedder = load_embedder(MODEL, models_dir=models, cache_dir=self.cache)
        self.gallery = self.folder / "gallery"
        gallery = FolderGallery.create(self.gallery, MODEL, embedder.preprocessing_digest, embedder.dimension)
        detector = load_detector(load_config().detection, cache_dir=self.cache)
        for _ in enroll_photos(photos, gallery, detector, embedder):
            pass
        return len(gallery)

    def run(self, clip: Path, policy: str = "auto", **detection: Any) -> ChainOutput:
        gallery = {"gallery": str(self.gallery)} if self.gallery else {"model": MODEL}
        overrides = {
            "cameras": [{"id": "clip", "source": str(clip), "policy": policy}],
            "models_dir": str(self.data / "models"),
            "redis": {"url": self.redis_url},
            "detection": detection,
            "metrics": {"enabled": False},
            "history": {"enabled": False},
        }
        return run_chain(load_config(None, overrides | gallery))


@pytest.fixture
def chain(test_data: Path, tmp_path: Path, shared_cache: Path, redis_url: str) -> Chain:
    return Chain(test_data, tmp_path, shared_cache, redis_url)


def assert_agrees(reference: ChainOutput, fast: ChainOutput) -> Agreement:
    agreement = compare_outputs(reference, fast)
    assert agreement.complete, str(agreement)
    assert not agreement.added_tracks
    return agreement


def searched(run: ChainOutput) -> int:
    return run.summary.frames - sum(run.summary.skipped.values())


@pytest.mark.slow
def test_a_crowd_is_seen_as_by_the_chain_that_searches_every_frame(chain: Chain, test_data: Path) -> None:
    clip = test_data / "video" / "crowd_1080p.mp4"
    strangers = chain.run(clip)
    enrolment_photos(clip, strangers.tracks, chain.folder / "people", 6)
    assert chain.enroll(chain.folder / "people") >= 5
    reference = chain.run(clip, "every")
    fast = chain.run(clip)
    agreement = assert_agrees(reference, fast)
    assert agreement.tracks >= 8
    assert agreement.identities >= 5
    assert searched(reference) == reference.summary.frames
    assert searched(fast) < 0.6 * fast.summary.frames


@pytest.mark.parametrize("name", ["walking.gif", "two_heads.gif"])
def test_cctv_clips_lose_no_track(chain: Chain, test_data: Path, name: str) -> None:
    clip = test_data / "video" / name
    assert assert_agrees(chain.run(clip, "every"), chain.run(clip)).tracks == 2


@pytest.mark.slow
def test_known_visitors_are_seen_with_the_motion_gate_and_without(chain: Chain, test_data: Path) -> None:
    truth = make_ground_truth_clip(test_data / "lfw_dev", chain.folder, enrolled=3, strangers=1, seed=1)
    assert chain.enroll(truth.enroll_folder) == 3
    reference = chain.run(truth.clip, "every")
    gated, open_gate = chain.run(truth.clip), chain.run(truth.clip, motion_gate=False)
    assert assert_agrees(reference, gated).identities >= 3
    assert_agrees(reference, open_gate)
    assert gated.summary.skipped.get("no_motion", 0) > 0
    assert "no_motion" not in open_gate.summary.skipped


def test_an_empty_place_costs_few_searches_and_stays_empty(chain: Chain, test_data: Path) -> None:
    clip = test_data / "video" / "one_by_one_no_faces.mp4"
    short = chain.folder / "short.mp4"
    first_seconds(clip, short, frames=150)
    gated, open_gate = chain.run(short), chain.run(short, motion_gate=False)
    assert compare_outputs(open_gate, gated).complete
    assert compare_outputs(gated, open_gate).complete
    assert searched(gated) <= searched(open_gate)


def enrolment_photos(clip: Path, tracks: Sequence[Track], folder: Path, people: int) -> None:
    """Cuts photos of the people to enrol out of ``clip``.

    Each of the ``people`` longest of ``tracks`` gives two photos, an early and a late one, in a folder of its own
    below ``folder``. Enrolment decides later which photos are good enough.
    """
    longest = sorted(tracks, key=lambda track: len(track.times_s), reverse=True)[:people]
    wanted: dict[int, list[tuple[Path, NDArray[np.float32]]]] = defaultdict(list)
    with open_clip(clip) as reader:
        for number, track in enumerate(longest, start=1):
            for place in (0.3, 0.8):
                index = round(place * (len(track.times_s) - 1))
                photo = folder / f"person {number}" / f"{int(100 * place)}.png"
                wanted[round(float(track.times_s[index]) * float(reader.fps))].append((photo, track.boxes[index]))
        for frame, picture in enumerate(reader):
            for photo, box in wanted.get(frame, ()):
                photo.parent.mkdir(parents=True, exist_ok=True)
                save_picture(portrait(picture, box), photo)


def portrait(picture: Image, box: NDArray[np.float32]) -> Image:
    """The face, and on every side half its size of what is around it."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = clip_boxes(expand(box[None], 2.0), width, height)[0].round().astype(int).tolist()
    return np.ascontiguousarray(picture[y1:y2, x1:x2])


def first_seconds(clip: Path, target: Path, frames: int) -> None:
    with open_clip(clip) as reader, ClipWriter(target, reader.size, reader.fps) as writer:
        for _, picture in zip(range(frames), reader, strict=False):
            writer.write(picture)
