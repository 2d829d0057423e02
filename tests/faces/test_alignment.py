"""Faces are cut out where they are, upright and at the right size."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.faces.alignment import box_matrices, similarity_matrices, warp
from worker.faces.manifests import ARCFACE_TEMPLATE

TEMPLATE = np.array(ARCFACE_TEMPLATE)


def mapped(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def smooth_picture(width: int, height: int) -> NDArray[np.uint8]:
    """A picture whose colours say where a pixel is: red is x, green is y, at 1 per 10 px."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 10, y / 10, np.full_like(x, 7)], axis=-1).round().astype(np.uint8)


def test_box_is_enlarged_scaled_by_its_shorter_side_and_cut_at_its_centre() -> None:
    box = np.array([[100, 200, 200, 340]], np.float32)
    (matrix,) = box_matrices(box, side=224, enlarge=1.3, shorter_side=256)
    assert mapped(matrix, np.array([[150.0, 270.0]])) == pytest.approx(np.array([[112.0, 112.0]]))
    # The enlarged box is 130 px wide and becomes 256 px wide, of which 224 are kept: 16 px fall away on each side.
    assert mapped(matrix, np.array([[150.0 - 65, 270.0]]))[0, 0] == pytest.approx(112 - 128)
    assert matrix[0, 1] == matrix[1, 0] == 0


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    x=st.floats(-500, 2000),
    y=st.floats(-500, 2000),
    side=st.integers(64, 256),
)
def test_landmarks_that_are_a_turned_template_land_on_the_template(
    angle: float, scale: float, x: float, y: float, side: int
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (TEMPLATE * 112 @ turn.T + [x, y])[None].astype(np.float32)
    (matrix,) = similarity_matrices(landmarks, ARCFACE_TEMPLATE, side)
    np.testing.assert_allclose(mapped(matrix, landmarks[0].astype(np.float64)), TEMPLATE * side, atol=0.05 * side)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_similarity_is_the_least_squares_one() -> None:
    random = np.random.default_rng(0)
    landmarks = (TEMPLATE * 80 + random.normal(0, 3, (20, 5, 2))).astype(np.float32)
    matrices = similarity_matrices(landmarks, ARCFACE_TEMPLATE, 112)
    target = TEMPLATE * 112
    for points, matrix in zip(landmarks.astype(np.float64), matrices, strict=True):
        # An independent solution: a and b of [[a, -b], [b, a]] and the shift, as a linear system.
        rows = np.concatenate([[[px, -py, 1, 0], [py, px, 0, 1]] for px, py in points])
        a, b, dx, dy = np.linalg.lstsq(rows, target.ravel(), rcond=None)[0]
        np.testing.assert_allclose(matrix, [[a, -b, dx], [b, a, dy]], atol=1e-6)


def test_no_faces_make_no_chips() -> None:
    picture = smooth_picture(50, 40)
    boxes = box_matrices(np.empty((0, 4), np.float32), 224, 1.3, 256)
    points = similarity_matrices(np.empty((0, 5, 2), np.float32), ARCFACE_TEMPLATE, 112)
    assert warp(picture, boxes, 224).shape == (0, 224, 224, 3)
    assert warp(picture, points, 112).shape == (0, 112, 112, 3)


@pytest.mark.parametrize("width_px", [40, 172, 300, 500, 900, 1500])
def test_a_chip_shows_what_the_matrix_says_at_every_size(width_px: int) -> None:
    picture = smooth_picture(2400, 1800)
    box = np.array([[1200 - width_px / 2, 900 - width_px / 2, 1200 + width_px / 2, 900 + width_px / 2]], np.float32)
    matrices = box_matrices(box, 224, 1.3, 256)
    (chip,) = warp(picture, matrices, 224)
    chip_points = np.array([[20.0, 30.0], [112.0, 112.0], [200.0, 180.0]])
    source = mapped(cv2.invertAffineTransform(matrices[0]), chip_points)
    colours = np.array([chip[int(y), int(x), :2] for x, y in chip_points], float)
    np.testing.assert_allclose(colours, np.clip(source, 0, (2399, 1799)) / 10, atol=1.0)


def test_a_large_face_is_averaged_and_not_sampled() -> None:
    """Fine stripes become grey; picking single pixels would leave stripes or moire."""
    picture = np.zeros((1200, 1200, 3), np.uint8)
    picture[:, ::2] = 255
    (chip,) = warp(picture, box_matrices(np.array([[100, 100, 1100, 1100]], np.float32), 224, 1.0, 224), 224)
    assert chip[8:-8, 8:-8].std() < 20
    assert abs(float(chip[8:-8, 8:-8].mean()) - 127.5) < 5


@pytest.mark.parametrize(
    "box", [[-80, -90, 30, 40], [90, 70, 400, 300], [-500, -500, -400, -400], [10, 10, 10, 10], [30, 20, 20, 10]]
)
def test_boxes_beyond_the_edge_and_empty_boxes_give_a_chip(box: list[int]) -> None:
    picture = smooth_picture(100, 80)
    chips = warp(picture, box_matrices(np.array([box], np.float32), 224, 1.3, 256), 224)
    assert chips.shape == (1, 224, 224, 3)
    assert (chips[..., 2] == 7).all()


@pytest.mark.parametrize("points", [np.zeros((1, 5, 2)), np.full((1, 5, 2), 3000.0), np.full((1, 5, 2), -50.0)])
def test_landmarks_in_one_point_give_a_chip(points: NDArray[np.float64]) -> None:
    picture = smooth_picture(100, 80)
    chips = warp(picture, similarity_matrices(points.astype(np.float32), ARCFACE_TEMPLATE, 112), 112)
    assert chips.shape == (1, 112, 112, 3)


def test_all_faces_of_an_image_keep_their_order() -> None:
    picture = smooth_picture(2000, 1000)
    boxes = np.array([[x, 400, x + 200, 600] for x in (1500, 100, 800)], np.float32)
    chips = warp(picture, box_matrices(boxes, 224, 1.3, 256), 224)
    np.testing.assert_allclose(chips[:, 112, 112, 0], [160, 20, 90], atol=1)
