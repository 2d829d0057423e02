"""The INT8 form that may stand in for a model: where it lies, and what proves that it changes no answer.

It gives vectors of the model's own space, so galleries and thresholds stay. That is allowed only where it was measured,
with this model and the arithmetic of this processor: sums of eight-bit products are computed in another way with each
instruction set, and may overflow on one of them only.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from worker.errors import ModelError
from worker.faces.engines import processor_flags
from worker.faces.manifests import Manifest
from worker.faces.weights import Part
from worker.files import replace_file, sha256_of
from worker.logs import get_logger

FEWEST_PAIRS: Final = 1000
"""One pair in 1,000 is a tenth of a point: with fewer pairs a loss of that size cannot be seen."""
MOST_LOST: Final = 0.001
"""The largest loss of accuracy with which the INT8 form stands in, as a share of the pairs: 0.1 point."""

_INSTRUCTIONS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")
_FILES: Final = ("network.xml", "network.bin")
_PROOF: Final = "proof.json"

_log = get_logger(__name__)


class Proof(Part):
    """What was measured before the INT8 form may stand in. Accuracies are shares of ``pairs``, judged rightly."""

    model_id: str
    preprocessing_digest: str
    arithmetic: str
    pairs: int
    accuracy: float
    accuracy_int8: float
    accuracy_mixed: float
    files: dict[str, str]

    @property
    def lost(self) -> float:
        """The larger loss: all vectors by the INT8 form, or one of each pair (a gallery that was made before)."""
        return self.accuracy - min(self.accuracy_int8, self.accuracy_mixed)

    @property
    def holds(self) -> bool:
        """Whether the INT8 form may stand in for the model."""
        return self.pairs >= FEWEST_PAIRS and self.lost <= MOST_LOST + 1e-9


def arithmetic() -> str:
    """The instruction sets of this processor that decide how eight-bit products are added up."""
    flags = processor_flags()
    return " ".join(name for name in _INSTRUCTIONS if name in flags) or "unknown"


def standin_folder(manifest: Manifest, cache_dir: Path) -> Path:
    """Where the INT8 form of a model lies, or will lie, for this kind of processor."""
    kind = hashlib.sha256(arithmetic().encode()).hexdigest()[:8]
    return cache_dir / "int8" / f"{manifest.id}-{manifest.preprocessing_digest[:16]}-{kind}"


def admit(manifest: Manifest, network: Path, accuracies: Sequence[float], pairs: int, cache_dir: Path) -> Proof:
    """Keeps ``network`` (an OpenVINO ``.xml`` with its ``.bin`` beside it) as the model's INT8 form, if it holds.

    An earlier one goes in any case: what was measured last counts.

    Args:
        accuracies: with the model itself, with the INT8 form, and with one vector of each pair by either.
        pairs: how many pairs were judged.
    """
    folder = standin_folder(manifest, cache_dir)
    (folder / _PROOF).unlink(missing_ok=True)
    content = dict(zip(_FILES, (network.read_bytes(), network.with_suffix(".bin").read_bytes()), strict=True))
    proof = Proof(
        model_id=manifest.id,
        preprocessing_digest=manifest.preprocessing_digest,
        arithmetic=arithmetic(),
        pairs=pairs,
        accuracy=accuracies[0],
        accuracy_int8=accuracies[1],
        accuracy_mixed=accuracies[2],
        files={name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    )
    if proof.holds:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            replace_file(folder / name, data)
        replace_file(folder / _PROOF, json.dumps(proof.model_dump(), indent=1).encode())
    return proof


def standin(manifest: Manifest, cache_dir: Path) -> Path | None:
    """The OpenVINO file of the model's INT8 form; None if none was admitted here, or if its files have changed."""
    folder = standin_folder(manifest, cache_dir)
    if not (folder / _PROOF).exists():
        return None
    try:
        return _checked(folder, manifest)
    except (OSError, ValidationError, ModelError) as error:
        reason = " ".join(str(error).split())
        _log.warning("the INT8 form of the model is left out", folder=str(folder), reason=reason)
        return None


def _checked(folder: Path, manifest: Manifest) -> Path:
    proof = Proof.model_validate_json((folder / _PROOF).read_bytes())
    fits = (proof.preprocessing_digest, proof.arithmetic) == (manifest.preprocessing_digest, arithmetic())
    if not (fits and proof.holds and set(proof.files) == set(_FILES)):
        raise ModelError("its proof does not hold for this model on this processor")
    for name, digest in proof.files.items():
        if sha256_of(folder / name) != digest:
            raise ModelError(
                f"{name} has another digest than its proof says: 'facestream models quantize' makes it anew"
            )
    return folder / _FILES[0]
