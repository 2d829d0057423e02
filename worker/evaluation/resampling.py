"""Sampling error where people are the sample: faces of one person are no independent evidence.

A comparison of two people depends on both, so two comparisons that share a person are correlated. The bootstrap
over people (each comparison weighted by the product of how often its two people were drawn; Owen, "The pigeonhole
bootstrap", 2007) keeps that correlation, but counts the noise of a single pair of people three times. That excess
is known and taken off again, which gives the variance of Fafchamps and Gubert (2007) for dyadic data.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_BLOCK_NUMBERS: Final = 4_000_000


def draw_people(people: int, draws: int, seed: int = 0) -> Iterator[Floats]:
    """How often each of ``people`` was drawn, with replacement, in ``draws`` samples: blocks float64 (some, people)."""
    generator = np.random.default_rng(seed)
    shares = np.full(people, 1 / people)
    block = max(1, _BLOCK_NUMBERS // people)
    for start in range(0, draws, block):
        yield generator.multinomial(people, shares, size=min(block, draws - start)).astype(np.float64)


def variance_of_mean(first: Indices, second: Indices, values: Floats) -> float:
    """Sampling variance of the mean of ``values`` (n,), each of a comparison of person ``first`` with ``second``.

    The two may be the same person. This is the variance for dyadic data in closed form.
    """
    residuals = values - values.mean()
    apart = first != second
    by_person = np.bincount(np.concatenate([first, second[apart]]), np.concatenate([residuals, residuals[apart]]))
    low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
    _, pair = np.unique(low * (int(high.max(initial=0)) + 1) + high, return_inverse=True)
    twice = np.bincount(pair, residuals[apart])
    # Where comparisons repel each other the difference can fall to nothing: never below independent comparisons.
    return float(max(by_person @ by_person - twice @ twice, residuals @ residuals)) / len(values) ** 2


def effective_count(rate: float, variance: float) -> float:
    """How many independent trials would estimate ``rate`` (0..1) with this ``variance``."""
    return rate * (1 - rate) / variance if variance > 0 else float("inf")


def rate_interval(rate: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval for a rate seen in ``trials`` effective independent trials.

    The Beta interval of Jeffreys with an effective number of trials, as Korn and Graubard (1998) propose for
    survey data: unlike percentiles of a bootstrap it is sound for the few events of a low rate.
    """
    tail = (1 - confidence) / 2
    hits = rate * trials
    low, high = stats.beta.ppf([tail, 1 - tail], hits + 0.5, trials - hits + 0.5)
    return (0.0 if hits == 0 else float(low)), float(high)
