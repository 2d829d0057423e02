"""Quantise a network to INT8 after training, with NNCF: the ranges of its activations are read off real faces."""

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray

from worker.errors import ModelError

BATCH: Final = 8


def quantize(network: Path, chips: NDArray[np.uint8], path: Path) -> None:
    """Write ``network`` (an OpenVINO file that takes uint8 RGB chips) in INT8 to ``path`` (``.xml``).

    ``chips`` uint8 (n, side, side, 3) are what the ranges are read off; a few hundred faces of many people do.

    Raises:
        ModelError: NNCF is not installed, or cannot quantise the network.
    """
    try:
        import nncf
    except ImportError:
        raise ModelError("quantising needs NNCF: pip install 'facestream[int8]'") from None
    # Not by NNCF's own function, which changes every handler that it finds at its logger, whosoever that is.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    batches = [chips[first : first + BATCH] for first in range(0, len(chips) - BATCH + 1, BATCH)]
    try:
        made: Any = nncf.quantize(
            openvino.Core().read_model(network),
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )
    except (RuntimeError, nncf.ValidationError) as error:
        problem = " ".join(str(error).split())[-200:]
        raise ModelError(f"{network.name} cannot be quantised: {problem}") from None
    openvino.save_model(made, path, compress_to_fp16=False)
