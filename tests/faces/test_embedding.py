"""Chips become unit vectors, in few batch sizes, on whichever engine was asked for."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.models import MEAN, SCALE, SIDE, chips, document, own_model
from worker.errors import ModelError
from worker.faces import alignment
from worker.faces.alignment import Averaging, split_variant
from worker.faces.embedding import BATCH_SIZES, FaceEmbedder, load_embedder
from worker.faces.engines import choose_engine
from worker.faces.manifests import Manifest, load_manifest
from worker.observer import Observer
from worker.types import Chips, Detections


class MeanColour:
    """A network whose features are a chip's mean colour; it notes the batches it was given."""

    device = "CPU"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.output: NDArray[np.float32] | None = None

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        assert batch.flags.c_contiguous
        self.sizes.append(len(batch))
        if self.output is not None:
            return (np.repeat(self.output[None], len(batch), axis=0),)
        return (batch.astype(np.float32).mean(axis=(1, 2))[:, :, None, None],)


def embedder(network: MeanColour, observer: Observer | None = None, **changes: Any) -> FaceEmbedder:
    manifest = Manifest.model_validate(document(**changes))
    return FaceEmbedder(manifest, network, lambda image, _: image[None], engine="test", observer=observer)


@given(n=st.integers(0, 80))
def test_every_count_gives_its_own_vectors_in_order_from_the_fixed_batch_sizes(n: int) -> None:
    network = MeanColour()
    given_chips = chips(n)
    found = embedder(network).embed(given_chips)
    means = given_chips.images.astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(found.vectors, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-5)
    assert found.vectors.dtype == np.float32
    assert found.model_id == "means"
    assert set(network.sizes) <= set(BATCH_SIZES)
    assert sum(network.sizes) < max(2 * n, 1) + 1


def test_no_faces_run_no_network() -> None:
    network = MeanColour()
    assert embedder(network).embed(chips(0)).vectors.shape == (0, 3)
    assert network.sizes == []


def test_a_network_for_single_faces_gets_them_singly() -> None:
    network = MeanColour()
    embedder(network, input=document()["input"] | {"max_batch": 1}).embed(chips(5))
    assert network.sizes == [1] * 5


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error_and_never_a_result(value: float) -> None:
    network = MeanColour()
    network.output = np.full(3, value, np.float32)
    with pytest.raises(ModelError, match="zero or not a number"):
        embedder(network).embed(chips(2))


def test_a_vector_of_another_length_than_the_manifest_says_is_an_error() -> None:
    with pytest.raises(ModelError, match="3 numbers, its manifest says 4"):
        embedder(MeanColour(), dimension=4).embed(chips(1))


def test_chips_of_another_size_or_type_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8 chips of 16 px"):
        embedder(MeanColour()).embed(chips(1, side=20))
    with pytest.raises(ValueError, match="uint8 chips"):
        embedder(MeanColour()).embed(Chips(np.zeros((1, SIDE, SIDE, 3), np.float32)))


def test_bgr_chips_are_turned_to_rgb() -> None:
    straight = chips(3)
    reversed_images: NDArray[Any] = straight.images[..., ::-1]
    turned = Chips(np.ascontiguousarray(reversed_images), "bgr")
    one = embedder(MeanColour())
    np.testing.assert_array_equal(one.embed(straight).vectors, one.embed(turned).vectors)


def test_the_observer_hears_of_stages_and_batches() -> None:
    heard: list[Any] = []

    class Ears(Observer):
        def batch(self, stage: Any, size: int) -> None:
            heard.append((stage, size))

    embedder(MeanColour(), Ears()).embed(chips(35))
    assert heard == [("embed", 32), ("embed", 3)]


# A network as files: the mean colour again, but preprocessed as the manifest says.


@pytest.mark.parametrize(
    ("model_format", "engine"), [("onnx", "auto"), ("onnx", "openvino"), ("onnx", "onnx"), ("openvino", "auto")]
)
def test_a_model_of_ones_own_is_preprocessed_as_its_manifest_says(
    tmp_path: Path, model_format: str, engine: str
) -> None:
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    manifest = own_model(tmp_path, model_format)
    made = load_embedder(str(manifest), models_dir=None, cache_dir=tmp_path / "cache", engine=engine, precision="fp32")
    assert made.engine == ("openvino" if engine == "auto" else engine)
    assert made.device == "CPU"
    given_chips = chips(5)
    bgr = given_chips.images[..., ::-1].astype(np.float64).mean(axis=(1, 2))
    expected = (bgr - MEAN) / SCALE
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(made.embed(given_chips).vectors, expected, atol=1e-5)


def test_a_manifest_with_the_wrong_side_is_told_apart(tmp_path: Path) -> None:
    path = own_model(tmp_path, "onnx")
    changed = yaml.safe_load(path.read_text())
    changed["input"] |= {"side": 32, "layout": "nhwc"}
    path.write_text(yaml.safe_dump(changed))
    for engine in ("openvino", "onnx"):
        with pytest.raises(ModelError, match=r"means\.onnx"):
            load_embedder(str(path), models_dir=None, cache_dir=tmp_path / "cache", engine=engine).embed(
                chips(1, side=32)
            )


def test_engines_are_taken_by_name_and_otherwise_by_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("m", "h5") == "openvino"
    assert choose_engine("m", "h5", "keras") == "keras"
    assert choose_engine("m", "dlib") == "dlib"
    assert choose_engine("m", "onnx") == "openvino"
    with pytest.raises(ModelError, match="runs on dlib, not on the engine 'keras'"):
        choose_engine("m", "dlib", "keras")


def test_missing_weights_are_noticed_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights of vggface2-resnet50 are missing"):
        load_embedder("vggface2-resnet50", models_dir=None, cache_dir=tmp_path)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    manifest = own_model(tmp_path, "onnx")
    with pytest.raises(ModelError, match="INT8"):
        load_embedder(str(manifest), models_dir=None, cache_dir=tmp_path / "cache", precision="int8")


# Real faces.

CENTRE = Detections(
    np.array([[75, 70, 175, 190]], np.float32),
    np.array([0.99], np.float32),
    np.array([[[104, 113], [146, 113], [125, 136], [108, 158], [142, 158]]], np.float32),
)
"""Where the face is in the deep-funneled images of LFW, all of which are aligned to each other."""

PEOPLE = ("George_W_Bush", "Colin_Powell", "Tony_Blair", "Laura_Bush")


def lfw_chips(made: FaceEmbedder, test_data: Path) -> tuple[Chips, NDArray[np.intp]]:
    found: list[NDArray[Any]] = []
    people: list[int] = []
    for number, person in enumerate(PEOPLE):
        for path in sorted((test_data / "lfw_dev" / "images" / person).glob("*.jpg"))[:3]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            found.append(made.align(image, CENTRE).images)
            people.append(number)
    return Chips(np.concatenate(found)), np.array(people)


@pytest.mark.data
@pytest.mark.parametrize("model", ["face-reidentification-retail-0095", "dlib-resnet"])
def test_real_faces_of_one_person_are_nearer_than_those_of_two(
    test_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    if model == "dlib-resnet":
        pytest.importorskip("dlib")
    with caplog.at_level("INFO", logger="worker"):
        made = load_embedder(model, models_dir=test_data / "models", cache_dir=tmp_path)
    (said,) = [record.msg for record in caplog.records if record.name == "worker.faces.embedding"]
    assert isinstance(said, dict)
    assert said["model"] == model
    assert said["engine"] == made.engine
    assert said["device"] == made.device == "CPU"
    manifest = load_manifest(model)
    assert (made.dimension, made.threshold) == (manifest.dimension, manifest.threshold)
    assert made.preprocessing_digest == manifest.preprocessing_digest
    faces, people = lfw_chips(made, test_data)
    vectors = made.embed(faces).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similar, same = vectors @ vectors.T, people[:, None] == people[None]
    upper = np.triu(np.ones_like(same), 1).astype(bool)
    assert np.mean((similar >= made.threshold)[upper] == same[upper]) > 0.97
    assert made.align(np.zeros((50, 50, 3), np.uint8), Detections.empty()).images.shape == (0, *faces.images.shape[1:])


@pytest.mark.data
def test_reduced_precision_keeps_directions_on_real_faces(test_data: Path, tmp_path: Path) -> None:
    def vectors(precision: str) -> NDArray[np.float32]:
        made = load_embedder(
            "face-reidentification-retail-0095",
            models_dir=test_data / "models",
            cache_dir=tmp_path,
            precision=precision,
        )
        found = made.embed(lfw_chips(made, test_data)[0]).vectors
        centred: NDArray[np.float32] = found - found.mean(axis=0)
        unit: NDArray[np.float32] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return unit

    assert (vectors("fp32") * vectors("bf16")).sum(axis=1).min() > 0.998


class Halves(MeanColour):
    """A network that tells left from right and centre from border."""

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        pixels = batch.astype(np.float32)
        parts = [pixels[:, :, : SIDE // 2], pixels[:, :, SIDE // 2 :], pixels[:, 5:11, 5:11]]
        return (np.stack([part.mean(axis=(1, 2, 3)) for part in parts], axis=1),)


def averaged(averaging: Averaging, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    manifest = Manifest.model_validate(document())
    made = FaceEmbedder(
        manifest, Halves(), lambda *_: np.empty((0, SIDE, SIDE, 3), np.uint8), engine="onnx", averaging=averaging
    )
    return made.embed(Chips(np.pad(images, [(0, 0), *[2 * (made.border_px,)] * 2, (0, 0)], "edge"))).vectors


def test_flip_makes_mirror_images_alike() -> None:
    chips = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    chips[:, :, : SIDE // 2] //= 4
    mirrored = np.ascontiguousarray(chips[:, :, ::-1])
    assert not np.allclose(averaged(Averaging(), chips), averaged(Averaging(), mirrored), atol=0.05)
    both = averaged(Averaging(flip=True), chips)
    assert np.allclose(both, averaged(Averaging(flip=True), mirrored), atol=1e-6)
    assert np.allclose(np.linalg.norm(both, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("jitter", [1, 4, 9])
def test_jitter_is_the_same_every_time_and_near_the_plain_vector(jitter: int) -> None:
    chips = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), (0, 0), 2)[
        None
    ]
    plain, moved = averaged(Averaging(), chips), averaged(Averaging(jitter=jitter), chips)
    assert np.array_equal(moved, averaged(Averaging(jitter=jitter), chips))
    assert not np.array_equal(moved, plain)
    assert float((moved @ plain.T).item()) > 0.99


def test_a_moved_face_is_cut_out_of_the_picture_as_its_moved_box_would_be() -> None:
    """The box protocol: what a view shows beside the chip is the picture, and no repeated edge of the chip."""
    picture = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), 3)
    box, side = np.array([[90, 80, 200, 210]], np.float32), 64
    seen: list[NDArray[np.uint8]] = []

    class Eyes(MeanColour):
        def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
            seen.append(batch)
            return super().__call__(batch)

    def cut(boxes: NDArray[np.float32], border: int = 0) -> NDArray[np.uint8]:
        matrices = alignment.with_border(alignment.box_matrices(boxes, side, 1.3, 73), border)
        return alignment.warp(picture, matrices, side + 2 * border)

    every = Averaging(jitter=len(alignment.MOVES))
    changes = {"input": document()["input"] | {"side": side}, "alignment": {"kind": "box"}}
    made = FaceEmbedder(
        Manifest.model_validate(document(**changes)),
        Eyes(),
        lambda _image, faces: cut(faces.boxes, alignment.border_px(side)),
        engine="test",
        averaging=every,
    )
    made.embed(made.align(picture, Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))))
    assert len(seen) == 1 + len(alignment.MOVES)
    assert np.abs(seen[0].astype(int) - cut(box)).max() <= 1
    chip_px = 1.3 * (box[0, 2] - box[0, 0]) * side / 73
    for view, (right, down, scale) in zip(seen[1:], alignment.MOVES, strict=True):
        centre, half = (box[0, :2] + box[0, 2:]) / 2, (box[0, 2:] - box[0, :2]) / 2
        centre = centre - np.array([right, down]) * chip_px / scale
        moved_box = np.concatenate([centre - half / scale, centre + half / scale])[None].astype(np.float32)
        difference = np.abs(view[0].astype(int) - cut(moved_box)[0])
        assert difference.max() <= 6
        assert difference.mean() < 1


@pytest.mark.parametrize(
    ("name", "model", "averaging"),
    [
        ("a-model", "a-model", Averaging()),
        ("a-model+flip", "a-model", Averaging(flip=True)),
        ("a-model+jitter4", "a-model", Averaging(jitter=4)),
        ("dir/my+own.yaml+flip+jitter9", "dir/my+own.yaml", Averaging(flip=True, jitter=9)),
        ("a-model+jitter0", "a-model+jitter0", Averaging()),
    ],
)
def test_the_model_name_says_what_is_averaged(name: str, model: str, averaging: Averaging) -> None:
    assert split_variant(name) == (model, averaging)


def test_vectors_of_other_views_are_another_models() -> None:
    digests = {Averaging(flip, jitter).digest("d") for flip in (False, True) for jitter in (0, 1, 2)}
    assert len(digests) == 6
    assert Averaging().digest("d") == "d"
    plain = FaceEmbedder(Manifest.model_validate(document()), MeanColour(), lambda *_: None, engine="onnx")  # type: ignore[arg-type]
    assert plain.model_id == "means"
