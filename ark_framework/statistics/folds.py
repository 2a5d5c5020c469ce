"""Two samples of scores over folds, as the literature compares them: ranks, stars, effect sizes.

Folds share training films, so these p-values are too small; :func:`corrected_t` knows that.
"""

from __future__ import annotations

import numpy as np

STARS = ((1e-5, "****"), (1e-4, "***"), (1e-3, "**"), (1e-2, "*"))


def mann_whitney(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return U of ``a`` ``(n,)`` over ``b`` ``(m,)`` and its two-sided p (Mann, Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    result = mannwhitneyu(a, b, alternative="two-sided")
    return float(result.statistic), float(result.pvalue)


def stars(p: float) -> str:
    """Return the marks of Larrazabal et al. (2020), from ``ns`` (above 0.01) to ``****``."""
    return next((marks for limit, marks in STARS if p <= limit), "ns")


def cliffs_delta(a: np.ndarray, b: np.ndarray) -> float:
    """Return how much more often ``a`` is above ``b`` than below, -1 to 1 (Cliff 1993)."""
    return float(np.sign(np.subtract.outer(a, b)).mean())
