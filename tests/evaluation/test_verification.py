"""Pairs files, the protocol on them, and the ROC."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.evaluation.false_matches import draw_people, variance_of_mean
from worker.evaluation.verification import (
    NO_FACE,
    PhotoKey,
    accuracy,
    accuracy_document,
    find_photos,
    fit_threshold,
    pair_similarities,
    read_pairs,
    receiver_operating_characteristic,
    substitution_accuracies,
    verify_at,
    verify_in_folds,
)

SAME = "Ann_Lee\t1\t2"
DIFFERENT = "Ann_Lee\t1\tBo_Ek\t3"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pairs_are_read_with_tabs_or_blanks_and_each_image_is_named_once(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, SAME, "", "Ann_Lee 2 Bo_Ek 3  "))
    assert pairs.photos == (PhotoKey("Ann_Lee", 1), PhotoKey("Ann_Lee", 2), PhotoKey("Bo_Ek", 3))
    assert pairs.same.tolist() == [True, False]
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 1], [1, 2])


def test_names_may_hold_blanks_between_tabs(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path, "Ann Lee\t1\tBo Ek\t3")).photos[0] == PhotoKey("Ann Lee", 1)


@pytest.mark.parametrize(
    ("header", "folds"), [(["2\t2"], 2), (["2 2"], 2), (["4"], 1), ([], 2)], ids=["tabs", "blanks", "view 1", "none"]
)
def test_folds_come_from_the_header_else_from_equal_runs(tmp_path: Path, header: list[str], folds: int) -> None:
    pairs = read_pairs(write(tmp_path, *header, *([SAME] * 2 + [DIFFERENT] * 2) * 2))
    assert len(pairs) == 8
    assert pairs.fold_count == folds


def test_uneven_runs_are_one_fold(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path, SAME, DIFFERENT, SAME, SAME, DIFFERENT, DIFFERENT)).fold_count == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([SAME, "Ann_Lee 1"], "line 2: expected"),
        ([SAME, "Ann_Lee one 2"], "line 2: the image numbers"),
        ([SAME, "", "../x 1 2"], "line 3: a name cannot be a path"),
        (["10 300", SAME, DIFFERENT], "line 1: the header says 10 x 600 pairs, the file holds 2"),
        (["10 300"], "holds no pairs"),
        ([], "holds no pairs"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_pairs(write(tmp_path, *lines))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt: No such file"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(SourceError, match="not a text file"):
        read_pairs(tmp_path / "photo.jpg")


def test_images_are_found_with_any_suffix_and_a_few_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "Ann_Lee").mkdir()
    keys = [PhotoKey("Ann_Lee", number) for number in range(1, 41)]
    for number in range(1, 40):
        (tmp_path / "Ann_Lee" / f"Ann_Lee_{number:04d}{'.jpg' if number % 2 else '.PNG'}").touch()
    found = find_photos(keys, tmp_path)
    assert found[1] == tmp_path / "Ann_Lee" / "Ann_Lee_0002.PNG"
    assert found[39] is None
    with pytest.raises(SourceError, match=r"no image .*Ann_Lee_0040\.jpg, and 1 of the 2"):
        find_photos(keys[38:], tmp_path)
    with pytest.raises(SourceError, match="no folder of images"):
        find_photos(keys, tmp_path / "none")


def test_a_pair_without_a_face_is_never_the_same(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, SAME, DIFFERENT))
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert pair_similarities(pairs, vectors, np.array([True, True, True])).tolist() == [1.0, 0.0]
    assert pair_similarities(pairs, vectors, np.array([True, False, True])).tolist() == [NO_FACE, 0.0]
    assert not (np.array([NO_FACE]) >= -1.0).any()


labelled = st.lists(st.tuples(st.integers(-10, 9), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({same for _, same in rows}) == 2
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([value / 10 for value, _ in rows]), np.array([same for _, same in rows])


@given(labelled)
def test_the_roc_is_what_counting_gives(rows: list[tuple[int, bool]]) -> None:
    similarities, same = arrays(rows)
    roc = receiver_operating_characteristic(similarities, same)
    assert np.all(np.diff(roc.far) >= 0)
    assert np.all(np.diff(roc.tar) >= 0)
    assert (roc.far[0], roc.tar[0], roc.far[-1], roc.tar[-1]) == (0, 0, 1, 1)
    for threshold, far, tar in zip(roc.thresholds, roc.far, roc.tar, strict=True):
        assert far == pytest.approx(np.mean(similarities[~same] >= threshold))
        assert tar == pytest.approx(np.mean(similarities[same] >= threshold))
    own, others = similarities[same][:, None], similarities[~same][None, :]
    assert roc.auc == pytest.approx(np.mean((own > others) + 0.5 * (own == others)))
    assert 0 <= roc.eer <= 1


@given(labelled, st.floats(0, 1), st.floats(0, 1))
def test_tar_at_far_rises_with_far_and_keeps_to_it(rows: list[tuple[int, bool]], a: float, b: float) -> None:
    similarities, same = arrays(rows)
    roc = receiver_operating_characteristic(similarities, same)
    assert roc.tar_at(min(a, b)) <= roc.tar_at(max(a, b))
    best = max(
        (
            np.mean(similarities[same] >= limit)
            for limit in roc.thresholds
            if np.mean(similarities[~same] >= limit) <= a
        ),
    )
    assert roc.tar_at(a) == pytest.approx(best)


@given(labelled)
def test_the_fitted_threshold_is_about_as_good_as_any(rows: list[tuple[int, bool]]) -> None:
    similarities, same = arrays(rows)
    fewest = min(np.sum((similarities >= limit) != same) for limit in [*similarities, 1.1])
    mistakes = round((1 - accuracy(similarities, same, fit_threshold(similarities, same))) * len(same))
    assert mistakes <= fewest + np.sqrt(fewest)


def test_the_fitted_threshold_lies_in_the_middle_of_a_clean_gap() -> None:
    similarities = np.array([0.1, 0.2, 0.6, 0.8])
    assert fit_threshold(similarities, similarities > 0.5) == pytest.approx(0.4)


def test_pairs_of_one_kind_have_no_roc() -> None:
    with pytest.raises(SourceError, match="all of one kind"):
        receiver_operating_characteristic(np.array([0.1, 0.2]), np.array([True, True]))


def folded_pairs(tmp_path: Path, folds: int = 5, size: int = 20) -> tuple[Path, NDArray[np.float64]]:
    """A file of ``folds`` folds with similarities of two overlapping normal distributions."""
    generator = np.random.default_rng(3)
    lines, similarities = [f"{folds} {size}"], []
    for fold in range(folds):
        lines += [f"P{fold}_{i} 1 2" for i in range(size)]
        lines += [f"P{fold}_{i} 1 Q{fold}_{i} 1" for i in range(size)]
        similarities += [*generator.normal(0.6, 0.15, size), *generator.normal(0.2, 0.15, size)]
    return write(tmp_path, *lines), np.array(similarities)


def test_a_substitute_counts_by_its_worst_pairing_at_the_threshold_of_the_original(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, "Ann 1 2", "Ann 1 Bo 1", "Bo 1 2", "Ann 2 Bo 2"))
    ann, bo = np.eye(4, dtype=np.float32)[:2]
    vectors = np.stack([ann if photo.person == "Ann" else bo for photo in pairs.photos])
    turned = vectors[:, [2, 3, 0, 1]]  # tells people apart as well as before, in a space of its own
    found = np.ones(len(vectors), bool)
    assert substitution_accuracies(pairs, vectors, vectors, found) == (1.0, 1.0, 1.0)
    assert substitution_accuracies(pairs, vectors, turned, found) == (1.0, 1.0, 0.5)
    blurred = np.full_like(vectors, 0.5)
    assert substitution_accuracies(pairs, vectors, blurred, found) == (1.0, 0.5, 0.5)


def test_in_folds_each_is_judged_by_a_threshold_of_the_others(tmp_path: Path) -> None:
    path, similarities = folded_pairs(tmp_path)
    pairs = read_pairs(path)
    result = verify_in_folds(pairs, similarities, draws=50)
    rates = []
    for fold in range(5):
        out = pairs.folds == fold
        rates.append(accuracy(similarities[out], pairs.same[out], fit_threshold(similarities[~out], pairs.same[~out])))
    assert result.fold_accuracies == pytest.approx(rates)
    assert result.accuracy == pytest.approx(np.mean(rates))
    assert result.accuracy_sem == pytest.approx(np.std(rates, ddof=1) / np.sqrt(5))


def test_without_folds_the_given_threshold_is_applied_and_named(tmp_path: Path) -> None:
    path, similarities = folded_pairs(tmp_path)
    pairs = read_pairs(path)
    result = verify_at(pairs, similarities, 0.4, "somewhere", draws=200)
    document = accuracy_document(result, pairs)
    assert document["accuracy"] == pytest.approx(np.mean((similarities >= 0.4) == pairs.same))
    assert document["threshold_source"] == "somewhere"
    low, high = document["confidence_intervals_95"]["accuracy"]
    assert low < document["accuracy"] < high
    # 200 pairs that hardly share people: near the binomial error.
    binomial = np.sqrt(document["accuracy"] * (1 - document["accuracy"]) / 200)
    assert binomial <= document["accuracy_sem"] < 2 * binomial


def test_the_variance_over_people_is_that_of_repeated_samples() -> None:
    """Comparisons of everybody with everybody, where each person shifts all of theirs."""
    generator = np.random.default_rng(1)
    first, second = np.triu_indices(40, 1)
    means, variances = [], []
    for _ in range(400):
        shift = generator.normal(size=40)
        values = shift[first] + shift[second] + generator.normal(size=len(first))
        means.append(values.mean())
        variances.append(variance_of_mean(first, second, values))
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.25)
    assert np.var(means) > 10 * 3 / len(first)  # far more than independent pairs would have


def test_people_are_drawn_with_replacement_and_reproducibly() -> None:
    drawn = np.concatenate(list(draw_people(7, 100, seed=5)))
    assert drawn.shape == (100, 7)
    assert np.all(drawn.sum(axis=1) == 7)
    assert np.array_equal(drawn, np.concatenate(list(draw_people(7, 100, seed=5))))
    assert drawn.var(axis=0).mean() == pytest.approx(1 - 1 / 7, rel=0.3)
