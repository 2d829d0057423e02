"""Footage with known answers: people of Labeled Faces in the Wild pass a camera, some of them enrolled.

Of each enrolled person one photo is for enrolment and another one is shown; strangers are other people.
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.demo.footage import cut_out, paint
from worker.types import Image
from worker.video.clips import ClipWriter
from worker.video.photos import read_photo

SIZE: Final = (1280, 720)
FPS: Final = 25
_LANES: Final = 3
# The face in the aligned photos of 250 x 250 px: medians of YuNet's boxes on 120 of them.
_FACE: Final = (78.0, 67.0, 172.0, 190.0)
_FACE_CENTRE: Final = (125.0, 128.0)
_HEAD_CENTRE: Final = (125, 118)
_HEAD_AXES: Final = (62, 86)
# A track that is lost goes on for a second with the next face near its end. People come and go in no time here, so that
# nobody may turn up where somebody else has just vanished: no camera sees that.
_GAP_FRAMES: Final = round(1.2 * FPS)
_GAP_FACES: Final = 2.5
# The photos under this name show two different men: whoever is enrolled, no answer about the other could be right.
_LEFT_OUT: Final = frozenset({"Jim_OBrien"})


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's time in front of the camera. ``boxes`` maps frame numbers to the face's x1, y1, x2, y2 px."""

    name: str
    enrolled: bool
    start_s: float
    end_s: float
    boxes: dict[int, tuple[float, float, float, float]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """``enroll_folder`` holds one folder for each enrolled person, with one photo that the clip does not show."""

    clip: Path
    enroll_folder: Path
    json_path: Path
    frames: int
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class _Walk:
    name: str
    enrolled: bool
    figure: NDArray[np.uint8]
    first_frame: int
    face_px: tuple[float, float]
    path: tuple[tuple[float, float], tuple[float, float]]
    brightness: tuple[float, float]
    tilt_deg: float
    frames: int

    def placing(self, frame: int) -> tuple[float, float, float]:
        """x, y of the face's centre in px, and the scale, in ``frame``."""
        progress = (frame - self.first_frame) / self.frames
        (x1, y1), (x2, y2) = self.path
        face_px = self.face_px[0] + progress * (self.face_px[1] - self.face_px[0])
        bob = 4 * abs(np.sin(2 * np.pi * (frame - self.first_frame) / FPS))
        return x1 + progress * (x2 - x1), y1 + progress * (y2 - y1) + bob, face_px / (_FACE[2] - _FACE[0])

    def box(self, frame: int) -> tuple[float, float, float, float]:
        x, y, scale = self.placing(frame)
        (cx, cy), (x1, y1, x2, y2) = _FACE_CENTRE, _FACE
        return (
            round(x + (x1 - cx) * scale, 1), round(y + (y1 - cy) * scale, 1),
            round(x + (x2 - cx) * scale, 1), round(y + (y2 - cy) * scale, 1),
        )  # fmt: skip


def make_ground_truth_clip(
    lfw_folder: Path,
    folder: Path,
    *,
    enrolled: int = 8,
    strangers: int = 8,
    seed: int = 0,
    face_px: tuple[float, float] = (60.0, 160.0),
    visit_s: tuple[float, float] = (2.0, 4.0),
) -> GroundTruth:
    """Writes ``clip.mp4``, ``enroll/<Name>/<photo>.jpg`` and ``truth.json`` into ``folder``.

    The same seed gives the same clip. Up to three people are visible at a time and never overlap; each is seen once.

    Args:
        lfw_folder: the folder with ``images/Name/Name_0001.jpg``.
        enrolled: people in the gallery who pass; strangers: people who are not in it.
        face_px: least and greatest width of a face.
        visit_s: least and greatest length of a visit.
    """
    chance = random.Random(seed)
    folders = (path for path in (lfw_folder / "images").iterdir() if path.is_dir())
    people = sorted(path for path in folders if path.name not in _LEFT_OUT)
    several = [path for path in people if len(list(path.glob("*.jpg"))) >= 2]
    known = chance.sample(several, enrolled)
    unknown = chance.sample([path for path in people if path not in set(known)], strangers)
    shown: list[tuple[Path, bool]] = []
    for person in known:
        photo, probe = chance.sample(sorted(person.glob("*.jpg")), 2)
        target = folder / "enroll" / person.name / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, target)
        shown.append((probe, True))
    shown += [(chance.choice(sorted(person.glob("*.jpg"))), False) for person in unknown]
    chance.shuffle(shown)

    walks = _schedule(shown, chance, face_px, visit_s)
    frames = max((walk.first_frame + walk.frames for walk in walks), default=0) + FPS
    clip = folder / "clip.mp4"
    with ClipWriter(clip, SIZE, Fraction(FPS)) as writer:
        for picture in _pictures(walks, frames, seed):
            writer.write(picture)
    visits = tuple(_visit(walk) for walk in sorted(walks, key=lambda walk: walk.first_frame))
    json_path = folder / "truth.json"
    json_path.write_text(json.dumps({"fps": FPS, "frames": frames, "visits": [asdict(v) for v in visits]}))
    return GroundTruth(clip, folder / "enroll", json_path, frames, visits)


def _schedule(
    shown: list[tuple[Path, bool]], chance: random.Random, face_px: tuple[float, float], visit_s: tuple[float, float]
) -> list[_Walk]:
    lane_width = SIZE[0] / _LANES
    free_at = [chance.randrange(FPS) for _ in range(_LANES)]
    walks: list[_Walk] = []
    for photo, is_enrolled in shown:
        lane = free_at.index(min(free_at))
        frames = round(chance.uniform(*visit_s) * FPS)
        sizes = (chance.uniform(*face_px), chance.uniform(*face_px))
        reach = max(sizes) / (_FACE[2] - _FACE[0]) * np.array(_HEAD_AXES) + 12
        x_range = (lane * lane_width + reach[0], (lane + 1) * lane_width - reach[0])
        y_range = (reach[1], SIZE[1] - reach[1])
        start = (chance.uniform(*x_range), chance.uniform(*y_range))
        # A walking pace: at most 70 px a second, so that a path never crosses the lane in one stride.
        step = 70 * frames / FPS
        end = tuple(
            float(np.clip(value + chance.uniform(-step, step), low, high))
            for value, (low, high) in zip(start, (x_range, y_range), strict=True)
        )
        first_frame = _undisturbed(free_at[lane], start, max(sizes), walks)
        walks.append(
            _Walk(
                photo.parent.name,
                is_enrolled,
                _figure(read_photo(photo)),
                first_frame,
                sizes,
                (start, (end[0], end[1])),
                (chance.uniform(0.85, 1.0), chance.uniform(0.85, 1.0)),
                chance.uniform(-4, 4),
                frames,
            )
        )
        free_at[lane] = first_frame + frames + chance.randrange(FPS // 2, 2 * FPS)
    return walks


def _undisturbed(first_frame: int, start: tuple[float, float], face_px: float, walks: Sequence[_Walk]) -> int:
    """The first frame from ``first_frame`` on in which nobody has just vanished near ``start``."""
    for walk in sorted(walks, key=lambda walk: walk.first_frame + walk.frames):
        gone = walk.first_frame + walk.frames
        distance = float(np.hypot(*np.subtract(walk.path[1], start)))
        if gone <= first_frame < gone + _GAP_FRAMES and distance < _GAP_FACES * max(face_px, *walk.face_px):
            first_frame = gone + _GAP_FRAMES
    return first_frame


def _pictures(walks: list[_Walk], frames: int, seed: int) -> Iterator[Image]:
    background = _background(seed)
    noise = np.random.default_rng(seed).normal(0, 2.0, (4, SIZE[1], SIZE[0], 3)).round().astype(np.int8)
    for frame in range(frames):
        picture = background.copy()
        for walk in walks:
            into = frame - walk.first_frame
            if 0 <= into < walk.frames:
                progress = into / walk.frames
                light = walk.brightness[0] + progress * (walk.brightness[1] - walk.brightness[0])
                x, y, scale = walk.placing(frame)
                tilt = walk.tilt_deg * float(np.sin(2 * np.pi * progress))
                figure = walk.figure.copy()
                figure[:, :, :3] = cv2.convertScaleAbs(figure[:, :, :3], alpha=light)
                paint(picture, figure, _FACE_CENTRE, (x, y), scale, tilt, blur_px=0)
        yield cv2.add(picture, noise[frame % len(noise)], dtype=cv2.CV_8U)


def _visit(walk: _Walk) -> Visit:
    seen = range(walk.first_frame, walk.first_frame + walk.frames)
    boxes = {frame: walk.box(frame) for frame in seen}
    return Visit(walk.name, walk.enrolled, seen.start / FPS, seen.stop / FPS, boxes)


def _figure(photo: Image) -> NDArray[np.uint8]:
    """The head alone: whoever stands beside the person in the photo must not walk through the clip as well."""
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.ellipse(mask, _HEAD_CENTRE, _HEAD_AXES, 0, 0, 360, 255, -1)
    return cut_out(photo, mask, feather_px=4.0)


def _background(seed: int) -> Image:
    chance = np.random.default_rng(seed)
    coarse = cv2.resize(chance.normal(0, 14, (9, 16, 3)).astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)
    slope = np.linspace(165, 110, SIZE[1], dtype=np.float32)[:, None, None]
    picture: Image = np.clip(slope + coarse, 0, 255).astype(np.uint8)
    return picture
