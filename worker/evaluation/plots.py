"""Curves as PNG files."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worker.files import writing

_DPI: Final = 150
_SIZE_IN: Final = (7.0, 5.0)
_LINE: Final = "#1d4ebe"
_SECOND: Final = "#c2540a"
_GUIDE: Final = "#8a9099"
_LEAST_DECADES: Final = 2
_DARK: Final = 0.5

Floats = NDArray[np.float64]


def plot_roc(far: Floats, tar: Floats, *, title: str, label: str, impostors: int, path: Path) -> None:
    """TAR against FAR. The axis of FAR is logarithmic and begins at one of ``impostors`` pairs.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "false accept rate (pairs of different people)", "true accept rate (same person)")
    least = 1 / max(impostors, 10**_LEAST_DECADES)
    axes.step(np.maximum(far, least), tar, where="post", color=_LINE, label=label)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(min(0.9, float(np.floor(tar[far <= 0.1].max(initial=0.9) * 10) / 10)) - 0.001, 1.001)
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_det(fpir: Floats, fnir: Floats, *, title: str, label: str, strangers: int, path: Path) -> None:
    """FNIR against FPIR on logarithmic axes. That of FPIR begins at one of ``strangers`` probes.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "FPIR: strangers given a name", "FNIR: enrolled people missed")
    least = 1 / max(strangers, 10**_LEAST_DECADES)
    axes.step(np.maximum(fpir, least), np.maximum(fnir, 1e-4), where="post", color=_LINE, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, 1)
    axes.legend(loc="upper right")
    _save(figure, path)


def plot_calibration(
    curves: Sequence[tuple[str, Floats, Floats]],
    *,
    title: str,
    target: float,
    threshold: float,
    interval: tuple[float, float],
    path: Path,
) -> None:
    """Rates against the threshold, with the target and the chosen threshold. ``curves``: (label, thresholds, rates).

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "threshold (cosine)", "rate")
    for (label, thresholds, rates), colour in zip(curves, (_LINE, _SECOND, _GUIDE), strict=False):
        axes.plot(thresholds, np.maximum(rates, 1e-7), color=colour, label=label)
    axes.axhline(target, color=_GUIDE, linestyle=":", label=f"target {target:g}")
    axes.axvline(threshold, color="black", linewidth=1, label=f"threshold {threshold:.3f}")
    axes.axvspan(*interval, color="black", alpha=0.12)
    axes.set_yscale("log")
    axes.set_ylim(max(target / 100, 1e-7), 1)
    axes.legend(loc="best")
    _save(figure, path)


def plot_similarities(rows: Sequence[tuple[str, float]], *, title: str, threshold: float, path: Path) -> None:
    """A bar for each (label, cosine) of ``rows``, the first on top, and the threshold.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "similarity (cosine)", "")
    figure.set_size_inches(_SIZE_IN[0] + 3, max(2.0, 0.9 + 0.28 * len(rows)))
    places = np.arange(len(rows))
    axes.barh(places, [similarity for _, similarity in rows], color=_LINE)
    axes.set_yticks(places, [label for label, _ in rows], parse_math=False)
    axes.invert_yaxis()
    axes.axvline(threshold, color="black", linewidth=1, label=f"threshold {threshold:.3f}")
    axes.set_xlim(min([0.0, *(similarity for _, similarity in rows)]), 1)
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_confusion(confusion: NDArray[np.int64], names: Sequence[str], *, title: str, path: Path) -> None:
    """Who was shown (downwards) and what was said of them: ``confusion`` int64 (k, k + 2) as in ``Judgement``.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "said", "shown")
    axes.grid(visible=False)
    side = float(np.clip(2.5 + 0.32 * len(names), 4.0, 24.0))
    figure.set_size_inches(side + 1, side)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    said = [*names, "no name", "no face"]
    axes.set_xticks(np.arange(len(said)), said, rotation=90, parse_math=False)
    axes.set_yticks(np.arange(len(names)), names, parse_math=False)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[row, column] > _DARK else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=7)
    _save(figure, path)


def plot_learning(curves: Sequence[tuple[str, Sequence[float]]], *, title: str, path: Path) -> None:
    """The loss after each epoch, with a curve for each (label, losses).

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure, axes = _figure(title, "epoch", "loss")
    for (label, losses), colour in zip(curves, (_LINE, _SECOND, _GUIDE), strict=True):
        axes.plot(np.arange(1, len(losses) + 1), losses, color=colour, label=label)
    axes.set_yscale("log")
    axes.legend(loc="upper right")
    _save(figure, path)


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, which="both", alpha=0.25)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with writing(path), warnings.catch_warnings():
        path.parent.mkdir(parents=True, exist_ok=True)
        warnings.filterwarnings("ignore", message="Glyph")  # boxes stand for letters that the font does not have
        figure.savefig(path, format="png", dpi=_DPI)
