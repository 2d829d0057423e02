"""The detectors beside MTCNN: what they share without real faces, and each on real ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bench.detectors import judged, read_truth
from worker.boxes import iou_matrix
from worker.config import DetectionConfig, load_config
from worker.errors import ConfigError, ModelError
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.detectors.one_by_one import OneByOneDetector
from worker.observer import Observer, Stage
from worker.types import Detections, Image
from worker.video.photos import read_photo


def faces(*boxes: tuple[float, float, float, float], scores: Sequence[float] = ()) -> Detections:
    made = np.array(boxes, np.float32).reshape(-1, 4)
    values = np.array(scores or [0.95] * len(made), np.float32)
    return Detections(made, values, np.repeat(made[:, None, :2], 5, axis=1) + 1)


class Bright:
    """Takes every bright rectangle that was planted for a face: finds it by its pixels, in whatever cut-out."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, image: Image, min_face_px: float) -> Detections:
        self.seen.append((image.shape, min_face_px))
        found = []
        for value in range(100, 256):
            rows, columns = np.nonzero(image[..., 0] == value)
            if len(rows):
                found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return faces(*found, scores=[0.9 + 0.01 * i for i in range(len(found))])


def picture(*boxes: tuple[int, int, int, int]) -> Image:
    image = np.zeros((120, 200, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 100 + number
    return image


class Recorder(Observer):
    def __init__(self) -> None:
        self.batches: list[tuple[Stage, int]] = []

    def batch(self, stage: Stage, size: int) -> None:
        self.batches.append((stage, size))


def test_a_batch_is_searched_picture_by_picture_and_sorted_by_score() -> None:
    recorder = Recorder()
    detector = OneByOneDetector(Bright(), DetectionConfig(min_face_px=20), observer=recorder)
    assert detector.detect([]) == []
    both = detector.detect([picture((10, 10, 40, 40), (100, 50, 140, 90)), picture()])
    assert both[0].boxes.tolist() == [[100, 50, 140, 90], [10, 10, 40, 40]]
    assert len(both[1]) == 0
    assert recorder.batches == [("detect", 2)]


def test_a_picture_smaller_than_a_face_is_not_searched() -> None:
    search = Bright()
    tiny = [np.zeros((19, 200, 3), np.uint8), np.zeros((0, 5, 3), np.uint8)]
    found = OneByOneDetector(search, DetectionConfig(min_face_px=20)).detect(tiny)
    assert [len(each) for each in found] == [0, 0]
    assert search.seen == []


def test_what_is_no_image_is_named() -> None:
    detector = OneByOneDetector(Bright(), DetectionConfig())
    with pytest.raises(ValueError, match=r"image 1 must be uint8 \(H, W, 3\), not float32"):
        detector.detect([picture(), np.zeros((60, 80, 3), np.float32)])


def expect(*boxes: tuple[float, float, float, float]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def test_a_face_is_followed_to_where_it_is_now_in_px_of_the_picture() -> None:
    search = Bright()
    detector = OneByOneDetector(search, DetectionConfig())
    images = [picture((60, 40, 90, 70), (150, 80, 180, 110)), picture((5, 5, 35, 35))]
    first, second = detector.follow(images, [expect((55, 36, 85, 66)), expect()])
    assert first.boxes.tolist() == [[60, 40, 90, 70]]
    assert first.landmarks[0, 0].tolist() == [61, 41]
    assert len(second) == 0, "nobody was expected there"
    ((shape, _),) = search.seen
    assert shape == (60, 60, 3), "only what is around the expected box is looked at"


@pytest.mark.parametrize(
    "wanted",
    [(150, 10, 180, 40), (300, 300, 340, 340), (-90, -90, -50, -50)],
    ids=["nobody there", "beyond the picture", "left of it"],
)
def test_a_face_that_is_gone_is_not_followed_to_somebody_else(wanted: tuple[float, ...]) -> None:
    detector = OneByOneDetector(Bright(), DetectionConfig())
    found = detector.follow([picture((100, 20, 130, 50))], [expect(wanted)])  # type: ignore[arg-type]
    assert [len(each) for each in found] == [0]


def test_two_expectations_of_one_face_give_it_once() -> None:
    detector = OneByOneDetector(Bright(), DetectionConfig())
    (found,) = detector.follow([picture((60, 40, 90, 70))], [expect((58, 38, 88, 68), (63, 43, 93, 73))])
    assert found.boxes.tolist() == [[60, 40, 90, 70]]


def test_an_unknown_detector_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"detection\.detector: .*'mtcnn', 'yunet' or 'dlib-hog'"):
        load_config(None, {"detection": {"detector": "haar"}})


def test_missing_weights_of_a_detector_are_one_line_with_the_ways_on(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_detector(DetectionConfig(detector="yunet"), cache_dir=tmp_path, models_dir=tmp_path)
    message = str(caught.value)
    for way in ("facestream models pull yunet", str(tmp_path), "--detector", "yunet_s_640_640.onnx"):
        assert way in message
    assert "\n" not in message


def loaded(name: str, test_data: Path, cache: Path, **settings: object) -> FaceDetector:
    if name == "dlib-hog":
        pytest.importorskip("dlib")
    config = DetectionConfig.model_validate({"detector": name, "min_face_px": 20} | settings)
    return load_detector(config, cache_dir=cache, models_dir=test_data / "models")


@pytest.mark.data
@pytest.mark.parametrize(("name", "landmarks_off_by"), [("mtcnn", 0.08), ("yunet", 0.18), ("dlib-hog", 0.06)])
def test_labelled_faces_are_found_and_nothing_else_is(
    test_data: Path, shared_cache: Path, name: str, landmarks_off_by: float
) -> None:
    score = judged(loaded(name, test_data, shared_cache), read_truth(test_data / "dlib_faces"))
    assert score.faces == 43
    assert score.recall == 1
    assert score.precision == 1
    # Eyes, nose and mouth in the right order: two swapped points alone are off by a fifth of an eye distance.
    assert np.mean(score.landmark_errors) < landmarks_off_by


@pytest.mark.data
@pytest.mark.parametrize("name", ["yunet", "dlib-hog"])
def test_real_faces_are_followed(test_data: Path, shared_cache: Path, name: str) -> None:
    photo = read_photo(test_data / "dlib_faces" / "2007_007763.jpg")
    detector = loaded(name, test_data, shared_cache)
    (found,) = detector.detect([photo])
    sure = found.take(found.scores >= 0.9)
    moved = sure.boxes + 0.1 * (sure.boxes[:, 2:] - sure.boxes[:, :2]).mean()
    (followed,) = detector.follow([photo], [moved.astype(np.float32)])
    assert len(followed) == len(sure)
    assert iou_matrix(followed.boxes, sure.boxes).max(axis=1).min() > 0.5


@pytest.mark.data
def test_yunet_sees_large_faces_once_and_small_ones_too(test_data: Path, shared_cache: Path) -> None:
    detector = loaded("yunet", test_data, shared_cache)
    portrait = read_photo(test_data / "photos" / "train" / "biden" / "biden2.jpg")
    (large,) = detector.detect([portrait])
    sure = large.take(large.scores >= 0.9)
    assert len(sure) == 1
    x1, y1, x2, y2 = sure.boxes[0].tolist()
    assert 400 < x2 - x1 < 560, "the whole face, not a part of it"
    assert 550 < y2 - y1 < 700


@pytest.mark.data
def test_a_file_that_is_not_yunet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.faces.detectors.yunet import YuNet

    (tmp_path / "x.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"OpenCV cannot load .*x\.onnx"):
        YuNet(tmp_path / "x.onnx", 2400)
