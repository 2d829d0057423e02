"""The benchmark: what it compares, whether it sees that answers differ, and what it says where it cannot measure."""

import copy
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from tests.support.command_line import facestream
from tests.support.models import chips, own_model
from worker.bench import chain, comparison, live, load, networks, ours, run, search
from worker.bench.comparison import Row, Setup, compared, unable
from worker.bench.contest import Contestant, ContestantProcess, Outcome, Results, UnableError, compete, environment
from worker.bench.device_faces import agreement
from worker.bench.material import Material, query_vectors, stored_vectors
from worker.cli import run_command_line
from worker.errors import ModelError
from worker.faces.embedding import load_embedder
from worker.types import Detections
from worker.video.clips import ClipWriter

FIELDS = {"name", "ours", "peer", "unit", "ratio", "spread", "agree", "note"}
FACES = [[[10.0, 10.0, 50.0, 60.0, 0.99], [100.0, 20.0, 140.0, 70.0, 0.95]], [[5.0, 5.0, 45.0, 50.0, 0.92]]]


class Recorded:
    """Takes real contestants' answers down; or gives them again, changed by ``corrupt``."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], Outcome] = {}

    def start(self, target: str, arguments: Mapping[str, Any]) -> Contestant:
        process, recorded = ContestantProcess(target, arguments), self

        class Recording:
            def work(self, name: str) -> Outcome:
                recorded.outcomes[target, name] = process.work(name)
                return recorded.outcomes[target, name]

            def close(self) -> None:
                process.close()

        return Recording()

    def again(self, corrupt: Mapping[str, Callable[[Any], None]]) -> Callable[[str, Mapping[str, Any]], Contestant]:
        """``corrupt`` changes the answers of the targets it names, in place."""
        recorded = self

        def start(target: str, _arguments: Mapping[str, Any]) -> Contestant:
            class Replaying:
                def work(self, name: str) -> Outcome:
                    outcome = copy.deepcopy(recorded.outcomes[target, name])
                    corrupt.get(target, lambda _answer: None)(outcome.answer)
                    return outcome

                def close(self) -> None: ...

            return Replaying()

        return start


def only(name: str) -> Callable[[str], bool]:
    return lambda other: other == name


def no_material() -> Material:
    raise AssertionError("this row needs no material")


def material(folder: Path) -> Material:
    return Material(
        clip=folder / "clip.mp4", frames=folder / "frames.npy", chips=folder / "chips.npy",
        manifest=folder / "random.yaml", gallery=folder / "gallery", real_gallery=folder / "real-gallery",
        real_problem="", people=2, models_dir=None,
    )  # fmt: skip


def answering(answers: Mapping[str, Any], problems: Mapping[str, str] | None = None) -> Any:
    """A starter whose contestants answer, by the function's name, and take half a second for everything."""

    def start(target: str, _arguments: Mapping[str, Any]) -> Contestant:
        name = target.partition(":")[2]
        if problems and name in problems:
            raise UnableError(problems[name])

        class Stub:
            def work(self, _name: str) -> Outcome:
                return Outcome(0.5, answers[name], 100.0)

            def close(self) -> None: ...

        return Stub()

    return start


# Rows


def test_the_ratio_is_above_one_where_ours_is_better_in_time_and_in_rate() -> None:
    assert compared("t", [9, 10, 14], [100], "ms", agree=True).ratio == 10
    assert compared("r", [100, 90, 140], [10], "faces/s", more_is_better=True).ratio == 10
    worse = compared("t", [30], [10, 15, 20], "ms")
    assert worse.ratio == 0.5
    assert worse.spread == {"ours": (30, 30), "peer": (10, 20)}


def test_what_was_not_measured_is_null_and_says_why() -> None:
    alone = compared("t", [3.0], [], "ms", note="peer: not installed")
    assert (alone.ours, alone.peer, alone.ratio, alone.agree) == (3.0, None, None, None)
    assert alone.spread == {"ours": (3.0, 3.0)}
    nothing = unable("t", "ms", "no memory").document()
    assert set(nothing) == FIELDS
    assert [name for name, value in nothing.items() if value is not None] == ["name", "unit", "note"]


# Agreement


def test_the_same_faces_agree_and_a_small_shift_does_not_matter() -> None:
    shifted = [[[x1 + 2, y1, x2 + 2, y2, score] for x1, y1, x2, y2, score in image] for image in FACES]
    assert comparison.same_faces(FACES, FACES).agree
    assert comparison.same_faces(FACES, shifted).agree


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([[FACES[0][0]], FACES[1]], id="a face missed"),
        pytest.param([[*FACES[0], [300.0, 300, 340, 340, 0.97]], FACES[1]], id="a face too many"),
        pytest.param([[[x1 + 20, y1, x2 + 20, y2, s] for x1, y1, x2, y2, s in FACES[0]], FACES[1]], id="moved"),
        pytest.param([FACES[1], FACES[0]], id="in other images"),
        pytest.param(FACES[:1], id="an image short"),
        pytest.param([[], []], id="none"),
    ],
)
def test_other_faces_do_not_agree(found: list[Any]) -> None:
    assert not comparison.same_faces(FACES, found).agree


def test_unsure_faces_are_free_to_differ_and_no_face_at_all_is_no_agreement() -> None:
    unsure = [[*FACES[0], [300.0, 300, 340, 340, 0.85]], FACES[1]]
    assert comparison.same_faces(FACES, unsure).agree
    assert comparison.same_faces(unsure, FACES).agree
    assert not comparison.same_faces([[]], [[]]).agree


def test_vectors_are_compared_without_what_all_have_in_common() -> None:
    random = np.random.default_rng(0)
    own, common = random.normal(0, 1, (32, 64)), 100 * np.ones(64)
    alike = (own + common).tolist()
    assert comparison.same_vectors(alike, (own + common + random.normal(0, 0.005, own.shape)).tolist()).agree
    swapped = (own[[1, 0, *range(2, 32)]] + common).tolist()
    assert np.sum(np.array(alike[0]) * swapped[0]) / np.linalg.norm(alike[0]) / np.linalg.norm(swapped[0]) > 0.999
    assert not comparison.same_vectors(alike, swapped).agree
    assert not comparison.same_vectors(alike, alike[:31]).agree


def test_decisions_are_compared_not_the_nearest_of_those_who_stay_unknown() -> None:
    truth = [[3, 0.8], [7, 0.3]]
    assert comparison.same_people(truth, [[3, 0.79], [9, 0.31]], 0.5).agree
    assert not comparison.same_people(truth, [[4, 0.8], [7, 0.3]], 0.5).agree
    assert not comparison.same_people(truth, [[3, 0.8], [7, 0.6]], 0.5).agree
    assert not comparison.same_people(truth, truth[:1], 0.5).agree


# Real contestants


def move_boxes(answer: Any) -> None:
    for image in answer:
        for face in image:
            face[0] += 40
            face[2] += 40


@pytest.mark.slow
def test_detection_agrees_with_mtcnn_and_not_once_a_side_is_corrupted(tmp_path: Path, shared_cache: Path) -> None:
    portrait = cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    frames = [cv2.copyMakeBorder(portrait, 20, 4, 40 + 3 * shift, 80 - 3 * shift, cv2.BORDER_REPLICATE)
              for shift in range(8)]  # fmt: skip
    np.save(material(tmp_path).frames, np.stack(frames))
    recorded, name = Recorded(), "detect_1080p/mtcnn_single"

    def row(start: Any) -> Row:
        (made,) = networks.measure_detection(
            Setup(lambda: material(tmp_path), rounds=1, wanted=only(name), start=start)
        )
        return made

    real = row(recorded.start)
    assert real.agree is True, real.note
    assert real.name == name
    assert real.ours is not None
    assert real.peer is not None
    assert real.ratio == pytest.approx(real.peer / real.ours, rel=0.01)
    assert "8 of 8 faces" in real.note
    for target in ("worker.bench.ours:detectors", "worker.bench.peers:mtcnn"):
        assert row(recorded.again({target: move_boxes})).agree is False


@pytest.mark.slow
def test_search_agrees_with_the_flat_index_and_not_once_a_side_is_corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SIZES", {"10k": (400, 12)})
    recorded = Recorded()

    def row(start: Any) -> Row:
        (made,) = search.measure(Setup(no_material, rounds=1, wanted=only("search_10k/query"), start=start))
        return made

    def rename(answer: Any) -> None:
        answer["found"][1][0] += 1

    real = row(recorded.start)
    assert real.agree is True, real.note
    assert real.ratio is not None
    for target in ("worker.bench.ours:search", "worker.bench.peers:flat_search"):
        assert row(recorded.again({target: rename})).agree is False


def test_contestants_may_keep_what_python_compiles_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment().get("OMP_NUM_THREADS") == "1"
    assert "PYTHONDONTWRITEBYTECODE" not in environment()


def test_a_contestant_that_cannot_take_part_says_why() -> None:
    with pytest.raises(UnableError, match=r"worker\.bench\.nothing is not installed"):
        ContestantProcess("worker.bench.nothing:here", {})
    with pytest.raises(UnableError, match="TypeError"):
        ContestantProcess("worker.bench.material:query_vectors", {"people": 1})


@pytest.mark.parametrize(("free_gb", "turns"), [(1.0, ["ours", "ours", "flat", "flat"]), (0.01, [])])
def test_where_memory_is_short_the_sides_follow_each_other_or_say_so(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, turns: list[str]
) -> None:
    monkeypatch.setattr(search, "SIZES", {"10k": (40_000, 12)})
    monkeypatch.setattr(search, "available_gb", lambda: free_gb)
    taken: list[str] = []

    def start(target: str, _arguments: Mapping[str, Any]) -> Contestant:
        class Stub:
            def work(self, _name: str) -> Outcome:
                taken.append({"search": "ours", "flat_search": "flat"}[target.partition(":")[2]])
                return Outcome(1.0, {"found": [[1, 0.9]], "memory_mb": 1.0, "kind": "stub"}, 1.0)

            def close(self) -> None: ...

        return Stub()

    (row,) = search.measure(Setup(no_material, rounds=1, wanted=only("search_10k/query"), start=start))
    assert taken == turns
    assert row.agree is (True if turns else None)
    assert turns or "of memory" in row.note


# Row functions, on answers given


def test_embeddings_agree_by_row_and_a_corrupted_batch_shows(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (32, 16)).tolist()
    corrupted = [vectors[1], vectors[0], *vectors[2:]]

    def rows(ours: Any) -> dict[str, Row]:
        start = answering({"embedders": ours, "quantized": ours, "keras": vectors, "onnxruntime": vectors})
        setup = Setup(lambda: material(tmp_path), rounds=2, start=start)
        return {row.name: row for row in networks.measure_embedding(setup)}

    good, bad = rows(vectors), rows(corrupted)
    assert tuple(good) == networks.EMBEDDING_NAMES
    assert {row.agree for row in good.values()} == {True}
    assert {row.agree for row in bad.values()} == {False}
    assert good["embed/keras_predict_b32"].ours == 64


def test_a_missing_peer_leaves_our_own_number_and_its_name(tmp_path: Path) -> None:
    start = answering({"detectors": 4 * FACES}, {"facenet_pytorch": "facenet_pytorch is not installed"})
    setup = Setup(lambda: material(tmp_path), rounds=1, wanted=only("detect_1080p/facenet_pytorch"), start=start)
    (row,) = networks.measure_detection(setup)
    assert row.ours == 62.5
    assert (row.peer, row.ratio, row.agree) == (None, None, None)
    assert "facenet_pytorch is not installed" in row.note


@pytest.mark.parametrize(("faces", "agree"), [(4 * FACES, True), ([*FACES, [], *4 * FACES][:8], False), (FACES, False)])
def test_the_answers_of_one_image_at_a_time_are_the_measure_and_a_missing_image_shows(
    tmp_path: Path, faces: Any, agree: bool
) -> None:
    start = answering({"detectors": faces, "mtcnn": 4 * FACES})
    (row,) = networks.measure_detection(
        Setup(lambda: material(tmp_path), rounds=1, wanted=only("detect_1080p/mtcnn"), start=start)
    )
    assert "batch16" in row.note
    assert row.agree is agree


def test_our_own_failure_leaves_no_number(tmp_path: Path) -> None:
    start = answering({"keras": []}, {"quantized": "quantising needs NNCF"})
    (row,) = networks.measure_embedding(
        Setup(lambda: material(tmp_path), rounds=1, wanted=only("embed/int8_b32"), start=start)
    )
    assert (row.ours, row.peer, row.agree) == (None, None, None)
    assert "needs NNCF" in row.note


def test_int8_has_a_bar_of_its_own_and_says_what_it_does_not_show(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    exact = random.normal(0, 1, (32, 64))
    rounded = exact + random.normal(0, 0.2, exact.shape)
    start = answering({name: exact.tolist() for name in ("keras", "onnxruntime")} | {
        name: rounded.tolist() for name in ("embedders", "quantized")
    })  # fmt: skip
    rows = {
        row.name: row for row in networks.measure_embedding(Setup(lambda: material(tmp_path), rounds=1, start=start))
    }
    assert rows["embed/keras_predict_b32"].agree is False
    assert rows["embed/int8_b32"].agree is True
    assert "smallest cosine 0.9" in rows["embed/int8_b32"].note
    assert "cannot show what INT8 costs in accuracy" in rows["embed/int8_b32"].note


@pytest.mark.slow
def test_int8_vectors_are_those_of_the_network_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    manifest = own_model(tmp_path, "onnx")
    faces = chips(32)
    np.save(tmp_path / "chips.npy", faces.images)
    embed, describe = ours.quantized(str(tmp_path / "chips.npy"), str(manifest))["int8"]
    found = np.array(describe(embed()))
    exact = load_embedder(str(manifest), models_dir=tmp_path, cache_dir=tmp_path / "cache", precision="fp32")
    assert (found * exact.embed(faces).vectors).sum(axis=1).min() > 0.99
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelError, match=r"pip install 'facestream\[int8\]'"):
        ours.quantized(str(tmp_path / "chips.npy"), str(manifest))


def test_a_contestant_that_fails_midway_is_out_and_the_others_go_on() -> None:
    turns: list[str] = []

    def start(target: str, _arguments: Mapping[str, Any]) -> Contestant:
        class Stub:
            def work(self, name: str) -> Outcome:
                turns.append(f"{target}/{name}")
                if target == "b" and turns.count("b/x") == 2:
                    raise UnableError("it died")
                return Outcome(1.0, None, 1.0)

            def close(self) -> None:
                turns.append(f"{target} closed")

        return Stub()

    results = compete({"a": ("a", {}), "b": ("b", {})}, ["a/x", "b/x"], 2, start=start)
    assert len(results.outcomes["a/x"]) == 2
    assert "b/x" not in results.outcomes
    assert results.problem("b") == "it died"
    assert {"a closed", "b closed"} <= set(turns)


def test_sides_take_turns_and_another_one_begins_each_round() -> None:
    turns: list[str] = []

    def start(target: str, _arguments: Mapping[str, Any]) -> Contestant:
        class Stub:
            def work(self, name: str) -> Outcome:
                turns.append(target)
                return Outcome(1.0, None, 1.0)

            def close(self) -> None: ...

        return Stub()

    compete({"a": ("a", {}), "b": ("b", {})}, ["a/x", "b/x"], 2, start=start)
    assert turns == ["a", "b", "a", "b", "b", "a"]


CHAIN = {
    "tracks": [
        [np.linspace(0, 2, 26).tolist(), [[10.0 + k, 10, 60 + k, 70] for k in range(26)], "Ada"],
        [np.linspace(1, 3, 26).tolist(), [[300.0 + k, 10, 350 + k, 70] for k in range(26)], ""],
    ],
    "sightings": [["Ada", 0.0, 2.0]],
}


def chain_row(fast: Any, results: Results | None = None) -> Row:
    turns = [Outcome(4.0, {"fps": 30.0}, 1.0)]
    results = results or Results({"40px/run": turns, "tutorial/run": turns})
    return chain.row("chain_1080p/tutorial", 40, results, {"every": CHAIN, "fast": fast}, "")


def test_the_chain_agrees_where_every_track_and_identity_is_found() -> None:
    row = chain_row(CHAIN)
    assert row.agree is True
    assert (row.ours, row.peer, row.ratio) == (30, 1, 30)


@pytest.mark.parametrize(
    "fast",
    [
        pytest.param(CHAIN | {"tracks": CHAIN["tracks"][:1]}, id="a track missed"),
        pytest.param(CHAIN | {"sightings": []}, id="an identity missed"),
        pytest.param(CHAIN | {"sightings": [["Bob", 0.0, 2.0]]}, id="another identity"),
        pytest.param({"tracks": [], "sightings": []}, id="nothing"),
    ],
)
def test_the_chain_does_not_agree_where_something_is_missing(fast: Any) -> None:
    assert chain_row(fast).agree is False


def test_two_empty_runs_are_no_agreement() -> None:
    empty: dict[str, list[Any]] = {"tracks": [], "sightings": []}
    assert not chain.judge(empty, empty).agree


# Galleries made up


def test_made_up_vectors_depend_on_seeds_alone_and_queries_resemble_their_people(tmp_path: Path) -> None:
    (gallery,), (again,) = stored_vectors(tmp_path / "a", 50, 4), stored_vectors(tmp_path / "b", 50, 4)
    np.testing.assert_array_equal(gallery, again)
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, rtol=1e-5)
    similarities = query_vectors(50, 4, 8) @ gallery.T
    known = np.arange(8) % 4 != 0
    assert similarities.max(axis=1)[known].min() > search.THRESHOLD
    assert similarities.max(axis=1)[~known].max() < search.THRESHOLD
    assert (similarities.argmax(axis=1)[known] // 4 == np.linspace(0, 49, 8).astype(int)[known]).all()


# The command


@pytest.mark.slow
def test_the_command_prints_a_document_a_line_and_saves_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(search, "SIZES", {"10k": (400, 12)})
    saved = tmp_path / "result.json"
    assert run_command_line(["bench", "--rows", "search_10k/query", "--json", "--save", str(saved)]) == 0
    printed = capsys.readouterr().out
    machine, row = (json.loads(line) for line in printed.splitlines())
    assert machine["name"] == "machine"
    assert machine["cores"] >= 1
    assert machine["versions"]["numpy"] == np.__version__
    assert set(machine) > FIELDS
    assert set(row) == FIELDS
    assert row["agree"] is True
    assert saved.read_text() == printed


def test_the_command_prints_a_table_and_the_same_in_markdown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "available_gb", lambda: 1.0)
    assert run_command_line(["bench", "--rows", "search_1m/*"]) == 0
    assert "search_1m/memory" in capsys.readouterr().out
    assert run_command_line(["bench", "--rows", "search_1m/*", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert cells == ["row", "---", "search_1m/query", "search_1m/memory"]
    assert "needs 11 GB of memory, and 1 GB are free" in lines[4]


def seen(*faces: tuple[float, float]) -> Detections:
    """Faces of 50 px, each by its left side and its score."""
    boxes = np.array([[left, 0, left + 50, 50] for left, _ in faces], np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array([score for _, score in faces], np.float32), np.zeros((len(faces), 5, 2), np.float32)
    )


def test_faces_that_a_device_loses_are_told_and_the_sure_ones_counted() -> None:
    expected = [seen((0, 0.99), (100, 0.9), (200, 0.97)), seen(), seen((0, 0.99))]
    found = [seen((2, 0.98), (125, 0.9)), seen((70, 0.9)), seen()]
    told = agreement(expected, found)
    assert [told[key] for key in ("faces", "same", "sure_missed", "additional")] == [4, 1, 2, 2]
    assert [lost[:3] for lost in told["differ"]] == [[0, 0.9, 100.0], [0, 0.97, 200.0], [2, 0.99, 0.0]]
    assert agreement(expected, expected) == {"faces": 4, "same": 4, "sure_missed": 0, "additional": 0, "differ": []}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runtime", ["jax", "tensorflow"])
def test_a_device_finds_the_faces_of_the_processor_and_a_machine_without_a_gpu_says_so(
    runtime: str, tmp_path: Path, shared_cache: Path
) -> None:
    portrait = cv2.resize(data.astronaut(), (192, 192), interpolation=cv2.INTER_AREA)
    with ClipWriter(tmp_path / "clip.mp4", (192, 192), 25) as clip:
        for number in range(11):
            clip.write(np.roll(portrait, number, axis=1))
    ended = facestream(
        "bench", "--device", runtime, "--rows", "same", "--video", tmp_path / "clip.mp4", "--data", tmp_path,
        timeout_s=800, FACESTREAM_CACHE_DIR=str(shared_cache),
    )  # fmt: skip
    assert "no GPU: the faces are compared on the processor" in ended.stderr
    rows = {row["row"]: row for row in ended.documents}
    assert rows["same faces, together"] | {"faces": 4, "same": 4, "agree": True} == rows["same faces, together"]
    assert rows["same vectors"]["least_cosine"] > 0.999
    assert {row["device"] for row in ended.documents} == {"CPU"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rows_of_a_device_are_tried_in_small_without_a_gpu(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "clip.mp4", (192, 192), 25) as clip:
        clip.write(np.zeros((192, 192, 3), np.uint8))
    ended = facestream(
        "bench", "--device", "jax", "--quick", "--rows", "search", "--rows", "limits", "--video",
        tmp_path / "clip.mp4", timeout_s=500, CUDA_VISIBLE_DEVICES="-1",
    )  # fmt: skip
    assert ended.code == 0
    assert "no GPU: each row is tried in small on the processor (jax sees no GPU" in ended.stderr
    rows = {row["row"]: row for row in ended.documents}
    assert {name.split(":")[0].split(",")[0] for name in rows} == {"limit", "search"}
    assert rows["search, 2,000 x 2048, 256 at once"]["agrees"] is True
    assert {(row["runtime"], row["card"]) for row in ended.documents} == {("jax", "cpu")}
    assert all(row["low"] > 0 for row in ended.documents), "what is slow is told as well"


def test_rows_of_a_device_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    assert run_command_line(["bench", "--device", "jax", "--rows", "fast*", "--video", str(clip)]) != 0
    assert "limits, same, embed, detect, chain, search" in capsys.readouterr().err


def test_rows_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["bench", "--rows", "detekt*"]) == 2
    assert "detect_1080p/mtcnn" in capsys.readouterr().err


@given(carries=st.integers(0, 200))
def test_the_capacity_is_never_too_high_and_at_most_a_quarter_too_low(carries: int) -> None:
    tried = []

    def keeps_up(cameras: int) -> bool:
        tried.append(cameras)
        return cameras <= carries

    found = live.find_capacity(keeps_up)
    most = min(carries, live.MOST_CAMERAS)
    assert found <= carries
    assert most - found <= max(0, found // 4)
    assert len(tried) == len(set(tried)) <= 8


def cameras(number: int, named: int, *, kept_up: bool) -> dict[str, Any]:
    frames = {"frames": 100, "read_fps": 25.0, "dropped": {}, "skipped": {}, "latency_s": {}}
    return {"cameras": number, "named": named, "seconds": 10.0, "kept_up": kept_up} | frames


@pytest.mark.parametrize(
    ("named", "share", "agree"),
    [
        ((10, 20, 36, 48), 90.0, True),
        ((10, 20, 35, 80), 87.5, False),
        ((10, 20, 40, 47), 100.0, False),
        ((10, 20, 0, 0), 0.0, False),
    ],
)
def test_what_load_costs_is_told_at_twice_what_is_carried(named: tuple[int, ...], share: float, agree: bool) -> None:
    results = [cameras(2**power, count, kept_up=power < 2) for power, count in enumerate(named)]
    found = load.row(results)
    assert (found.ours, found.agree) == (share, agree)
    assert "twice the 2 that are carried" in found.note


@pytest.mark.parametrize("results", [[cameras(1, 0, kept_up=True)], [cameras(1, 9, kept_up=True)]])
def test_what_load_costs_is_not_told_where_it_was_not_seen(results: list[Any]) -> None:
    assert load.row(results).ours is None


def test_a_machine_that_cannot_try_cameras_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    unreadable = tmp_path / "clip.mp4"
    unreadable.write_bytes(b"no clip")
    assert run_command_line(["bench", "--capacity", "--video", str(unreadable)]) == 1
    assert "clip.mp4" in capsys.readouterr().err


def test_every_row_of_the_contract_is_there() -> None:
    from worker.bench.run import NAMES

    assert {
        "detect_1080p/mtcnn", "detect_1080p/facenet_pytorch", "embed/keras_predict_b32", "embed/onnxruntime_b32",
        "chain_1080p/tutorial", "live_1080p25/cameras", "live_1080p25/load",
        "search_1m/query", "search_1m/memory", "start/first_frame",
        "memory/worker",
    } <= set(NAMES)  # fmt: skip
    assert len(NAMES) == len(set(NAMES))


def test_the_table_tells_disagreement_in_capitals() -> None:
    rows = [compared("a", [1.0], [2.0], "ms", agree=False), compared("b", [1.0], [2.0], "ms", agree=True)]
    described = run.machine()
    text = run.markdown(rows, described)
    assert 0 <= described["busy_ratio"] <= 1
    assert "idle" in described["note"] or "% busy before" in described["note"]
    assert "| NO |" in text
    assert "| yes |" in text
