"""The device path, run on the processor: it finds the faces of the processor's path, and makes the same vectors.

Keras has one backend in a process, so each runtime works in a process of its own.
"""

import json
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
from worker.faces.device.runtimes import load_runtime
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
counting, found = Counting(), {}
config = DetectionConfig(min_face_px=int(sys.argv[4]))
detector = DeviceDetector(config, runtime, Pictures(runtime), precision="fp32", observer=counting,
                          first_capacity=Capacity(*map(int, sys.argv[5].split(","))))
faces = detector.detect(images)
followed = detector.follow(images, [each.boxes for each in faces])
for index, each in enumerate(faces):
    found |= {f"boxes{index}": each.boxes, f"scores{index}": each.scores, f"landmarks{index}": each.landmarks,
              f"followed{index}": followed[index].boxes}
np.savez(sys.argv[3], passes=counting.passes, **found)
"""

_VECTORS = """
import sys, numpy as np
from worker.faces.device.runtimes import load_runtime
runtime = load_runtime(sys.argv[1], processor=True)
from worker.faces.device.embedder import DeviceNetwork
from worker.faces.device.pictures import Pictures
from worker.faces.device.search import DeviceSearch
from worker.faces.networks import vggface2
from worker.faces.networks.parity import write_random_h5
write_random_h5("resnet50", sys.argv[4], 0)
arguments = dict(network="resnet50", weights=sys.argv[4], channel_order="bgr", mean=(91.4953, 103.8827, 131.0912))
network = DeviceNetwork("worker.faces.networks.vggface2:build", arguments, runtime, Pictures(runtime), precision="fp32")
given = np.load(sys.argv[2])
chips, image = given["chips"], given["image"]
plain = np.asarray(vggface2.build(**arguments).predict_on_batch(chips))
of_chips, = network(chips)
of_faces = network.collect_faces(network.submit_faces([image] * len(chips), given["matrices"]))
vectors = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
cosines, rows = DeviceSearch(vectors, runtime).search(vectors[:5] + 0.5 * vectors[5:10], 3)
np.savez(sys.argv[3], plain=plain, of_chips=of_chips, of_faces=of_faces, vectors=vectors, cosines=cosines, rows=rows)
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
    run(_FACES, runtime, tmp_path / "images.npz", tmp_path / "found.npz", 30, "1024,256,32")
    assert [len(each) for each in expected] == [1, 1, 1, 0]
    with np.load(tmp_path / "found.npz") as found:
        assert found["passes"] == 0
        for index, faces in enumerate(expected):
            boxes = found[f"boxes{index}"]
            assert len(boxes) == len(faces)
            if len(faces):
                assert iou_matrix(faces.boxes, boxes).max(axis=1).min() > 0.95
                assert np.abs(found[f"scores{index}"] - faces.scores).max() < 0.01
                assert np.abs(found[f"landmarks{index}"] - faces.landmarks).max() < 2
                assert iou_matrix(found[f"followed{index}"], boxes).max() > 0.7


@pytest.mark.slow
def test_more_candidates_than_there_is_room_for_are_looked_at_again(expected: list[Detections], tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", *portraits()[:1])
    run(_FACES, "jax", tmp_path / "images.npz", tmp_path / "found.npz", 30, "2,1,1")
    with np.load(tmp_path / "found.npz") as found:
        assert found["passes"] > 0
        assert iou_matrix(expected[0].boxes, found["boxes0"]).max() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["jax", "tensorflow"])
def test_the_same_vectors_are_made_and_found(runtime: str, tmp_path: Path) -> None:
    image = data.astronaut()
    boxes = np.array([[170, 60, 270, 190], [180, 80, 260, 170], [0, 0, 120, 130], [300, 200, 420, 330]], np.float32)
    matrices = box_matrices(boxes, 224, 1.3, 256)
    np.savez(tmp_path / "given.npz", chips=warp(image, matrices, 224), image=image, matrices=matrices)
    run(_VECTORS, runtime, tmp_path / "given.npz", tmp_path / "made.npz", tmp_path / "random.h5")
    with np.load(tmp_path / "made.npz") as made:
        mean = made["plain"].mean(axis=0)
        for name in ("of_chips", "of_faces"):
            ours, plain = made[name] - mean, made["plain"] - mean
            cosines = (ours * plain).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(plain, axis=1)
            assert cosines.min() > 0.999
        vectors = made["vectors"]
        exact = (vectors[:5] + 0.5 * vectors[5:10]) @ vectors.T
        order = np.argsort(-exact, axis=1)[:, :3]
        assert np.array_equal(made["rows"], order)
        assert np.allclose(made["cosines"], np.take_along_axis(exact, order, axis=1), atol=1e-5)


def test_without_a_gpu_nothing_falls_back_silently(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom worker.config import DetectionConfig\n"
        "from worker.errors import ModelError\nfrom worker.faces.detection import load_detector\n"
        "try:\n    load_detector(DetectionConfig(), cache_dir=Path(sys.argv[2]), engine=sys.argv[1])\n"
        "except ModelError as error:\n    import json; print(json.dumps(str(error)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "jax", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "jax sees no GPU" in json.loads(done.stdout.strip().splitlines()[-1])


def test_a_runtime_that_there_is_not_is_refused() -> None:
    with pytest.raises(ModelError, match="no runtime 'abacus'"):
        load_runtime("abacus", processor=True)
