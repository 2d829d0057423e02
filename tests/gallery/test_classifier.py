import hashlib
import io
import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.config import RecognitionConfig, cache_dir, load_config
from worker.errors import ClassifierError
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.gallery.classifier import Classifier, Head, identity_id_of, write_classifier
from worker.recognition.matching import decide
from worker.service.service import Service
from worker.training import svm
from worker.training.answers import Answers, fit_limits, measure_strangers
from worker.types import Candidate, Embeddings, Event

DIMENSION = 16
NAMES = ("Ada", "Bo", "Cleo", "Dora", "Eve", "Finn", "Gus")


def faces(
    people: int, each: int, *, seed: int = 0, spread: float = 0.15, dimension: int = DIMENSION
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around one direction for each person."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(NAMES) + 3, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    owners = np.repeat(np.arange(people), each)
    vectors = centres[owners] + random.normal(scale=spread, size=(len(owners), dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), owners


def write(path: Path, people: int = 3, **changes: Any) -> Classifier:
    dimension = changes.get("dimension", DIMENSION)
    vectors, owners = faces(people, 6, dimension=dimension)
    described = {
        "kind": "svm", "created_at": "2026-01-01T00:00:00.000Z", "model_id": "stand-in", "preprocessing_digest": "d",
        "dimension": dimension, "people": NAMES[:people], "threshold": 0.5, "least_probability": 0.6,
    }  # fmt: skip
    write_classifier(path, svm.fit(vectors, owners, 0), vectors, owners, **(described | changes))
    return Classifier.open(path)


@pytest.mark.parametrize("people", [2, 3, 7])
def test_probabilities_are_scikit_learns_own(people: int, tmp_path: Path) -> None:
    vectors, owners = faces(people, 6, spread=0.5)
    probes, _ = faces(len(NAMES), 20, seed=1, spread=0.8)
    estimator = svm.fit_estimator(vectors, owners, 3)
    write_classifier(
        tmp_path / "c", svm.head_of(estimator), vectors, owners, kind="svm", created_at="", model_id="m",
        preprocessing_digest="d", dimension=DIMENSION, people=NAMES[:people], threshold=0.0, least_probability=0.0,
    )  # fmt: skip
    ours = Classifier.open(tmp_path / "c").probabilities(probes)
    assert np.ptp(ours.max(axis=1)) > 0.1  # not all alike, so that there is something to compare
    np.testing.assert_allclose(ours, estimator.predict_proba(probes.astype(np.float64)), atol=1e-6)


def test_scores_that_calibrate_to_nothing_are_shared_out_evenly() -> None:
    head = Head("sigmoid", np.eye(3), np.zeros(3), np.full(3, -1.0), np.full(3, 1e4))
    np.testing.assert_allclose(head.probabilities(np.eye(3, dtype=np.float32)), 1 / 3)


def test_people_come_by_probability_with_the_cosine_to_their_nearest_reference(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    references, owners = faces(3, 6)
    probes, people = faces(3, 5, seed=5)
    for probe, person, found in zip(probes, people, classifier.search(Embeddings(probes, "stand-in")), strict=True):
        assert found.identity_name == NAMES[person]
        assert found.identity_id == identity_id_of(NAMES[person])
        assert found.similarity == pytest.approx(float((references @ probe)[owners == person].max()), abs=1e-5)
        assert found.probability == pytest.approx(float(classifier.probabilities(probe[None]).max()))
        assert found.runner_up_name not in ("", found.identity_name)


def test_people_who_are_passed_over_are_not_proposed(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    probe = Embeddings(faces(3, 1, seed=5)[0][:1], "stand-in")
    (first,) = classifier.search(probe)
    assert first.identity_id is not None
    (second,) = classifier.search(probe, {first.identity_id})
    assert (second.identity_id, second.similarity) == (first.runner_up_id, first.runner_up)
    assert classifier.knows(first.identity_id)
    everybody = [identity_id_of(name) for name in classifier.people]
    (nobody,) = classifier.search(probe, everybody)
    assert (nobody.identity_id, nobody.identity_name, nobody.runner_up_id) == (None, "", "")
    assert not classifier.knows("nobody")


def test_a_stranger_is_refused_by_distance_and_by_probability(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c", least_probability=0.6)
    config = RecognitionConfig(min_embeddings=1)
    far, _ = faces(len(NAMES), 4, seed=2)
    known, _ = faces(3, 4, seed=3)

    def reasons(vectors: np.ndarray) -> list[str]:
        return [
            decide(found, config, threshold=classifier.threshold, evidence=1, gallery_version=1).reason
            for found in classifier.search(Embeddings(vectors, "stand-in"))
        ]

    assert set(reasons(known)) == {"matched"}
    assert set(reasons(far[12:])) == {"below_threshold"}
    # From one person to another: somewhere in between it is neither of them, though both are near.
    share = np.linspace(0, 1, 41)[:, None]
    way = share * known[:4].mean(axis=0) + (1 - share) * known[4:8].mean(axis=0)
    way = (way / np.linalg.norm(way, axis=1, keepdims=True)).astype(np.float32)
    least = int(classifier.probabilities(way).max(axis=1).argmin())
    assert reasons(way[least : least + 1]) == ["improbable"]


@pytest.mark.parametrize(
    ("probability", "before", "reason"),
    [(0.7, None, "matched"), (0.55, None, "improbable"), (0.58, "a", "matched"), (0.5, "a", "improbable")],
)
def test_a_name_is_kept_a_little_below_the_probability_that_gives_it(
    probability: float, before: str | None, reason: str
) -> None:
    config = RecognitionConfig(min_embeddings=1, hysteresis=0.05)
    sure = Candidate("a", "Ada", 0.8, 0.79, "b", "Bo", probability=0.9, least_probability=0.6)
    # The runner-up is nearer than the margin allows: its probability has been weighed already.
    previous = decide(sure, config, threshold=0.5, evidence=3, gallery_version=1) if before else None
    match = decide(
        replace(sure, probability=probability), config, threshold=0.5, evidence=3, gallery_version=1, previous=previous
    )
    assert match.reason == reason
    assert match.identity_id == ("a" if reason == "matched" else None)


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    with pytest.raises(ClassifierError, match="trained with model stand-in, not other"):
        classifier.search(Embeddings(faces(1, 1)[0], "other"))
    with pytest.raises(ClassifierError, match="use --model stand-in"):
        classifier.require_model("stand-in", "another digest")


def test_a_folder_without_a_classifier_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="facestream train svm"):
        Classifier.open(tmp_path)


def test_every_flipped_bit_of_the_numbers_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "c")
    (arrays,) = (tmp_path / "c").glob("arrays-*.npz")
    content = bytearray(arrays.read_bytes())
    for place in range(0, len(content), len(content) // 40):
        content[place] ^= 4
        arrays.write_bytes(content)
        with pytest.raises(ClassifierError, match="another digest; train it anew"):
            Classifier.open(tmp_path / "c")
        content[place] ^= 4


@pytest.mark.parametrize(
    "change",
    [{"people": ["Ada", "Bo"]}, {"dimension": 8}, {"least_probability": 2.0}, {"arrays": "../../etc/passwd"},
     {"format": "facestream.classifier.v9"}, {"surprise": 1}],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_told_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "c")
    file = tmp_path / "c" / "classifier.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ClassifierError, match="is damaged") as caught:
        Classifier.open(tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_numbers_that_are_none_or_unpack_to_gigabytes_are_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "c")
    file, (arrays,) = tmp_path / "c" / "classifier.json", (tmp_path / "c").glob("*.npz")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("references.npy", "w") as part:
        for _ in range(1025):
            part.write(bytes(1 << 20))
    for content in (bomb.getvalue(), b"no zip", b"PK\x03\x04", arrays.read_bytes()[:-40]):
        arrays.write_bytes(content)
        told = json.loads(file.read_text()) | {"arrays_sha256": hashlib.sha256(content).hexdigest()}
        file.write_text(json.dumps(told))
        with pytest.raises(ClassifierError, match=arrays.name) as caught:
            Classifier.open(tmp_path / "c")
        assert "\n" not in str(caught.value)


def test_nothing_in_the_folder_is_an_object_to_be_unpickled(tmp_path: Path) -> None:
    write(tmp_path / "c")
    for file in (tmp_path / "c").iterdir():
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)):
            pickle.loads(file.read_bytes())
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                assert {arrays[name].dtype.kind for name in arrays.files} <= {"f", "i"}


def test_a_new_training_is_taken_up_by_whoever_has_the_folder_open(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    assert not classifier.reload_if_changed()
    write(tmp_path / "c", people=4)
    assert classifier.reload_if_changed()
    assert (classifier.version, classifier.people, len(classifier)) == (2, NAMES[:4], 4)
    assert len(list((tmp_path / "c").glob("arrays-*"))) == 1


def test_what_is_in_memory_stays_in_use_while_the_folder_cannot_be_read(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    (tmp_path / "c" / "classifier.json").write_text("{")
    assert not classifier.reload_if_changed()
    shutil.rmtree(tmp_path / "c")
    assert not classifier.reload_if_changed()
    assert classifier.search(Embeddings(faces(1, 1)[0], "stand-in"))[0].identity_name == "Ada"


def test_a_classifier_of_another_model_in_the_folder_is_not_taken_up_silently(tmp_path: Path) -> None:
    classifier = write(tmp_path / "c")
    write(tmp_path / "c", model_id="other", preprocessing_digest="e")
    with pytest.raises(ClassifierError, match="was replaced"):
        classifier.reload_if_changed()


@pytest.mark.data
def test_a_running_worker_goes_on_with_a_classifier_that_was_trained_anew_on_another_model(
    test_data: Path, tmp_path: Path, redis_url: str
) -> None:
    models = test_data / "models"
    first, second = (
        load_embedder(f"face-reidentification-retail-0095{ending}", models_dir=models, cache_dir=cache_dir())
        for ending in ("", "+flip")
    )

    def train(embedder: FaceEmbedder) -> None:
        write(
            tmp_path / "c",
            model_id=embedder.model_id,
            preprocessing_digest=embedder.preprocessing_digest,
            dimension=embedder.dimension,
        )

    train(first)
    clip = test_data / "video" / "speaker_katie_hill.mp4"
    config = load_config(
        None,
        {
            "cameras": [{"id": "desk", "source": str(clip), "policy": "every"}],
            "classifier": str(tmp_path / "c"),
            "models_dir": models,
            "redis": {"url": redis_url},
            "metrics": {"enabled": False},
        },
    )
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            train(second)

    stopped = Service(config, on_event=on_event).run()
    assert stopped.errors == ()
    assert [(event.type, event.model_id) for event in events] == [
        (kind, embedder.model_id) for embedder in (first, second) for kind in ("started", "ended")
    ]


shares = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(shares, shares, st.booleans()), max_size=30),
    st.lists(st.tuples(shares, shares), max_size=30),
    st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from([-1.0, 0.4]),
)
def test_limits_never_name_more_strangers_than_allowed(
    known: list[tuple[float, float, bool]], strangers: list[tuple[float, float]], rate: float, least: float
) -> None:
    def answers(rows: list[tuple[Any, ...]]) -> Answers:
        table = np.array([row[:2] for row in rows], np.float64).reshape(-1, 2)
        right = np.array([len(row) == 3 and row[2] for row in rows], bool)
        return Answers(table[:, 0], table[:, 1], right, np.arange(len(rows)))

    limits = fit_limits(answers(known), answers(strangers), stranger_rate=rate, least_cosine=least)
    assert limits.named(answers(strangers)).sum() <= rate * len(strangers)
    assert limits.cosine >= least


def test_limits_name_everybody_where_strangers_are_far_away() -> None:
    known = Answers(np.full(20, 0.9), np.linspace(0.7, 0.9, 20), np.ones(20, bool), np.arange(20))
    strangers = Answers(np.full(20, 0.8), np.linspace(0.1, 0.4, 20), np.zeros(20, bool), np.arange(20))
    limits = fit_limits(known, strangers)
    assert limits.named(known).all()
    assert not limits.named(strangers).any()
    assert measure_strangers(known, strangers) == 0.0


def test_people_held_out_show_how_many_strangers_would_be_named() -> None:
    vectors, owners = faces(6, 8)
    held_out = svm.hold_people_out(vectors, owners, 0)
    assert held_out is not None
    known, strangers = held_out
    assert len(strangers) == len(vectors)  # everybody was a stranger once
    assert known.right.mean() > 0.95
    assert np.median(strangers.cosine) < np.median(known.cosine) - 0.2
