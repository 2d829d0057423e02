"""FaceEmbedder: faces to unit vectors, with any model that has a manifest."""

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError
from worker.faces import alignment
from worker.faces.alignment import PLAIN, Averaging, split_variant
from worker.faces.detection import FaceDetector, engine_or_device
from worker.faces.engines import DEVICE_ENGINES, choose_engine
from worker.faces.manifests import Manifest, load_manifest
from worker.faces.networks import BUILDERS
from worker.faces.networks.conversion import converted_network
from worker.faces.standin import standin
from worker.faces.weights import find_weights, pinned
from worker.logs import get_logger
from worker.observer import Observer
from worker.types import Chips, Detections, Embeddings, Image, Picture, image_of

if TYPE_CHECKING:
    from worker.faces.device.embedder import DeviceNetwork

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
"""The only batch sizes that a network sees, since each new one is compiled; a batch is padded to the next."""

_SURE_SCORE: Final = 0.9
_SHORTEST: Final = 1e-6
_BUILDERS_VERSION: Final = 1
"""Raise it when a builder changes what it makes, so that networks converted before are made anew."""
IMPORT_BUILDER: Final = "worker.faces.engines.openvino:import_network"

log = get_logger(__name__)


class Network(Protocol):
    """What the engines give: uint8 RGB chips (n, side, side, 3) in, features (n, ...) first among the outputs."""

    @property
    def device(self) -> str: ...

    def __call__(self, batch: NDArray[np.uint8], /) -> tuple[NDArray[np.float32], ...]: ...


Aligner = Callable[[Image, Detections], NDArray[np.uint8]]
_AVERAGED_BELOW: Final = 0.5
"""The scale below which a chip shows averages of pixels: such a face is cut out by the processor."""


class FaceEmbedder:
    """Cuts faces out of images and turns them into unit vectors. Not safe for concurrent calls of ``embed``.

    Attributes:
        manifest: the model's.
        model_id: its id, with the ending of its :class:`Averaging`.
        preprocessing_digest: digest of all that changes a vector; vectors of different digests do not compare.
        dimension: length of a vector.
        threshold: cosine from which two faces count as one person, by the manifest.
        engine: what runs the network: ``openvino``, ``keras``, ``onnx``, ``dlib``, or the runtime of a device.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``CPU`` or ``GPU``.
        border_px: what ``align`` shows around a chip on each side, for an averaging that moves it.
    """

    def __init__(
        self,
        manifest: Manifest,
        network: Network,
        aligner: Aligner,
        *,
        engine: str,
        precision: str = "fp32",
        averaging: Averaging = PLAIN,
        observer: Observer | None = None,
        cuts: "tuple[DeviceNetwork, Callable[[Detections], NDArray[np.float64]]] | None" = None,
    ) -> None:
        """``cuts``: the same network on a device, and what tells it where in their pictures the chips lie: from px of
        the picture to px of the chip, float64 (n, 2, 3)."""
        self.manifest = manifest
        self.model_id = manifest.id + averaging.suffix
        self.preprocessing_digest = averaging.digest(manifest.preprocessing_digest)
        self.dimension = manifest.dimension
        self.threshold = manifest.threshold
        self.engine, self.precision, self.device = engine, precision, network.device
        self.border_px = averaging.border_px(manifest.input.side)
        self._network, self._aligner, self._averaging = network, aligner, averaging
        self._cuts = cuts if averaging == PLAIN else None
        self._observer = observer or Observer()
        self._sizes = BATCH_SIZES[:1] if manifest.input.max_batch == 1 else BATCH_SIZES

    def align(self, image: Image, detections: Detections) -> Chips:
        """The faces of one image as uint8 RGB chips (n, side, side, 3), as the manifest says, with ``border_px``."""
        with self._observer.stage("align"):
            return Chips(self._aligner(image, detections), "rgb")

    def embed(self, chips: Chips) -> Embeddings:
        """Unit vectors float32 (n, dimension) of uint8 chips; n = 0 is fine.

        Raises:
            ModelError: the network gave no usable vector (wrong length, not a number, zero).
            ValueError: chips of another size or type.
        """
        views = self._averaging.views(self._checked(chips), self.border_px)
        vectors = self._embed(views[0])
        if len(views) > 1:
            vectors = self._unit(np.sum([vectors, *map(self._embed, views[1:])], axis=0))
        return Embeddings(vectors, self.model_id)

    def embed_found(self, faces: Sequence[tuple[Picture, Detections]]) -> Embeddings:
        """Unit vectors of faces, one or more: the picture of each, and the face in it.

        On a device the faces are cut out where their pictures lie already.

        Raises:
            ModelError: as :meth:`embed` does.
        """
        if self._cuts is None:
            return self.embed(Chips.joined([self.align(image_of(picture), face) for picture, face in faces]))
        network, matrices = self._cuts
        to_chip = matrices(Detections.joined([face for _, face in faces]))
        there = np.hypot(to_chip[:, 0, 0], to_chip[:, 1, 0]) >= _AVERAGED_BELOW
        vectors = np.empty((len(faces), self.dimension), np.float32)
        waiting = network.submit_faces([faces[index][0] for index in np.flatnonzero(there).tolist()], to_chip[there])
        large = [faces[index] for index in np.flatnonzero(~there).tolist()]
        if large:
            chips = Chips.joined([self.align(image_of(picture), face) for picture, face in large])
            vectors[~there] = self.embed(chips).vectors
        if waiting:
            with self._observer.stage("embed"):
                vectors[there] = self._unit_features(network.collect_faces(waiting))
            self._observer.batch("embed", int(there.sum()))
        return Embeddings(vectors, self.model_id)

    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = np.empty((len(images), self.dimension), np.float32)
        largest = self._sizes[-1]
        for start in range(0, len(images), largest):
            batch = images[start : start + largest]
            with self._observer.stage("embed"):
                vectors[start : start + len(batch)] = self._unit_vectors(batch)
            self._observer.batch("embed", len(batch))
        return vectors

    def _checked(self, chips: Chips) -> NDArray[np.uint8]:
        side = self.manifest.input.side + 2 * self.border_px
        if chips.images.dtype != np.uint8 or chips.images.shape[1] != side:
            got = f"{chips.images.dtype} of {chips.images.shape[1]} px"
            raise ValueError(f"{self.model_id} takes uint8 chips of {side} px, not {got}")
        images = cast(NDArray[np.uint8], chips.images)
        return images if chips.channel_order == "rgb" else images[..., ::-1]

    def _unit_vectors(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        n = len(batch)
        size = next(size for size in self._sizes if size >= n)
        if size > n:
            batch = np.concatenate([batch, np.broadcast_to(batch[-1:], (size - n, *batch.shape[1:]))])
        return self._unit_features(self._network(np.ascontiguousarray(batch))[0].reshape(size, -1)[:n])

    def _unit_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        if features.shape[1] != self.dimension:
            raise ModelError(
                f"{self.model_id} gave vectors of {features.shape[1]} numbers, its manifest says {self.dimension}: "
                "correct the manifest's dimension, or the file"
            )
        return self._unit(features)

    def _unit(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths)) or np.any(lengths < _SHORTEST):
            raise ModelError(
                f"{self.model_id} gave a vector that is zero or not a number (engine {self.engine}, {self.precision}, "
                f"{self.device}): check the weights, or try --precision fp32"
            )
        unit: NDArray[np.float32] = (features / lengths).astype(np.float32, copy=False)
        return unit


def load_embedder(
    model: str,
    *,
    models_dir: Path | None,
    cache_dir: Path,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    observer: Observer | None = None,
) -> FaceEmbedder:
    """The embedder of a model, ready to run; which engine and device it has is logged and kept in its attributes.

    Args:
        model: id of a shipped manifest, or path of one; ``+flip`` or ``+jitter4`` behind it average over more views.
        models_dir: folder in which weight files are looked for, at any depth.
        cache_dir: where pulled weights and converted networks are.
        engine: ``tensorflow``, ``jax`` and ``torch`` name a runtime of :mod:`worker.faces.device`. ``auto`` takes one
            of these for Keras networks where there is a GPU, and OpenVINO elsewhere.
        precision: ``fp32``, ``bf16``, ``int8`` or ``auto``; on a GPU also ``fp16``, which ``auto`` takes there.
            ``int8`` is the model's INT8 form that was admitted on this kind of processor
            (:mod:`worker.faces.standin`). On a processor ``auto`` takes bf16 where it computes in that natively, else
            int8 if there is an admitted form, else fp32.
        threads: processor threads; 0 takes all cores.
        observer: told of every run.

    Raises:
        ModelError: no such model, missing or wrong weights, an engine that cannot run it or is not installed, int8
            without an admitted form.
    """
    base, averaging = split_variant(model)
    manifest = load_manifest(base)
    if manifest.format == "h5":
        engine = engine_or_device(engine, cache_dir)
    chosen = choose_engine(manifest.id, manifest.format, engine)
    with ThreadPoolExecutor(1) as beside:
        # To read a hundred megabytes for their digest takes as long as to import the engine, and needs no interpreter.
        finding = beside.submit(find_weights, manifest, models_dir, cache_dir)
        if chosen == "openvino":
            importlib.import_module("worker.faces.engines.openvino")
        files = finding.result()
    manifest = pinned(manifest, files, cache_dir)
    network, precision = _load_network(manifest, files, chosen, precision, threads, cache_dir)
    border = averaging.border_px(manifest.input.side)
    embedder = FaceEmbedder(
        manifest,
        network,
        _load_aligner(manifest, files, border),
        engine=chosen,
        precision=precision,
        averaging=averaging,
        observer=observer,
        cuts=_device_cuts(manifest, network) if chosen in DEVICE_ENGINES else None,
    )
    log.info("model loaded", model=embedder.model_id, engine=chosen, precision=precision, device=embedder.device)
    if observer is not None:
        observer.engine_loaded("embed", chosen, embedder.device, precision)
    return embedder


def embed_faces(image: Image, detector: FaceDetector, embedder: FaceEmbedder) -> tuple[Detections, Embeddings]:
    """All faces of a photo with a detection score of at least 0.9, and their embeddings.

    If there is none, the best of the others is taken: a photo is more likely to show somebody than not. Enrolment takes
    such a face too.
    """
    (found,) = detector.detect([image])
    sure = found.scores >= _SURE_SCORE
    found = found.take(sure) if sure.any() else found.take(np.arange(len(found))[:1])
    return found, embedder.embed(embedder.align(image, found))


def _load_network(
    manifest: Manifest, files: dict[str, Path], engine: str, precision: str, threads: int, cache_dir: Path
) -> tuple[Network, str]:
    if engine in {"onnx", "dlib"}:
        _require_fp32(manifest, engine, precision)
        return _load_fp32_network(manifest, files, engine, threads), "fp32"
    if engine in DEVICE_ENGINES:
        return _device_network(manifest, files, engine, precision, cache_dir)
    if engine == "keras":
        from worker.faces.engines import keras

        precision = keras.best_precision() if precision == "auto" else _known(precision, ("fp32", "bf16", "fp16"))
        return keras.KerasNetwork(*_keras_builder(manifest, files), precision=precision), precision

    from worker.faces.engines import openvino

    wanted = openvino.best_precision() if precision == "auto" else _known(precision, ("fp32", "bf16", "int8"))
    path = None
    if precision in {"auto", "int8"} and wanted != "bf16":
        path = standin(manifest, cache_dir)
        if path is None and wanted == "int8":
            raise ModelError(
                f"{manifest.id} has no INT8 form that was admitted on this kind of processor: make it with 'facestream "
                "models quantize PHOTOS --pairs FILE --images DIR', or leave --precision at auto"
            )
    used = "int8" if path else wanted
    path = path or _openvino_network(manifest, files, cache_dir)
    arithmetic: openvino.Precision = "bf16" if used == "bf16" else "fp32"
    return openvino.OpenVinoNetwork(path, precision=arithmetic, threads=threads, cache_dir=cache_dir), used


def _device_network(
    manifest: Manifest, files: dict[str, Path], engine: str, precision: str, cache_dir: Path
) -> tuple[Network, str]:
    from worker.faces.device.runtimes import load_runtime

    runtime = load_runtime(engine, cache_dir=cache_dir)
    # Of random weights, vectors in bf16 differ from those in fp32 by up to a cosine of 0.996, in fp16 of 0.9999.
    best = "fp16" if runtime.device == "GPU" else "fp32"
    used = best if precision == "auto" else _known(precision, ("fp32", "bf16", "fp16"))
    from worker.faces.device.embedder import DeviceNetwork
    from worker.faces.device.pictures import pictures_on

    return DeviceNetwork(*_keras_builder(manifest, files), runtime, pictures_on(runtime), precision=used), used


def _device_cuts(
    manifest: Manifest, network: Network
) -> "tuple[DeviceNetwork, Callable[[Detections], NDArray[np.float64]]] | None":
    """None where only the processor can tell where the chips lie."""
    matrices = None if manifest.alignment.kind == "dlib" else partial(_matrices, manifest)
    return None if matrices is None else (cast("DeviceNetwork", network), matrices)


def _load_fp32_network(manifest: Manifest, files: dict[str, Path], engine: str, threads: int) -> Network:
    if engine == "dlib":
        from worker.faces.engines.dlib import DlibNetwork

        return DlibNetwork(files[manifest.file_with_suffix(".dat")])
    from worker.faces.engines.onnx import OnnxNetwork

    arguments = manifest.input.preprocessing | {"layout": manifest.input.layout, "threads": threads}
    return OnnxNetwork(files[manifest.file_with_suffix(".onnx")], **arguments)


def openvino_file(manifest: Manifest, models_dir: Path | None, cache_dir: Path) -> Path:
    """The OpenVINO file of a model's network, which takes uint8 RGB chips.

    Raises:
        ModelError: OpenVINO does not run this model, or its weights are missing.
    """
    choose_engine(manifest.id, manifest.format, "openvino")
    files = find_weights(manifest, models_dir, cache_dir)
    return _openvino_network(pinned(manifest, files, cache_dir), files, cache_dir)


def _openvino_network(manifest: Manifest, files: dict[str, Path], cache_dir: Path) -> Path:
    key = f"{manifest.weights_digest}-{_BUILDERS_VERSION}"
    if manifest.format == "h5":
        return converted_network(*_keras_builder(manifest, files), key, cache_dir)
    suffixes = (".xml", ".bin") if manifest.format == "openvino" else (".onnx",)
    arguments = manifest.input.preprocessing | {
        "paths": [str(files[manifest.file_with_suffix(suffix)]) for suffix in suffixes],
        "layout": manifest.input.layout,
        "max_batch": manifest.input.max_batch,
    }
    return converted_network(IMPORT_BUILDER, arguments, key, cache_dir)


def _keras_builder(manifest: Manifest, files: dict[str, Path]) -> tuple[str, dict[str, Any]]:
    """Which function builds the network, and with which arguments."""
    network = manifest.network or ""
    if network not in BUILDERS:
        raise ModelError(f"{manifest.id}: there is no network '{network}': take one of {', '.join(BUILDERS)}")
    weights = str(files[manifest.file_with_suffix(".h5")])
    return BUILDERS[network], manifest.input.preprocessing | {"network": network, "weights": weights}


def _load_aligner(manifest: Manifest, files: dict[str, Path], border: int) -> Aligner:
    """Cuts out chips as the manifest says, with ``border`` px more on each side."""
    wanted, side = manifest.alignment, manifest.input.side
    if wanted.kind == "dlib":
        from worker.faces.engines.dlib import DlibAligner

        align = DlibAligner(files[wanted.predictor], side, wanted.padding, border)
        return lambda image, detections: align(image, detections.boxes)

    return lambda image, faces: alignment.warp(
        image, alignment.with_border(_matrices(manifest, faces), border), side + 2 * border
    )


def _matrices(manifest: Manifest, faces: Detections) -> NDArray[np.float64]:
    """Where the manifest says that chips lie; ``dlib`` looks at pixels for that."""
    wanted, side = manifest.alignment, manifest.input.side
    if wanted.kind == "box":
        return alignment.box_matrices(faces.boxes, side, wanted.enlarge, wanted.shorter_side)
    if wanted.kind == "dlib":
        raise ValueError("dlib's alignment has no matrices")
    return alignment.similarity_matrices(faces.landmarks, wanted.template, side)


def _known(precision: str, possible: Sequence[str]) -> str:
    if precision not in possible:
        raise ModelError(f"precision '{precision}' is not one of {', '.join(possible)} or auto, which this engine has")
    return precision


def _require_fp32(manifest: Manifest, engine: str, precision: str) -> None:
    if precision not in {"auto", "fp32"}:
        raise ModelError(f"{manifest.id} on the engine '{engine}' computes in fp32 only, not in {precision}")
