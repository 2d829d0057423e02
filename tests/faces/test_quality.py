from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from worker.faces.quality import REJECT_BELOW, Quality, assess, looks_enlarged, measure
from worker.types import Detections, Image
from worker.video.photos import list_photos, read_photo

FRONTAL = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.34, 0.8], [0.66, 0.8]], np.float32)


def scene(detail_px: float = 2.0, contrast: float = 45.0, brightness: float = 125.0) -> Image:
    """Blobs of a few pixels: as much detail as skin and hair have."""
    noise = np.random.default_rng(0).normal(size=(400, 400, 3))
    blobs = cv2.GaussianBlur(noise, (0, 0), detail_px)
    picture: Image = np.clip(blobs / blobs.std() * contrast + brightness, 0, 255).astype(np.uint8)
    return picture


def face(side: float = 120.0, points: np.ndarray = FRONTAL, score: float = 0.99, at: float = 100.0) -> Detections:
    box = np.array([[at, at, at + side, at + side]], np.float32)
    return Detections(box, np.array([score], np.float32), (at + points[None] * side).astype(np.float32))


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    rotation: NDArray[np.float64] = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return ((FRONTAL - 0.5) @ rotation + 0.5).astype(np.float32)


def moved_nose(x: float, y: float) -> np.ndarray:
    points = FRONTAL.copy()
    points[2] = x, y
    return points


def only(quality: Quality) -> tuple[float, str]:
    (score,), (reason,) = quality.scores.tolist(), quality.reasons
    return score, reason


def test_a_good_face_is_taken() -> None:
    score, reason = only(assess(scene(), face()))
    assert reason == ""
    assert score > 0.8


def test_the_gate_can_be_opened_and_tightened() -> None:
    blurred, score = scene(detail_px=14.0), only(assess(scene(), face()))[0]
    assert only(assess(blurred, face(), 0.0))[1] == ""
    assert only(assess(scene(), face(), score + 0.01))[1] != ""
    assert only(assess(scene(), face(), score - 0.01))[1] == ""


def test_no_face_no_judgement() -> None:
    quality = assess(scene(), Detections.empty())
    assert (quality.scores.shape, quality.scores.dtype, quality.reasons) == ((0,), np.dtype(np.float32), [])


@pytest.mark.parametrize(
    ("image", "detections", "reason"),
    [
        (scene(detail_px=0.7), face(side=15), "too_small"),
        (scene(detail_px=14.0), face(), "blurred"),
        (scene(contrast=3.0, brightness=9.0), face(), "exposure"),
        (scene(contrast=3.0, brightness=251.0), face(), "exposure"),
        (scene(contrast=3.0), face(), "exposure"),
        (scene(), face(points=moved_nose(0.78, 0.6)), "pose"),
        (scene(), face(points=moved_nose(0.5, 0.3)), "pose"),
        (scene(), face(points=moved_nose(0.5, 0.95)), "pose"),
        (scene(), face(points=turned(80)), "pose"),
        (scene(), face(points=turned(180)), "pose"),
        (scene(), face(score=0.45), "low_score"),
    ],
    ids=[
        "small",
        "blurred",
        "dark",
        "bright",
        "fog",
        "profile",
        "looking up",
        "looking down",
        "lying",
        "upside down",
        "unsure",
    ],
)
def test_each_fault_is_named(image: Image, detections: Detections, reason: str) -> None:
    score, found = only(assess(image, detections))
    assert found == reason
    assert score < REJECT_BELOW


def test_a_tilted_head_is_no_turned_head() -> None:
    upright, tilted = measure([scene()], face()), measure([scene()], face(points=turned(30)))
    assert tilted.roll_degrees[0] == pytest.approx(30, abs=0.1)
    assert tilted.yaw == pytest.approx(upright.yaw, abs=1e-3)
    assert tilted.pitch == pytest.approx(upright.pitch, abs=1e-3)


def test_haze_is_not_taken_for_blur() -> None:
    hazy = scene(contrast=15.0, brightness=180.0)
    assert measure([hazy], face()).sharpness[0] == pytest.approx(measure([scene()], face()).sharpness[0], rel=0.2)


def test_faces_are_judged_one_by_one_in_order() -> None:
    image = scene(detail_px=0.7)
    several = [face(), face(side=15), face(score=0.45)]
    together = Detections(*(np.concatenate([getattr(d, name) for d in several]) for name in Detections.__slots__))
    quality = assess(image, together)
    assert quality.reasons == ["", "too_small", "low_score"]
    assert quality.scores == pytest.approx([only(assess(image, one))[0] for one in several])


@pytest.mark.parametrize("at", [-60.0, 350.0, -500.0, 9000.0])
def test_boxes_beyond_the_image_are_judged_by_what_is_in_it(at: float) -> None:
    score, reason = only(assess(scene(), face(at=at)))
    assert 0.0 <= score <= 1.0
    assert reason == ("" if -120 < at < 400 else reason)
    assert abs(at) < 400 or reason in {"blurred", "exposure"}


def test_degenerate_landmarks_are_refused() -> None:
    score, reason = only(assess(scene(), face(points=np.full((5, 2), 0.5, np.float32))))
    assert (score, reason) == (0.0, "pose")


@pytest.mark.data
def test_nearly_all_portraits_are_taken_and_their_spoilt_copies_are_not(test_data: Path) -> None:
    judge = cv2.FaceDetectorYN.create(str(test_data / "models" / "yunet_s_640_640.onnx"), "", (250, 250), 0.6)
    taken = {"plain": 0, "blurred": 0, "tiny": 0, "dark": 0}
    portraits = 0
    for path in list_photos(test_data / "lfw_dev" / "images")[::60]:
        image = read_photo(path)
        _, found = judge.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if found is None:
            continue
        row = found[np.abs(found[:, :2] + found[:, 2:4] / 2 - 125).sum(axis=1).argmin()]
        box = np.concatenate([row[:2], row[:2] + row[2:4]])[None]
        faces = Detections(box, np.array([0.99], np.float32), row[4:14].reshape(1, 5, 2))
        scale = 16 / float(row[2:4].min())
        tiny = Detections(faces.boxes * scale, faces.scores, faces.landmarks * scale)
        copies = {
            "plain": (image, faces),
            "blurred": (cv2.GaussianBlur(image, (0, 0), 9), faces),
            "tiny": (cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), tiny),
            "dark": ((image * 0.06).astype(np.uint8), faces),
        }
        portraits += 1
        for name, (copy, detections) in copies.items():
            taken[name] += not assess(copy, detections).reasons[0]
    assert portraits >= 80
    assert taken["plain"] >= 0.95 * portraits
    assert max(taken["blurred"], taken["tiny"], taken["dark"]) <= 0.05 * portraits


def enlarged(image: Image, face_px: int, side: float = 120.0, how: int = cv2.INTER_CUBIC) -> Image:
    """``image`` as if its face of ``side`` px had been taken with ``face_px`` px and enlarged."""
    height, width = image.shape[:2]
    tiny = cv2.resize(image, None, fx=face_px / side, fy=face_px / side, interpolation=cv2.INTER_AREA)
    picture: Image = cv2.resize(tiny, (width, height), interpolation=how).astype(np.uint8)
    return picture


@pytest.mark.parametrize("how", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_a_tiny_face_that_was_enlarged_is_known_by_its_missing_detail(how: int) -> None:
    box = face().boxes[0]
    sharp = scene(detail_px=1.0)
    assert not looks_enlarged(sharp, box)
    assert not looks_enlarged(enlarged(sharp, 60, how=how), box)
    assert looks_enlarged(enlarged(sharp, 14, how=how), box)


def test_a_face_that_is_small_as_it_is_is_not_called_enlarged() -> None:
    assert not looks_enlarged(enlarged(scene(1.0), 14), face(side=38).boxes[0])
    assert not looks_enlarged(scene(), face(at=900.0).boxes[0])
    assert not looks_enlarged(np.full((400, 400, 3), 90, np.uint8), face().boxes[0])


@pytest.mark.data
def test_portraits_are_not_called_enlarged_and_their_enlarged_thumbnails_are(test_data: Path) -> None:
    photos = list_photos(test_data / "lfw_dev" / "images")[::250]
    box = np.array([75, 70, 175, 190], np.float32)  # these photos are all centred on the face
    pictures = [read_photo(photo) for photo in photos]
    assert [photo.name for photo, image in zip(photos, pictures, strict=True) if looks_enlarged(image, box)] == []
    tiny = [looks_enlarged(enlarged(image, 14, side=100.0), box) for image in pictures]
    assert np.mean(tiny) >= 0.9
