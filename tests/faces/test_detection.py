"""The detector without real faces (stand-ins for the networks), and with a few."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.config import DetectionConfig
from worker.errors import ModelError
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.detectors.mtcnn import MtcnnDetector, cut_out
from worker.faces.detectors.pyramid import BAND_STEP_PX, CELL_PX, Canvas, level_sizes
from worker.faces.networks import mtcnn
from worker.observer import Observer, Stage
from worker.types import Image


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def nothing(width: int) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], ...]]:
    """A network that finds no face anywhere, with ``width`` outputs."""

    def network(items: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        if width == 0:  # the proposal network
            bands, height, across, _ = items.shape
            return (np.full((bands, height // 2 - 5, across // 2 - 5, 5), -9, np.float32),)
        return (np.full((len(items), width), -9, np.float32),)

    return network


@pytest.fixture(scope="module")
def detector(shared_cache: Path) -> FaceDetector:
    return load_detector(DetectionConfig(min_face_px=20, precision="fp32"), cache_dir=shared_cache, engine="openvino")


@pytest.fixture(scope="module")
def photo(test_data: Path) -> Image:
    picture = cv2.imread(str(test_data / "dlib_faces" / "2007_007763.jpg"))
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1])


class Recorder(Observer):
    def __init__(self) -> None:
        self.batches: list[tuple[Stage, int]] = []

    def batch(self, stage: Stage, size: int) -> None:
        self.batches.append((stage, size))


def test_an_empty_batch_runs_nothing() -> None:
    seen = Recorder()
    idle = MtcnnDetector(nothing(0), nothing(5), nothing(15), DetectionConfig(), observer=seen)
    assert idle.detect([]) == []
    assert seen.batches == []
    assert [len(found) for found in idle.detect([noise(90, 120), noise(50, 60)])] == [0, 0]
    assert seen.batches == [("detect", 2)]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((60, 80, 3), np.float32), np.zeros((60, 80), np.uint8), np.zeros((60, 80, 4), np.uint8), None,
        np.zeros((2, 60, 80, 3), np.uint8),
    ],
)  # fmt: skip
def test_what_is_no_image_is_named(bad: object) -> None:
    idle = MtcnnDetector(nothing(0), nothing(5), nothing(15), DetectionConfig())
    with pytest.raises(ValueError, match=r"image 1 must be uint8 \(H, W, 3\)"):
        idle.detect([noise(60, 80), bad])  # type: ignore[list-item]


@given(st.integers(0, 2500), st.integers(0, 2500), st.floats(12, 2000))
def test_no_level_is_smaller_than_a_window(width: int, height: int, min_face_px: float) -> None:
    levels = list(level_sizes(width, height, min_face_px))
    assert all(min(w, h) >= CELL_PX for _, w, h in levels)
    assert bool(levels) == (min(width, height) * 12 / min_face_px >= CELL_PX)
    if levels:
        assert levels[0][0] == pytest.approx(12 / min_face_px)
        assert min(width, height) * levels[-1][0] * 0.709 < CELL_PX + 1


@given(st.integers(12, 700), st.integers(12, 700), st.sampled_from([12.0, 17.0, 20.0, 40.0, 150.0]))
def test_levels_share_a_canvas_without_touching(width: int, height: int, min_face_px: float) -> None:
    canvas = Canvas(width, height, min_face_px)
    bands, rows, across, _ = canvas.bands.shape
    taken = np.zeros((bands * BAND_STEP_PX + rows - BAND_STEP_PX, across), np.int32)
    for level in canvas.levels:
        even = (level.width + level.width % 2, level.height + level.height % 2)
        assert (level.top + even[1], level.left + even[0]) <= taken.shape
        taken[level.top : level.top + even[1], level.left : level.left + even[0]] += 1
    assert taken.max(initial=0) <= 1


def test_a_cell_leads_back_to_its_place_in_its_level() -> None:
    canvas = Canvas(300, 200, 20)
    cells = np.arange(canvas.bands.shape[0] * (BAND_STEP_PX // 2) * (canvas.bands.shape[2] // 2 - 5))
    inside, levels, corners = canvas.windows(cells)
    assert len(inside) == sum(((v.width - 1) // 2 - 4) * ((v.height - 1) // 2 - 4) for v in canvas.levels)
    for number, level in enumerate(canvas.levels):
        own = corners[levels == number]
        assert own.min(axis=0).tolist() == [0, 0]
        assert (own.max(axis=0) + CELL_PX <= [level.width + 1, level.height + 1]).all()


def test_a_level_is_the_average_of_the_pixels_it_covers() -> None:
    image = cv2.GaussianBlur(noise(480, 640), (0, 0), 3)
    canvas = Canvas(640, 480, 20)
    canvas.draw(image)
    pixels = np.vstack(
        [
            canvas.bands[:, :BAND_STEP_PX].reshape(-1, canvas.bands.shape[2], 3),
            canvas.bands[-1, BAND_STEP_PX:].reshape(10, -1, 3),
        ]
    )
    for level in canvas.levels:
        drawn = pixels[level.top : level.top + level.height, level.left : level.left + level.width]
        exact = cv2.resize(image, (level.width, level.height), interpolation=cv2.INTER_AREA)
        assert np.abs(drawn.astype(int) - exact).mean() < 1.5


def test_crops_are_corner_aligned_and_grey_outside() -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None] * 2, 80, axis=0).repeat(3, axis=2)
    squares = np.array([[10, 10, 34, 34], [-24, 20, 24, 68], [90, 70, 114, 94]], np.float32)
    inner, left, corner = cut_out([ramp], np.zeros(3, np.intp), squares, 24)
    expected = (10 + 24 * np.arange(24) / 23) * 99 / 100 * 2
    assert np.abs(inner[0, :, 0] - expected).max() <= 1
    assert (left[:, :12] == 128).all()
    assert (left[:, 12:, 0] != 128).all()
    assert (corner[:, 10:] == 128).all()
    assert (corner[10:] == 128).all()


def test_crops_come_from_the_image_they_belong_to() -> None:
    images = [np.full((40, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    owners = np.array([2, 0, 1, 2], np.intp)
    crops = cut_out(images, owners, np.tile(np.array([[5, 5, 20, 20]], np.float32), (4, 1)), 24)
    assert crops[:, 0, 0, 0].tolist() == [30, 10, 20, 30]


@pytest.mark.data
@pytest.mark.parametrize("min_face_px", [12, 20, 24, 30, 41, 64, 80])
def test_any_smallest_face_works(shared_cache: Path, photo: Image, min_face_px: int) -> None:
    config = DetectionConfig(min_face_px=min_face_px, precision="fp32")
    found = load_detector(config, cache_dir=shared_cache, engine="openvino").detect([photo])[0]
    everything = load_detector(DetectionConfig(min_face_px=12), cache_dir=shared_cache, engine="openvino").detect(
        [photo]
    )[0]
    sides = (everything.boxes[:, 2:] - everything.boxes[:, :2]).max(axis=1)
    assert len(found) >= (sides > 1.5 * min_face_px).sum()


@pytest.mark.data
def test_a_smallest_face_larger_than_the_image_finds_nothing(shared_cache: Path, photo: Image) -> None:
    config = DetectionConfig(min_face_px=2000, precision="fp32")
    assert len(load_detector(config, cache_dir=shared_cache, engine="openvino").detect([photo])[0]) == 0


@pytest.mark.data
def test_a_batch_of_mixed_sizes_changes_nothing(detector: FaceDetector, photo: Image) -> None:
    images = [photo, noise(11, 400), photo[40:, 60:], np.zeros((0, 5, 3), np.uint8), noise(300, 200), photo[::-1]]
    alone = [detector.detect([image])[0] for image in images]
    assert len(alone[0]) > 2
    for order in (range(6), reversed(range(6))):
        chosen = list(order)
        for index, together in zip(chosen, detector.detect([images[i] for i in chosen]), strict=True):
            np.testing.assert_array_equal(together.boxes, alone[index].boxes)
            np.testing.assert_array_equal(together.scores, alone[index].scores)
            np.testing.assert_array_equal(together.landmarks, alone[index].landmarks)


@pytest.mark.data
def test_landmarks_are_where_their_names_say(detector: FaceDetector, photo: Image) -> None:
    found = detector.detect([photo])[0]
    assert (np.diff(found.scores) <= 0).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.data
def test_results_become_json(detector: FaceDetector, photo: Image) -> None:
    found = detector.detect([photo])[0]
    assert found.boxes.dtype == found.scores.dtype == found.landmarks.dtype == np.float32
    json.dumps([found.boxes.tolist(), found.scores.tolist(), found.landmarks.tolist()], allow_nan=False)


@pytest.mark.data
def test_a_large_picture_is_searched_at_its_cap_and_answered_at_its_size(shared_cache: Path, photo: Image) -> None:
    config = DetectionConfig(min_face_px=20, max_side_px=500, precision="fp32")
    capped = load_detector(config, cache_dir=shared_cache, engine="openvino")
    small, large = capped.detect([photo, cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)])
    strong = small.take(small.scores > 0.95)
    assert len(strong) > 2
    for box in strong.boxes:
        assert np.abs(large.boxes / 4 - box).max(axis=1).min() < 6


@pytest.mark.data
def test_a_warm_start_loads_no_tensorflow(
    detector: FaceDetector, shared_cache: Path, photo: Image, tmp_path: Path
) -> None:
    np.save(tmp_path / "photo.npy", photo)
    program = (
        "import sys, pathlib, numpy as np\n"
        "from worker.config import DetectionConfig\n"
        "from worker.faces.detection import load_detector\n"
        "d = load_detector(DetectionConfig(precision='fp32'), cache_dir=pathlib.Path(sys.argv[1]), engine='openvino')\n"
        "assert len(d.detect([np.load(sys.argv[2])])[0]) > 2\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(shared_cache), str(tmp_path / "photo.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_weights_in_the_current_folder_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pnet.lz4", "rnet.lz4", "onet.lz4"):
        (tmp_path / name).write_bytes(b"not the weights")
    monkeypatch.chdir(tmp_path)
    assert mtcnn.load_weights("proposal")[0].shape == (3, 3, 3, 10)


def test_changed_weights_are_refused_before_they_are_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mtcnn" / "assets" / "weights"
    folder.mkdir(parents=True)
    (tmp_path / "mtcnn" / "__init__.py").touch()
    (folder / "pnet.lz4").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mtcnn", raising=False)
    monkeypatch.setattr("joblib.load", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(ModelError, match=r"not the released ones: sha256 [0-9a-f]{64}, not ea6b"):
        mtcnn.load_weights("proposal")


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"not installed; .*pip install"):
        mtcnn.load_weights("output")
