"""Women paired with men who have the same labels, so that case counts are equal, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

SEXES = ("F", "M")
BLANK = 2.0  # stands for NaN, which would not equal itself


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pair i is the films ``female[i]`` and ``male[i]``: one label pattern, two patients.

    Attributes:
        female: Rows ``(n,)``.
        male: Rows ``(n,)``.
        unpaired: Patients without a partner, by sex.
    """

    female: np.ndarray
    male: np.ndarray
    unpaired: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.female)


def pairs(
    sex: np.ndarray,
    patient: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    *,
    rng: np.random.Generator,
) -> Pairs:
    """Draw one film per patient, and as many pairs of each label pattern as there can be.

    Args:
        sex: ``(N,)``: ``F``, ``M``; any other film is left out.
        patient: ``(N,)`` codes.
        targets: ``(N, C)`` with 1, 0, -1 and NaN, each a value of the pattern.
        rows: Those that may be drawn.
        rng: Draws films and partners.
    """
    shuffled = rng.permutation(rows[np.isin(sex[rows], SEXES)])
    _, first = np.unique(patient[shuffled], return_index=True)
    drawn = rng.permutation(shuffled[first])
    known = np.nan_to_num(targets[drawn], nan=BLANK)
    pattern = np.unique(known, axis=0, return_inverse=True)[1].reshape(-1)
    films = pd.DataFrame({"row": drawn, "sex": sex[drawn], "pattern": pattern})
    films["place"] = films.groupby(["sex", "pattern"]).cumcount()
    female, male = (films[films["sex"] == each] for each in SEXES)
    both = female.merge(male, on=["pattern", "place"])
    return Pairs(
        female=both["row_x"].to_numpy(dtype=np.int64),
        male=both["row_y"].to_numpy(dtype=np.int64),
        unpaired={"F": len(female) - len(both), "M": len(male) - len(both)},
    )
