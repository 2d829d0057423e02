"""Geometry of boxes against plain definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from worker import boxes

side = st.floats(0.5, 60, width=32)
place = st.floats(-30, 100, width=32)
box_lists = st.lists(st.tuples(place, place, side, side), max_size=40).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float64).reshape(-1, 4)
)


def overlap_of(a: NDArray[np.float64], b: NDArray[np.float64], overlap: str) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    whole = area_a + area_b - width * height if overlap == "union" else min(area_a, area_b)
    return float(width * height / whole)


def test_a_centre_is_within_an_outline_of_any_form() -> None:
    faces = np.array([[x - 1, y - 1, x + 1, y + 1] for x, y in ((20, 50), (50, 20), (50, 80), (95, 50))], np.float32)
    arrow = [(0.0, 0.0), (1.0, 0.5), (0.0, 1.0), (0.4, 0.5)]
    assert boxes.centres_in(faces, arrow, 100, 100).tolist() == [False, False, False, True]
    assert boxes.centres_in(faces, [(0, 0), (1, 0), (1, 0.5), (0, 0.5)], 100, 200).tolist() == [True] * 4
    assert boxes.centres_in(np.empty((0, 4), np.float32), arrow, 100, 100).shape == (0,)


def test_nothing_in_nothing_out() -> None:
    none = np.empty((0, 4), np.float32)
    assert boxes.area(none).shape == (0,)
    assert boxes.iou_matrix(none, none).shape == (0, 0)
    assert boxes.clip(none, 10, 10).shape == boxes.square(none).shape == boxes.expand(none, 2).shape == (0, 4)
    assert boxes.nms(none, np.empty(0, np.float32), 0.5).shape == (0,)


def test_area_clip_square_expand() -> None:
    box = np.array([[-2, 4, 8, 24]], np.float32)
    assert boxes.area(box).tolist() == [200]
    assert boxes.clip(box, 6, 20).tolist() == [[0, 4, 6, 20]]
    assert boxes.square(box).tolist() == [[-7, 4, 13, 24]]
    assert boxes.expand(box, 1.5).tolist() == [[-4.5, -1, 10.5, 29]]


def test_iou_of_boxes_that_are_equal_half_apart_and_disjoint() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    assert boxes.iou_matrix(a, b)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])


def test_a_box_falls_to_a_better_one_that_falls_itself() -> None:
    chain = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], np.float32)
    assert boxes.nms(chain, np.array([0.9, 0.8, 0.7], np.float32), 0.5).tolist() == [0]


def test_groups_do_not_meet() -> None:
    same = np.array([[-5, 0, 10, 10]] * 3, np.float32)
    kept = boxes.nms(same, np.array([0.7, 0.9, 0.8], np.float32), 0.5, groups=np.array([0, 1, 0]))
    assert kept.tolist() == [1, 2]


def test_the_smaller_of_two_boxes_can_be_the_measure() -> None:
    nested = np.array([[0, 0, 30, 30], [10, 10, 20, 20]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert boxes.nms(nested, scores, 0.7).tolist() == [0, 1]
    assert boxes.nms(nested, scores, 0.7, overlap="min").tolist() == [0]


@given(box_lists, st.data(), st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.sampled_from(["union", "min"]))
def test_nms_is_its_definition(found: NDArray[np.float64], data: st.DataObject, threshold: float, overlap: str) -> None:
    n = len(found)
    scores = data.draw(arrays(np.float64, n, elements=st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])))
    groups = data.draw(arrays(np.int64, n, elements=st.integers(0, 2)))
    better = [[i for i in range(n) if groups[i] == groups[j] and (scores[i], -i) > (scores[j], -j)] for j in range(n)]
    expected = {j for j in range(n) if all(overlap_of(found[i], found[j], overlap) <= threshold for i in better[j])}
    kept = boxes.nms(found, scores, threshold, groups=groups, overlap=overlap)  # type: ignore[arg-type]
    assert set(kept.tolist()) == expected
    assert (np.diff(scores[kept]) <= 0).all()
