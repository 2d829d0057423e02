"""A linear support vector machine with calibrated probabilities, on unit vectors of faces.

It is fitted by scikit-learn. What it learnt is kept as arrays (:class:`worker.gallery.classifier.Head`), so that nobody
has to load a pickled object.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.gallery.classifier import Head
from worker.training.answers import Answers

LEAST_PHOTOS: Final = 2
"""Of each person: one to fit with, and one to calibrate with."""
_FOLDS: Final = 5
_GROUPS: Final = 10
_PENALTY: Final = 1.0

Vectors = NDArray[np.float32]
People = NDArray[np.int64]
Floats = NDArray[np.float64]


def fit(vectors: Vectors, people: People, seed: int) -> Head:
    """A classifier of unit vectors float32 (n, d). ``people`` int64 (n,) are numbered from 0 without a gap.

    Raises:
        ValueError: a person has fewer than :data:`LEAST_PHOTOS` vectors, or there are fewer than two people.
    """
    return head_of(fit_estimator(vectors, people, seed))


def fit_estimator(vectors: Vectors, people: People, seed: int) -> Any:
    """The same as :func:`fit`, but returns a ``CalibratedClassifierCV`` of scikit-learn."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    folds = StratifiedKFold(fold_count(people), shuffle=True, random_state=seed)
    machine = LinearSVC(C=_PENALTY, class_weight="balanced", random_state=seed, max_iter=20_000)
    # One machine is fitted on all photos. It is calibrated with what others say that have not seen the photo.
    calibrated = CalibratedClassifierCV(machine, method="sigmoid", cv=folds, ensemble=False)
    return calibrated.fit(vectors.astype(np.float64), people)


def head_of(estimator: Any) -> Head:
    """The numbers in a fitted ``CalibratedClassifierCV(LinearSVC(), method="sigmoid", ensemble=False)``."""
    (fitted,) = estimator.calibrated_classifiers_
    machine, curves = fitted.estimator, fitted.calibrators
    return Head(
        "sigmoid",
        np.array(machine.coef_, np.float64),
        np.array(machine.intercept_, np.float64),
        np.array([curve.a_ for curve in curves], np.float64),
        np.array([curve.b_ for curve in curves], np.float64),
    )


def fold_count(people: People) -> int:
    """The number of parts into which the photos can be split so that everybody is in each."""
    least = int(np.bincount(people).min())
    if least < LEAST_PHOTOS:
        raise ValueError(f"everybody needs at least {LEAST_PHOTOS} photos")
    return min(_FOLDS, least)


def cross_validate(vectors: Vectors, people: People, seed: int) -> tuple[NDArray[np.bool_], People]:
    """For each photo: whether a machine that had not seen it was right, bool (n,), and its fold, int64 (n,)."""
    from sklearn.model_selection import StratifiedKFold

    right, fold = np.zeros(len(people), bool), np.zeros(len(people), np.int64)
    splits = StratifiedKFold(_cross_folds(people), shuffle=True, random_state=seed)
    for number, (train, test) in enumerate(splits.split(vectors, people)):
        right[test] = (
            fit(vectors[train], people[train], seed).probabilities(vectors[test]).argmax(axis=1) == people[test]
        )
        fold[test] = number
    return right, fold


def can_cross_validate(people: People) -> bool:
    """Whether everybody has enough photos to fit and calibrate without one part of them."""
    return int(np.bincount(people).min()) >= LEAST_PHOTOS + 1


def hold_people_out(vectors: Vectors, people: People, seed: int) -> tuple[Answers, Answers] | None:
    """What machines say of unseen photos of people whom they know, and of strangers.

    The strangers are people who are held out in turn. None if there are fewer than three people, or too few photos.
    """
    count = int(people.max()) + 1
    if count < 3 or not can_cross_validate(people):
        return None
    from sklearn.model_selection import StratifiedKFold

    random = np.random.default_rng(seed)
    groups = random.permutation(count) % min(count, _GROUPS)
    splits = StratifiedKFold(_cross_folds(people), shuffle=True, random_state=seed)
    parts = [test for _, test in splits.split(vectors, people)]
    known, strangers = list[Answers](), list[Answers]()
    for group in range(int(groups.max()) + 1):
        stranger = groups[people] == group
        if len(np.unique(people[~stranger])) < 2:
            return None
        unseen = np.zeros(len(people), bool)
        unseen[parts[group % len(parts)]] = True
        fitted = ~stranger & ~unseen
        numbers, packed = np.unique(people[fitted], return_inverse=True)
        head = fit(vectors[fitted], packed.astype(np.int64), seed)
        for rows, kept in ((~stranger & unseen, known), (stranger, strangers)):
            kept.append(answers(head, vectors[fitted], numbers[packed], numbers, vectors[rows], people[rows]))
    return Answers.join(known), Answers.join(strangers)


def answers(
    head: Head, references: Vectors, owners: People, numbers: People, vectors: Vectors, people: People
) -> Answers:
    """What ``head`` says of ``vectors`` float32 (n, d), which show ``people`` int64 (n,).

    ``numbers`` (k,) are the people whom ``head`` tells apart. ``references`` (m, d) show ``owners`` (m,).
    """
    probabilities = head.probabilities(vectors)
    first = probabilities.argmax(axis=1)
    chosen = numbers[first]
    cosines = vectors @ references.T
    own = np.where(owners[None, :] == chosen[:, None], cosines, -1.0).max(axis=1)
    rows = np.arange(len(vectors))
    return Answers(probabilities[rows, first], own.astype(np.float64), chosen == people, people)


def _cross_folds(people: People) -> int:
    return min(_FOLDS, int(np.bincount(people).min()))
