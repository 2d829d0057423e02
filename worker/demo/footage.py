"""The footage of the demo, and what to draw on it: an astronaut walks through a lobby, then a cat, and she comes back.

It is made from two pictures that scikit-image carries in its wheel: the portrait of Eileen Collins (NASA, public
domain) and the cat Chelsea (CC0, by Stefan van der Walt). Nothing is downloaded, and two runs give the same footage.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.faces.quality import assess
from worker.types import Event, Frame, Image, Tracks
from worker.video.clips import ClipWriter
from worker.video.drawing import Annotation, Tile, save_picture

PERSON: Final = "Eileen Collins"
SIZE: Final = (1280, 720)
FPS: Final = 25
DURATION_S: Final = 11.0
VISITS_S: Final = ((0.4, 4.8), (7.0, 10.6))
"""The times at which the person, or a part of her, is in the picture: seconds from, to."""

_BRIDGED_FRAMES: Final = 12
"""The box of a face is also drawn between two detections if they are at most so many frames apart."""
_CAT_S: Final = (4.6, 7.4)
_DIM_S: Final = (1.5, 2.4)
_FACE_CENTRE: Final = (226.0, 118.0)
# The outline of the person in the portrait of 512 x 512 px, clockwise from the top of her hair.
_OUTLINE: Final = (
    (226, 13), (258, 18), (286, 36), (300, 62), (303, 92), (292, 118), (278, 130), (272, 152), (266, 172),
    (290, 192), (306, 240), (340, 258), (358, 300), (362, 345), (400, 343), (448, 352), (485, 392), (497, 440),
    (500, 475), (508, 490), (508, 512), (30, 512), (20, 470), (22, 405), (40, 300), (58, 248), (86, 232), (118, 212),
    (112, 190), (128, 160), (182, 148), (178, 128), (160, 110), (152, 80), (160, 50), (182, 26), (204, 15),
)  # fmt: skip
# Rows: seconds, x of the face in px, scale.
_FIRST_WALK: Final = np.array([(0.0, -170, 0.8), (1.6, 420, 1.1), (2.4, 600, 1.45), (3.2, 660, 1.6), (4.4, 1600, 1.3)])
_SECOND_WALK: Final = np.array([(0.0, 1420, 0.75), (1.4, 850, 0.85), (2.2, 700, 0.9), (3.6, -180, 1.0)])


@dataclass(frozen=True, slots=True)
class DemoFootage:
    """``clip``: H.264, 1280x720, 25 frames a second. ``photo_folder`` holds a photo to enrol, named after her."""

    clip: Path
    photo_folder: Path


def make_demo_clip(folder: Path) -> DemoFootage:
    """Writes the clip and the photo to ``folder``, which is made if it is missing.

    Raises:
        SourceError: ``folder`` cannot be written.
    """
    from skimage import data  # the import takes a second, and only the demo needs it

    photo_folder = folder / "photos"
    photo_folder.mkdir(parents=True, exist_ok=True)
    portrait = np.asarray(data.astronaut(), np.uint8)
    _write_photo(portrait, photo_folder / f"{PERSON}.jpg")
    clip = folder / "footage.mp4"
    person, cat = _person(portrait), _cat(np.asarray(data.chelsea(), np.uint8))

    def act(picture: Image, t: float) -> Image:
        if VISITS_S[0][0] <= t <= VISITS_S[0][1]:
            _walk(picture, person, t - VISITS_S[0][0], _FIRST_WALK)
        if VISITS_S[1][0] <= t <= VISITS_S[1][1]:
            _walk(picture, person, t - VISITS_S[1][0], _SECOND_WALK)
        if _CAT_S[0] <= t <= _CAT_S[1]:
            _prowl(picture, cat, (t - _CAT_S[0]) / (_CAT_S[1] - _CAT_S[0]))
        if _DIM_S[0] <= t <= _DIM_S[1]:
            dimmed = 1 - 0.45 * math.sin(math.pi * (t - _DIM_S[0]) / (_DIM_S[1] - _DIM_S[0]))
            picture = cv2.convertScaleAbs(picture, alpha=dimmed)
        return picture

    _film(clip, DURATION_S, act)
    return DemoFootage(clip, photo_folder)


def make_visits_clip(clip: Path, stranger: NDArray[np.uint8], face_centre: tuple[float, float]) -> Path:
    """Writes ``clip``: a ``stranger`` (512 x 512 px, as of :func:`cut_out`) walks by, and then the demo's person.

    Raises:
        SourceError: ``clip`` cannot be written.
    """
    from skimage import data

    person = _person(np.asarray(data.astronaut(), np.uint8))
    second_s = _FIRST_WALK[-1, 0] + 0.4

    def act(picture: Image, t: float) -> Image:
        if t <= _FIRST_WALK[-1, 0]:
            _walk(picture, stranger, t, _FIRST_WALK, face_centre)
        if t >= second_s:
            _walk(picture, person, t - second_s, _SECOND_WALK)
        return picture

    _film(clip, second_s + _SECOND_WALK[-1, 0] + 0.4, act)
    return clip


def _film(clip: Path, duration_s: float, act: Callable[[Image, float], Image]) -> None:
    """What ``act`` makes of the empty room at each time, in s, with the noise of a camera."""
    room = _room()
    noise = np.random.default_rng(0).normal(0, 2.0, (4, SIZE[1], SIZE[0], 3)).round().astype(np.int8)
    with ClipWriter(clip, SIZE, FPS) as writer:
        for number in range(round(duration_s * FPS)):
            picture = act(room.copy(), number / FPS)
            writer.write(cv2.add(picture, noise[number % len(noise)], dtype=cv2.CV_8U))


def _walk(
    picture: Image,
    person: NDArray[np.uint8],
    t: float,
    path: NDArray[np.float64],
    face_centre: tuple[float, float] = _FACE_CENTRE,
) -> None:
    """Paints the person as they are ``t`` seconds into their ``path`` (rows: seconds, x of the face in px, scale)."""
    x, scale = (float(np.interp(t, path[:, 0], path[:, column])) for column in (1, 2))
    speed = abs(float(np.interp(t + 0.02, path[:, 0], path[:, 1])) - x) / 0.02
    stride = min(1.0, speed / 150)
    # The picture ends at the waist. Keep that end below the lower edge, and the hair below the upper edge.
    y = max(SIZE[1] - (512 - face_centre[1]) * scale, 108 * scale + 8) + 5 * stride * abs(math.sin(2 * math.pi * t))
    tilt_deg = 1.5 * math.sin(1.7 * math.pi * t)
    paint(picture, person, face_centre, (x, y), scale, tilt_deg, blur_px=round(speed / FPS / 2))


def _prowl(picture: Image, cat: NDArray[np.uint8], progress: float) -> None:
    x = SIZE[0] + 200 - progress * (SIZE[0] + 400)
    y = 545 - 14 * abs(math.sin(6 * math.pi * progress))
    paint(picture, cat, (225, 150), (x, y), 0.8, 3 * math.sin(6 * math.pi * progress), blur_px=5)


def paint(
    picture: Image,
    figure: NDArray[np.uint8],
    anchor: tuple[float, float],
    at: tuple[float, float],
    scale: float,
    tilt_deg: float,
    blur_px: int,
) -> None:
    """Blends ``figure`` over ``picture`` so that its point ``anchor`` (x, y px) comes to ``at``.

    Args:
        picture: is changed in place.
        figure: uint8 (H, W, 4), RGB times alpha, and alpha, as :func:`cut_out` returns it.
        anchor: the point about which the figure is turned and scaled.
        at: where that point lies in the picture.
        scale: of the figure.
        tilt_deg: degrees, counter-clockwise.
        blur_px: width of a horizontal blur, for a figure that moves.
    """
    matrix = cv2.getRotationMatrix2D(anchor, tilt_deg, scale)
    matrix[:, 2] += np.subtract(at, anchor)
    height, width = figure.shape[:2]
    corners = cv2.transform(np.array([[(0, 0), (width, 0), (width, height), (0, height)]], np.float64), matrix)[0]
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - blur_px, 0, SIZE)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + blur_px, 0, SIZE)
    if right <= left or bottom <= top:
        return
    matrix[:, 2] -= left, top
    warped = cv2.warpAffine(figure, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    if blur_px > 1:
        warped = cv2.blur(warped, (blur_px, 1))
    region = picture[top:bottom, left:right]
    behind = cv2.multiply(region, cv2.cvtColor(255 - warped[:, :, 3], cv2.COLOR_GRAY2RGB), scale=1 / 255)
    cv2.add(behind, np.ascontiguousarray(warped[:, :, :3]), dst=behind)
    region[:] = behind


def _person(portrait: Image) -> NDArray[np.uint8]:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(_OUTLINE, np.int32)], 255)
    # Cut a little inside the outline, because the bright wall of the studio shines round her.
    return cut_out(portrait, cv2.erode(mask, np.ones((5, 5), np.uint8)), feather_px=1.5)


def _cat(photo: Image) -> NDArray[np.uint8]:
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.ellipse(mask, (222, 150), (172, 132), 0, 0, 360, 255, -1)
    return cut_out(photo, mask, feather_px=7.0)


def cut_out(photo: Image, mask: NDArray[np.uint8], *, feather_px: float) -> NDArray[np.uint8]:
    """The part of ``photo`` in ``mask``, uint8 (H, W, 4): RGB times alpha, and alpha with a soft edge."""
    alpha = cv2.GaussianBlur(mask, (0, 0), feather_px)
    colours = cv2.multiply(photo, cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    return np.dstack([colours, alpha])


def _room() -> Image:
    """A lobby as a camera at head height sees it: wall, floor, two doorways, a notice board."""
    width, height = SIZE
    room = np.empty((height, width, 3), np.float32)
    light = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] ** 2
    room[:] = np.array((176, 182, 186), np.float32) - 30 * light
    room[520:] = np.linspace(0.75, 1.05, height - 520, dtype=np.float32)[:, None, None] * np.array((138, 126, 112))
    cv2.rectangle(room, (0, 506), (width, 522), (96, 98, 102), -1)
    for left in (70, 1010):
        cv2.rectangle(room, (left - 12, 128), (left + 212, 520), (112, 104, 96), -1)
        cv2.rectangle(room, (left, 140), (left + 200, 520), (70, 78, 88), -1)
        cv2.rectangle(room, (left + 24, 170), (left + 176, 330), (92, 104, 118), -1)
    cv2.rectangle(room, (520, 150), (760, 300), (120, 96, 70), -1)
    cv2.rectangle(room, (530, 160), (750, 290), (196, 184, 160), -1)
    for row in range(3):
        cv2.rectangle(room, (550, 180 + 34 * row), (550 + 160 - 30 * row, 190 + 34 * row), (140, 132, 118), -1)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(room, (0, 0), 1.2)
    return blurred.clip(0, 255).astype(np.uint8)


def _write_photo(portrait: Image, path: Path) -> None:
    """A picture of her that differs from all in the clip: head and shoulders, larger, tilted, brighter, as JPEG."""
    matrix = cv2.getRotationMatrix2D(_FACE_CENTRE, -4.0, 1.9)
    matrix[:, 2] += np.subtract((300, 208), _FACE_CENTRE)
    photo = cv2.warpAffine(portrait, matrix, (600, 720), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    brighter = 255 * (photo.astype(np.float32) / 255) ** 0.88
    save_picture(np.clip(brighter + 4, 0, 255).astype(np.uint8), path)


@dataclass(slots=True)
class Album:
    """Collects what to draw.

    Give :meth:`watch` to the pipeline; afterwards, :meth:`annotations` and :meth:`tiles` say what to draw.
    """

    _boxes: dict[int, list[tuple[int, NDArray[np.float32], str]]] = field(default_factory=lambda: defaultdict(list))
    _faces: dict[int, tuple[float, Image]] = field(default_factory=dict)

    def watch(self, frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        """Keeps the tracks of a frame, and the label of each."""
        quality = assess(frame.image, tracks.detections)
        rows = zip(tracks.track_ids.tolist(), tracks.detections.boxes, labels, quality.scores.tolist(), strict=True)
        for track_id, box, label, score in rows:
            self._boxes[track_id].append((frame.sequence, box, label))
            worth = score * float(box[2] - box[0])
            if worth > self._faces.get(track_id, (0.0, None))[0]:
                self._faces[track_id] = (worth, _crop(frame.image, box))

    def annotations(self) -> dict[int, list[Annotation]]:
        """What to draw in each frame. Boxes move evenly between the frames that were searched."""
        drawn: dict[int, list[Annotation]] = defaultdict(list)
        for seen in self._boxes.values():
            for (first, box, label), (later, next_box, _) in zip(seen, [*seen[1:], (-1, None, "")], strict=True):
                last = later if next_box is not None and later - first <= _BRIDGED_FRAMES else first + 1
                for number in range(first, last):
                    share = (number - first) / max(1, last - first) if next_box is not None else 0.0
                    at = box if next_box is None else box + share * (next_box - box)
                    drawn[number].append(Annotation(box=tuple(at.tolist()), label=label))
        return drawn

    def tiles(self, events: Sequence[Event]) -> list[Tile]:
        """A tile for each sighting that has ended: the best face of its track, the name, and when it was last seen."""
        tiles = []
        for event in events:
            if event.type == "ended" and event.track_id in self._faces:
                cosine = "" if event.similarity is None else f", cosine {event.similarity:.2f}"
                caption = f"{event.identity_name or 'unknown'}{cosine}, until {event.pts_s:.1f} s"
                tiles.append(Tile(self._faces[event.track_id][1], caption))
        return tiles


def _crop(image: Image, box: NDArray[np.float32]) -> Image:
    x1, y1, x2, y2 = box.round().astype(int).tolist()
    margin = (y2 - y1) // 4
    height, width = image.shape[:2]
    return image[max(0, y1 - margin) : min(height, y2 + margin), max(0, x1 - margin) : min(width, x2 + margin)].copy()
