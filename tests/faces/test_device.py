"""The device path, run on the processor: it finds the faces of the processor's path, and makes the same vectors.

Keras has one backend in a process, so each runtime works in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from worker.boxes import iou_matrix
from worker.config import DetectionConfig
from worker.errors import ModelError
from worker.faces.alignment import box_matrices, warp
from worker.faces.detection import load_detector
from worker.faces.device import runtimes
from worker.faces.device.runtimes import load_runtime, runtime_for_auto
from worker.types import Detections

_FACES = """
import sys, numpy as np
from pathlib import Path
from worker.config import DetectionConfig
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
from worker.faces.device.cascade import Capacity
from worker.faces.device.detector import DeviceDetector
from worker.faces.device.pictures import Pictures
from worker.observer import Observer

class Counting(Observer):
    passes = 0
    def second_pass(self, stage):
        self.passes += 1

images = list(np.load(sys.argv[2]).values())
config = DetectionConfig(min_face_px=int(sys.argv[4]))
for name in sys.argv[5:]:
    counting, found = Counting(), {}
    detector = DeviceDetector(config, runtime, Pictures(runtime), precision="fp32", observer=counting,
                              first_capacity=Capacity(*map(int, name.split(","))))
    faces = detector.detect(images)
    passes = counting.passes
    followed = detector.follow(images, [each.boxes for each in faces])
    for index, each in enumerate(faces):
        found |= {f"boxes{index}": each.boxes, f"scores{index}": each.scores, f"landmarks{index}": each.landmarks,
                  f"followed{index}": followed[index].boxes}
    np.savez(f"{sys.argv[3]}/{name}.npz", passes=passes, **found)
"""

_WORKER = """
import json, sys, av, numpy as np
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tests.support.models import document
from worker.config import Config, DetectionConfig
from worker.faces.detection import load_detector
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
from worker.faces.alignment import similarity_matrices, warp
from worker.faces.device.detector import load_device_detector
from worker.faces.device.embedder import DeviceNetwork
from worker.faces.device.pictures import pictures_on
from worker.faces.embedding import FaceEmbedder
from worker.faces.manifests import Manifest
from worker.gallery.folder import FolderGallery
from worker.recognition.pipeline import Pipeline
from worker.types import LazyImage
from worker.video.buffers import RawFrame
from worker.video.geometry import Geometry
from worker.video.planes import planes_of

portraits = list(np.load(sys.argv[2]).values())[:3]
config = Config.model_validate({
    "worker_id": "w", "cameras": [{"id": f"c{n}", "source": "rtsp://127.0.0.1/x", "policy": "every"} for n in range(3)],
    "detection": {"min_face_px": 30, "precision": "fp32"}, "recognition": {"min_quality": 0.05},
})
settings = {"side": 64, "channel_order": "rgb", "layout": "nhwc"}
manifest = Manifest.model_validate(document(format="h5", network="face_cnn", input=settings, dimension=128,
    files=[{"name": "means.h5", "sha256": "0" * 64}]))
network = DeviceNetwork("worker.faces.networks.face_cnn:build", {"network": "face_cnn", "weights": None, "side": 64},
                        runtime, pictures_on(runtime), precision="fp32")
def matrices(faces):
    return similarity_matrices(faces.landmarks, manifest.alignment.template, 64)
def align(image, faces):
    return warp(image, matrices(faces), 64)
whole, parts = [], []
def counted(picture):
    convert = picture._convert
    def told(planes):
        (whole if planes is picture.planes else parts).append(planes.nbytes)
        return convert(planes)
    return LazyImage(picture.planes, told)
def batches(lazily):
    for number in range(4):
        frames = []
        for camera, portrait in enumerate(portraits):
            moved = np.ascontiguousarray(np.roll(portrait, 2 * number, axis=1)[:len(portrait) // 2 * 2,
                                                                              :portrait.shape[1] // 2 * 2])
            decoded = av.VideoFrame.from_ndarray(moved, "rgb24").reformat(format="yuv420p")
            planes = planes_of(decoded, Geometry())
            at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=0.04 * number)
            frame = RawFrame(f"c{camera}", number, 0.04 * number, at, 0.0, planes, planes.planes[0])
            frame = frame.convert(lazily=lazily)
            frames.append(replace(frame, picture=counted(frame.picture)) if lazily else frame)
        yield frames
def events(detector, cuts, lazily):
    embedder = FaceEmbedder(manifest, network, align, engine="jax", cuts=cuts)
    gallery = FolderGallery.in_memory(embedder.model_id, embedder.preprocessing_digest, 128)
    pipeline, told, waiting = Pipeline(config, detector, embedder, gallery), [], None
    for frames in [*batches(lazily), None]:
        begun = pipeline.begin(frames) if frames else None
        if waiting:
            told += pipeline.process(waiting[0], begun=waiting[1])
        waiting = (frames, begun)
    told += pipeline.close()
    return [[event.camera_id, event.type, list(event.box), event.quality, event.embedded_faces] for event in told]
on_device = events(load_device_detector(config.detection, runtime, pictures_on(runtime)), (network, matrices), True)
plain = events(load_detector(config.detection, cache_dir=Path(sys.argv[4]), engine="openvino"), None, False)
faces = [(np.ascontiguousarray(portraits[0]), load_detector(config.detection, cache_dir=Path(sys.argv[4]),
          engine="openvino").detect(portraits[:1])[0])]
vectors = [FaceEmbedder(manifest, network, align, engine="jax", cuts=cuts).embed_found(faces).vectors
           for cuts in (None, (network, matrices))]
Path(sys.argv[3]).write_text(json.dumps({"device": on_device, "processor": plain, "whole": len(whole),
    "parts": len(parts), "cosine": float((vectors[0] * vectors[1]).sum())}))
"""

_SEARCH = """
import sys, numpy as np
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
import faiss
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.types import Embeddings
random = np.random.default_rng(0)

def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)

def added(gallery, vectors, names):
    gallery.add([NewSample(str(n), v, f"{n}{i}", f"{n}{i}-{gallery.sample_count}", identity_id=str(n))
                 for i, (v, n) in enumerate(zip(vectors, names, strict=True))])

def right(gallery, queries, vectors, ids):
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    cosines, rows = flat.search(queries, len(vectors))
    for candidate, own, order in zip(gallery.search(Embeddings(queries, "m")), cosines, ids[rows], strict=True):
        other = int(np.argmax(order != order[0])) if (order != order[0]).any() else None
        assert candidate.identity_id == order[0] and abs(candidate.similarity - own[0]) < 1e-5
        assert candidate.runner_up_id == ("" if other is None else order[other])
        assert other is None or abs(candidate.runner_up - own[other]) < 1e-5

people = unit(random.normal(size=(40, 2048)))
faces = unit(people[np.arange(2200) % 40] + 0.6 * unit(random.normal(size=(2200, 2048))))
faces[:300] = unit(people[0] + 0.05 * unit(random.normal(size=(300, 2048))))
names = np.array([f"p{n % 40}" if n >= 300 else "p0" for n in range(2200)])
gallery = FolderGallery.in_memory("m", "digest", 2048)
added(gallery, faces[:1000], names[:1000])
gallery.search_on(runtime)
assert not gallery.is_on_device, "a small gallery is faster on the processor"
added(gallery, faces[1000:], names[1000:])
queries = unit(people[[0, 3, 39, 7, 5, 1, 2, 8, 9]] + 0.4 * unit(random.normal(size=(9, 2048))))
right(gallery, queries, faces, names)
assert gallery.is_on_device
added(gallery, queries[:1], ["new"])
assert gallery.search(Embeddings(queries[:1], "m"))[0].identity_id == "new", "followed as it changes"
faces, names = np.concatenate([faces, queries[:1]]), np.append(names, "new")
right(gallery, queries, faces, names)
gallery.remove("p3")
right(gallery, queries, faces[names != "p3"], names[names != "p3"])
(found,) = gallery.search(Embeddings(queries[2:3], "m"), without=["p39"])
assert found.identity_id not in ("p39", None) and gallery.is_on_device
"""

_PLANES = """
import sys, numpy as np
from av import VideoFrame
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
from worker.faces.device.pictures import Pictures
from worker.video.geometry import Geometry
from worker.video.planes import lazy_of, planes_of, rgb_of
random = np.random.default_rng(0)
def planes(form, colour_range, matrix):
    frame = VideoFrame(62, 46, form)
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8)
        rows[:] = random.integers(0, 256, rows.shape)
    frame.color_range, frame.colorspace = colour_range, matrix
    return planes_of(frame, Geometry())
kinds = [(form, limits, matrix) for form in ("yuv420p", "yuvj420p") for limits in (0, 1, 2) for matrix in (1, 2, 5, 9)]
several = [planes(*kind) for kind in kinds]
pictures = Pictures(runtime)
for start in range(0, len(several), 12):
    some = several[start : start + 12]
    lazy = [lazy_of(each) for each in some]
    there = runtime.fetched(pictures.upload(lazy, 64, 48).pixels)
    for each, picture, pixels in zip(some, lazy, there, strict=False):
        whole = rgb_of(each)
        assert np.array_equal(np.transpose(pixels[:, :46, :62], (1, 2, 0)), whole), each.form
        for left, top, right, bottom in ((0, 0, 62, 46), (3, 5, 20, 31), (61, 45, 62, 46), (10, 10, 10, 12)):
            assert np.array_equal(picture.cut(left, top, right, bottom), whole[top:bottom, left:right])
assert lazy_of(planes("nv12", 1, 1)) is None and lazy_of(planes("yuv422p", 1, 1)) is None
"""

_VECTORS = """
import sys, numpy as np
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
from worker.faces.device.embedder import DeviceNetwork
from worker.faces.device.pictures import Pictures
from worker.faces.networks import vggface2
from worker.faces.networks.parity import write_random_h5
write_random_h5("resnet50", sys.argv[4], 0)
arguments = dict(network="resnet50", weights=sys.argv[4], channel_order="bgr", mean=(91.4953, 103.8827, 131.0912))
network = DeviceNetwork("worker.faces.networks.vggface2:build", arguments, runtime, Pictures(runtime),
                        precision=sys.argv[5])
given = np.load(sys.argv[2])
chips, image = given["chips"], given["image"]
plain = np.asarray(vggface2.build(**arguments).predict_on_batch(chips))
of_chips, = network(chips)
of_faces = network.collect_faces(network.submit_faces([image] * len(chips), given["matrices"]))
np.savez(sys.argv[3], plain=plain, of_chips=of_chips, of_faces=of_faces)
"""


pytestmark = pytest.mark.timeout(600)


def run(program: str, runtime: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, runtime, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def portraits() -> list[np.ndarray]:
    portrait = cv2.resize(data.astronaut(), (200, 200), interpolation=cv2.INTER_AREA)
    odd = np.ascontiguousarray(portrait[:151, 20:170, :][:, ::-1])
    return [portrait, np.ascontiguousarray(portrait[:, ::-1]), odd, np.zeros_like(portrait)]


@pytest.fixture(scope="module")
def expected(shared_cache: Path) -> list[Detections]:
    config = DetectionConfig(min_face_px=30, precision="fp32")
    return load_detector(config, cache_dir=shared_cache, engine="openvino").detect(portraits())


@pytest.mark.parametrize("runtime", ["jax", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_the_same_faces_are_found(runtime: str, expected: list[Detections], tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", *portraits())
    run(_FACES, runtime, tmp_path / "images.npz", tmp_path, 30, "1024,256,32")
    assert [len(each) for each in expected] == [1, 1, 1, 0]
    with np.load(tmp_path / "1024,256,32.npz") as found:
        assert found["passes"] == 0
        for index, faces in enumerate(expected):
            boxes = found[f"boxes{index}"]
            assert len(boxes) == len(faces)
            if len(faces):
                assert iou_matrix(faces.boxes, boxes).max(axis=1).min() > 0.95
                assert np.abs(found[f"scores{index}"] - faces.scores).max() < 0.01
                assert np.abs(found[f"landmarks{index}"] - faces.landmarks).max() < 2
                assert iou_matrix(found[f"followed{index}"], boxes).max() > 0.7


@pytest.mark.parametrize("runtime", ["jax", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_planes_become_the_pixels_that_the_processor_makes_of_them(runtime: str) -> None:
    run(_PLANES, runtime)


@pytest.mark.parametrize("runtime", ["jax", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_a_gallery_on_a_device_gives_the_answers_of_a_flat_index_while_it_changes(runtime: str) -> None:
    run(_SEARCH, runtime)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["jax", "tensorflow"])
def test_the_line_on_a_device_causes_the_events_of_the_processor_and_converts_no_whole_picture(
    runtime: str, expected: list[Detections], shared_cache: Path, tmp_path: Path
) -> None:
    assert expected
    np.savez(tmp_path / "images.npz", *portraits())
    run(_WORKER, runtime, tmp_path / "images.npz", tmp_path / "events.json", shared_cache)
    told = json.loads((tmp_path / "events.json").read_text())
    assert told["whole"] == 0
    assert told["parts"] > 0, "the quality of a face is judged by its pixels"
    assert told["cosine"] > 0.999
    assert [event[:2] for event in told["device"]] == [event[:2] for event in told["processor"]]
    assert len(told["device"]) == 6
    for ours, theirs in zip(told["device"], told["processor"], strict=True):
        assert np.abs(np.array(ours[2]) - np.array(theirs[2])).max() < 2
        assert abs(ours[3] - theirs[3]) < 0.05
        assert ours[4] == theirs[4]


def crowd(people: int, seed: int) -> np.ndarray:
    """Tiny faces all over a grey picture."""
    random, picture = np.random.default_rng(seed), np.full((160, 160, 3), 128, np.uint8)
    portrait = data.astronaut()[:220, 110:330]
    for place in random.permutation(16)[:people].tolist():
        side = int(random.integers(34, 40))
        top, left = place // 4 * 40, place % 4 * 40
        picture[top : top + side, left : left + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    return picture


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_crowd_that_overflows_a_stage_is_found_whole_in_a_second_pass(tmp_path: Path) -> None:
    """Too little room for cells, for proposals or for faces: whatever the picture, nothing is lost, and it is
    counted."""
    roomy, tight = "1024,256,64", ("32,256,64", "1024,8,64", "1024,256,4")
    pictures = [crowd(people, seed) for seed, people in enumerate((16, 12, 1, 0))]
    np.savez(tmp_path / "images.npz", *pictures)
    run(_FACES, "jax", tmp_path / "images.npz", tmp_path, 20, roomy, *tight)
    with np.load(tmp_path / f"{roomy}.npz") as whole:
        assert whole["passes"] == 0
        assert len(whole["boxes0"]) > 8
        for room in tight:
            with np.load(tmp_path / f"{room}.npz") as found:
                assert found["passes"] > 0, room
                for name in (f"{kind}{index}" for kind in ("boxes", "scores", "landmarks") for index in range(4)):
                    assert found[name].shape == whole[name].shape, (room, name)
                    assert np.abs(found[name] - whole[name]).max(initial=0) < 1e-3, (room, name)


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "precision"), [("jax", "fp32"), ("jax", "fp16"), ("tensorflow", "fp32")])
def test_the_same_vectors_are_made(runtime: str, precision: str, tmp_path: Path) -> None:
    image = data.astronaut()
    boxes = np.array([[170, 60, 270, 190], [180, 80, 260, 170], [0, 0, 120, 130], [300, 200, 420, 330]], np.float32)
    matrices = box_matrices(boxes, 224, 1.3, 256)
    np.savez(tmp_path / "given.npz", chips=warp(image, matrices, 224), image=image, matrices=matrices)
    run(_VECTORS, runtime, tmp_path / "given.npz", tmp_path / "made.npz", tmp_path / "random.h5", precision)
    with np.load(tmp_path / "made.npz") as made:
        mean = made["plain"].mean(axis=0)
        for name in ("of_chips", "of_faces"):
            ours, plain = made[name] - mean, made["plain"] - mean
            cosines = (ours * plain).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(plain, axis=1)
            assert cosines.min() > 0.999


_REFUSED = """
import sys
from pathlib import Path
from worker.config import DetectionConfig
from worker.errors import ModelError
from worker.faces.detection import load_detector
if len(sys.argv) > 3:
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == sys.argv[1] else find(name, *more)
try:
    load_detector(DetectionConfig(), cache_dir=Path(sys.argv[2]), engine=sys.argv[1])
except ModelError as error:
    print(str(error))
"""


@pytest.mark.parametrize(
    ("runtime", "installed", "platforms", "expected"),
    [
        ("jax", True, "", "jax sees no GPU"),
        pytest.param("tensorflow", True, "", "tensorflow sees no GPU", marks=pytest.mark.slow),
        ("jax", True, "cuda", "jax cannot be used: "),
        ("torch", False, "", "the runtime torch is not installed: pip install 'facestream[gpu-torch]'"),
    ],
)
def test_without_a_gpu_or_the_library_one_line_says_what_to_do(
    runtime: str, installed: bool, platforms: str, expected: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": platforms}
    done = subprocess.run(
        [sys.executable, "-c", _REFUSED, runtime, str(tmp_path), *([] if installed else ["missing"])],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith(expected)
    assert "pip install" in line
    assert "Traceback" not in done.stderr


def test_a_plugin_that_cannot_start_is_told_in_the_same_line_and_not_by_a_traceback(tmp_path: Path) -> None:
    """As JAX's own plugin for CUDA on a machine without a driver."""
    plugin = tmp_path / "jax_plugins" / "cards" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("def initialize():\n    raise RuntimeError('Unable to load cuPTI.\\nIs it installed?')\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _REFUSED, "jax", str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "JAX_PLATFORMS": "", "PYTHONPATH": paths},
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith("jax sees no GPU (Unable to load cuPTI. Is it installed?): check the driver with nvidia-smi")
    assert "Traceback" not in done.stderr


def test_auto_takes_the_processor_where_there_is_no_gpu_and_says_so_where_no_runtime_sees_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "installed", list)
    monkeypatch.setattr(runtimes, "backend_in_use", lambda: None)
    assert runtime_for_auto(devices=[tmp_path / "nvidia0"]) is None
    assert not caplog.records
    (tmp_path / "nvidia0").touch()
    for _each_network in range(3):
        assert runtime_for_auto(devices=[tmp_path / "nvidia0"]) is None
    (line,) = caplog.records
    assert "cannot be used: going on with the processor" in line.getMessage()


_WITHOUT_A_NAME = """
from worker.errors import ModelError
from worker.faces.device.runtimes import installed, load_runtime

class Made:
    card, problem = "A card", "it is broken"
    def __init__(self, name, device):
        self.name, self.device = name, device

def make(name, cache_dir, processor):
    made.append(name)
    return Made(name, "GPU" if name == seeing else "CPU")

made, seeing = [], ""
try:
    load_runtime(make=make)
except ModelError as error:
    assert str(error).startswith("no GPU is seen by " + " or ".join(installed())), error
    assert "(jax: it is broken)" in str(error)
assert made == installed(), "a runtime without a GPU is not kept"
made, seeing = [], installed()[-1]
first = load_runtime(make=make)
assert first.name == seeing and made == installed()
assert load_runtime(make=make) is first and load_runtime(seeing, make=make) is first
assert made == installed(), made
"""


def test_without_a_name_each_runtime_is_made_once_until_one_sees_the_gpu() -> None:
    run(_WITHOUT_A_NAME, "")


def test_a_runtime_that_there_is_not_is_refused() -> None:
    with pytest.raises(ModelError, match="no runtime 'abacus'"):
        load_runtime("abacus", processor=True)
