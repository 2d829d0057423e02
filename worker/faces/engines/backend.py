"""Keras' backend is chosen when Keras is imported, once in a process: here and nowhere else."""

import os
import sys

from worker.errors import ModelError


def use_backend(name: str) -> None:
    """Makes Keras run on ``name`` in this process; nothing else sets its backend.

    Raises:
        ModelError: it runs on another one already.
    """
    used = backend_in_use()
    if used is not None and used != name:
        raise ModelError(f"Keras runs on {used} in this process, so {name} cannot be used: one process has one runtime")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def backend_in_use() -> str | None:
    """The backend that Keras runs on in this process, if it was imported already."""
    keras = sys.modules.get("keras")
    return str(keras.config.backend()) if keras is not None and hasattr(keras, "config") else None
