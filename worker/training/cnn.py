"""Trains the face network on one's own people in two stages: first a trial, then the final training.

The trial holds out some people, and some photos of everybody else. The photos show after which epoch to stop, and how
sure the network may be. The people are strangers to the network: they show from which probability and cosine on a
person may be named. In the final stage a new network learns all photos of all people, for as many epochs.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from worker.errors import ModelError
from worker.files import replace_file
from worker.gallery.classifier import Head
from worker.training.answers import Answers

LEAST_PHOTOS: Final = 2
"""Of each person: one to learn, and one to see whether the person was learnt."""
ENLARGE: Final = 1.3
"""The box of a face is enlarged by this factor before it is cut out, so that the outline of the head is in it."""
CHECKPOINT_FILE: Final = "checkpoint.npz"
_HELD_OUT: Final = 0.2
_LEAST_EPOCHS: Final = 15
_SCALE_RANGE: Final = (2.0, 16.0)
"""The upper limit is the scale of the training. On photos of known people a larger one looks better, but the network
would then be too sure of strangers."""
_CONTROL: Final = "control"

Stage = Literal["trial", "final"]
Pixels = NDArray[np.uint8]
People = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
OnEpoch = Callable[["Epoch", int], None]
"""Is told of each finished epoch, and of the largest number of epochs of the stage."""


class Network(Protocol):
    """What :class:`worker.faces.networks.face_cnn.Training` does."""

    def epoch(self, number: int, images: Pixels, labels: People) -> float: ...

    def look(self, images: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...

    def state(self) -> Arrays: ...

    def resume(self, state: Arrays) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """``epochs`` is the largest number of epochs. The trial ends after ``patience`` epochs without an improvement.

    ``seed`` is that of everything random.
    """

    epochs: int = 60
    patience: int = 12
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """A point of the learning curves. ``accuracy`` and ``validation_loss`` are of the photos held out in the trial."""

    stage: Stage
    number: int
    loss: float
    validation_loss: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """A trained network, and what the trial showed. ``strangers`` is empty if nobody could be held out."""

    network: Any
    scale: float
    known: Answers
    strangers: Answers
    epochs: int
    history: list[Epoch]
    resumed_at: Epoch | None

    @property
    def head(self) -> Head:
        """The last layer: from unit features to probabilities."""
        directions = self.network.directions.astype(np.float64)
        none = np.zeros(len(directions))
        return Head("softmax", directions, none, np.array([self.scale]), np.zeros(1))


@dataclass(slots=True)
class _Progress:
    """How far a training has come. It is written after each epoch."""

    stage: Stage = "trial"
    done: int = 0
    best_epoch: int = -1
    best_loss: float = float("inf")
    history: list[dict[str, Any]] = field(default_factory=list)


class ResumableTraining:
    """One training, which is saved after each epoch and can be resumed.

    Args:
        images: grey faces uint8 (n, side, side).
        people: who is in each, int64 (n,), numbered from 0 without a gap.
        settings: of the training.
        checkpoint: the file that holds the state.
        make: makes a new network from the number of people, the number of epochs, and the seed.
        on_epoch: is told of each epoch.
    """

    def __init__(
        self,
        images: Pixels,
        people: People,
        settings: Settings,
        checkpoint: Path,
        make: Callable[[int, int, int], Any],
        on_epoch: OnEpoch = lambda _epoch, _total: None,
    ) -> None:
        self._images, self._people, self._settings = images, people, settings
        self._file, self._make, self._on_epoch = checkpoint, make, on_epoch
        self._progress, self._trial_answers = _Progress(), Arrays()
        self._resumed: Arrays | None = None
        described = json.dumps([asdict(settings), images.shape, people.tolist()])
        self._fingerprint = hashlib.sha256(described.encode() + images.tobytes()).hexdigest()

    def resume(self) -> None:
        """Continues from the checkpoint, or from the beginning if there is none.

        Raises:
            ModelError: the checkpoint is damaged, or is of a training with other photos or settings.
        """
        if not self._file.is_file():
            return
        try:
            with np.load(io.BytesIO(self._file.read_bytes()), allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            control = json.loads(arrays.pop(_CONTROL).tobytes())
            progress = _Progress(**control["progress"])
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ModelError(f"{self._file} is damaged ({error}): remove it, and train without --resume") from None
        if control["fingerprint"] != self._fingerprint:
            raise ModelError(
                f"{self._file} is of a training with other photos or settings: give the same ones, or remove it and "
                "train without --resume"
            )
        self._progress = progress
        self._trial_answers = {name: values for name, values in arrays.items() if name.startswith("evidence_")}
        self._resumed = {name: values for name, values in arrays.items() if not name.startswith("evidence_")}

    def train(self) -> Learnt:
        """Runs what is left of the trial and of the final training.

        Raises:
            ModelError: the checkpoint cannot be written.
        """
        resumed_at = Epoch(**self._progress.history[-1]) if self._progress.history else None
        if self._progress.stage == "trial":
            self._trial()
        epochs = min(self._settings.epochs, max(_LEAST_EPOCHS, self._progress.best_epoch + 1))
        network = self._network(int(self._people.max()) + 1, epochs)
        for number in range(self._progress.done, epochs):
            loss = network.epoch(number, self._images, self._people)
            self._finished(Epoch("final", number, loss), network, epochs)
        history = [Epoch(**epoch) for epoch in self._progress.history]
        known, strangers = (_unpacked(self._trial_answers, name) for name in ("known", "strangers"))
        scale = float(self._trial_answers["evidence_scale"][0])
        return Learnt(network, scale, known, strangers, epochs, history, resumed_at)

    def _trial(self) -> None:
        learnt, unseen, strangers = _parts(self._people, self._settings.seed)
        numbers, packed = np.unique(self._people[learnt], return_inverse=True)
        labels = packed.astype(np.int64)
        truth = np.searchsorted(numbers, self._people[unseen])
        progress, settings = self._progress, self._settings
        network = self._network(len(numbers), settings.epochs)
        for number in range(progress.done, settings.epochs):
            if number - progress.best_epoch > settings.patience:
                break
            loss = network.epoch(number, self._images[learnt], labels)
            cosines, features = network.look(self._images[unseen])
            scale = _best_scale(cosines, truth)
            unseen_loss = _cross_entropy(cosines, truth, scale)
            if unseen_loss < progress.best_loss:
                progress.best_epoch, progress.best_loss = number, unseen_loss
                references = network.look(self._images[learnt])[1]
                known = _answers(cosines, features, references, labels, scale, truth)
                far, others = network.look(self._images[strangers])
                nobody = np.full(len(others), -1)
                unknown = _answers(far, others, references, labels, scale, nobody)
                self._trial_answers = {"evidence_scale": np.array([scale])}
                self._trial_answers |= _packed(known, "known", self._people[unseen])
                self._trial_answers |= _packed(unknown, "strangers", self._people[strangers])
            accuracy = float(np.mean(cosines.argmax(axis=1) == truth))
            self._finished(Epoch("trial", number, loss, unseen_loss, accuracy), network, settings.epochs)
        progress.stage, progress.done = "final", 0

    def _network(self, people: int, epochs: int) -> Any:
        network = self._make(people, epochs, self._settings.seed)
        if self._resumed:
            network.resume(self._resumed)
        self._resumed = None
        return network

    def _finished(self, epoch: Epoch, network: Network, total: int) -> None:
        self._progress.history.append(asdict(epoch))
        self._progress.done = epoch.number + 1
        self._save(network)
        self._on_epoch(epoch, total)

    def _save(self, network: Network) -> None:
        control = json.dumps({"fingerprint": self._fingerprint, "progress": asdict(self._progress)}).encode()
        held = io.BytesIO()
        arrays: Arrays = {_CONTROL: np.frombuffer(control, np.uint8), **self._trial_answers, **network.state()}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(held, **arrays)  # type: ignore[arg-type] # its stub takes the names for its own options
            replace_file(self._file, held.getbuffer())
        except OSError as error:
            raise ModelError(f"checkpoint {self._file} cannot be written: {error.strerror or error}") from None


def _parts(people: People, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Photos to learn, photos of the same people to hold out, and photos of the people held out, bool (n,) each."""
    random = np.random.default_rng((seed, 1))
    count = int(people.max()) + 1
    held_out = random.permutation(count)[: max(1, round(_HELD_OUT * count)) if count > 2 else 0]
    strangers = np.isin(people, held_out)
    unseen = np.zeros(len(people), bool)
    for person in np.setdiff1d(np.arange(count), held_out):
        own = random.permutation(np.flatnonzero(people == person))
        unseen[own[: max(1, round(_HELD_OUT * len(own)))]] = True
    return ~strangers & ~unseen, unseen, strangers


def _best_scale(cosines: NDArray[np.float32], truth: NDArray[np.intp]) -> float:
    """The factor for cosines with which the softmax is as sure as it is right."""
    low, high = np.log(_SCALE_RANGE)
    found = minimize_scalar(
        lambda logarithm: _cross_entropy(cosines, truth, np.exp(logarithm)), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def _cross_entropy(cosines: NDArray[np.float32], truth: NDArray[np.intp], scale: float) -> float:
    chances = _softmax(cosines, scale)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chances, 1e-12)).mean())


def _softmax(cosines: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    powers = np.exp(scale * (cosines.astype(np.float64) - cosines.max(axis=1, keepdims=True)))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _answers(
    cosines: NDArray[np.float32],
    features: NDArray[np.float32],
    references: NDArray[np.float32],
    owners: People,
    scale: float,
    truth: NDArray[np.intp] | People,
) -> Answers:
    if not len(cosines):
        return Answers(np.empty(0), np.empty(0), np.empty(0, bool), np.empty(0, np.int64))
    first = cosines.argmax(axis=1)
    nearest = np.where(owners[None, :] == first[:, None], features @ references.T, -1.0).max(axis=1)
    probability = _softmax(cosines, scale).max(axis=1)
    return Answers(probability, nearest.astype(np.float64), first == truth, np.zeros(len(first), np.int64))


def _packed(answers: Answers, name: str, people: People) -> Arrays:
    values = {"probability": answers.probability, "cosine": answers.cosine, "right": answers.right, "people": people}
    return {f"evidence_{name}_{part}": array for part, array in values.items()}


def _unpacked(evidence: Arrays, name: str) -> Answers:
    return Answers(*(evidence[f"evidence_{name}_{part}"] for part in ("probability", "cosine", "right", "people")))
