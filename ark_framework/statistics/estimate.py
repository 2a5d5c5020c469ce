"""One number with its replicates, and the two ways from them to bounds: BCa and Student's t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ark_framework.statistics.draws import Replicates

ROUNDING = 1e-12  # scores are of order 1: differences below it are none


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number of all films, of the draws and deletions that define it, and how many were asked.

    ``patients`` are those that its variance rests on: of the smaller class, or all.
    """

    value: float
    drawn: np.ndarray
    without: np.ndarray
    asked: int
    patients: float

    @classmethod
    def of(cls, found: Replicates, column: int, *, patients: float) -> Estimate:
        """Take one of the ``K`` numbers, leaving out replicates where it is undefined."""
        drawn, without = found.drawn[:, column], found.without[:, column]
        return cls(
            value=float(found.value[column]),
            drawn=drawn[np.isfinite(drawn)],
            without=without[np.isfinite(without)],
            asked=len(drawn),
            patients=patients,
        )

    @property
    def reason(self) -> str:
        """Why nothing is claimed, or an empty string."""
        if len(self.drawn) < 0.9 * self.asked:
            return f"not estimable: {len(self.drawn)} of {self.asked} replicates are defined"
        return ""

    @property
    def variance(self) -> float:
        """Of the replicates."""
        return float(self.drawn.var(ddof=1))

    def bca(self, level: float) -> tuple[float, float]:
        """Return the bias-corrected and accelerated interval (Efron 1987)."""
        normal, count = NormalDist(), len(self.drawn)
        share = ((self.drawn < self.value).sum() + (self.drawn == self.value).sum() / 2) / count
        bias = normal.inv_cdf(float(np.clip(share, 1 / (count + 1), count / (count + 1))))
        away = self.without.mean() - self.without
        spread = float((away**2).sum()) ** 1.5
        bend = float((away**3).sum()) / (6 * spread) if spread else 0.0
        shares, reach = [], self._quantile(level) * self._expansion()
        for sign in (-1, 1):
            z = bias + sign * reach
            shares.append(normal.cdf(bias + z / max(1 - bend * z, 1e-3)))
        low, high = np.quantile(self.drawn, shares)
        return float(low), float(high)

    def student(self, level: float, *, least: float = 0.0) -> tuple[float, float, float]:
        """Return the interval about the value and the two-sided p of 0; NaN without variance.

        ``least`` is a variance of the value that replicates may understate.
        """
        from scipy.stats import t

        if np.ptp(self.drawn) < ROUNDING and not least:
            return math.nan, math.nan, math.nan
        error = max(math.sqrt(self.variance) * self._expansion(), math.sqrt(least))
        reach = self._quantile(level) * error
        p = float(2 * t.sf(abs(self.value) / error, self.patients - 1))
        return self.value - reach, self.value + reach, p

    # Resampling understates the variance by (patients - 1) / patients and ignores that it is
    # estimated; both are made good as Hesterberg (2015), section 5.3, does by expanding.

    def _expansion(self) -> float:
        return math.sqrt(self.patients / (self.patients - 1)) if self.patients > 1 else math.inf

    def _quantile(self, level: float) -> float:
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, max(self.patients - 1, 1)))
