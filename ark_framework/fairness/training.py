"""Same-sex beside other-sex training: what the folds of sex-exclusive training allow to say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.fairness.results import TRAINING
from ark_framework.statistics import (
    Difference,
    cliffs_delta,
    corrected_t,
    holm,
    mann_whitney,
    stars,
)

KEYS = ("model", "dataset", "label", "tested_on")
OWN = {"F": 1.0, "M": 0.0}  # the share of women among films of the tested sex alone
LEVEL = 0.05


def training(folds: pd.DataFrame) -> pd.DataFrame:
    """Compare training on the tested sex alone with training on the other sex alone.

    Args:
        folds: A row per model, dataset, label, fold, share of women and tested sex, with
            ``auroc``, ``train_films`` and ``test_films``; shares between 0 and 1 play no part.

    Returns:
        A row per model, dataset, label and tested sex, of the folds where both areas are known.
        ``difference`` is same minus other with the corrected resampled t test's interval and p;
        ``p_holm`` is over the labels and sexes of a model and dataset.  ``mann_whitney_p`` and
        ``stars`` are as published and take folds for independent, which they are not.
    """
    groups = folds.groupby(list(KEYS), sort=False)
    rows = [dict(zip(KEYS, keys, strict=True)) | _verdict(group) for keys, group in groups]
    found = pd.DataFrame(rows, columns=list(TRAINING))
    for _, family in found.groupby(["model", "dataset"], sort=False):
        found.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(dtype=np.float64))
    return found.assign(distinguished=found["p_holm"].astype(float) < LEVEL)


def _verdict(rows: pd.DataFrame) -> dict[str, Any]:
    own = OWN[rows["tested_on"].iloc[0]]
    areas = rows.pivot(index="fold", columns="share", values="auroc")
    both = areas.reindex(columns=[own, 1 - own]).dropna().to_numpy(dtype=np.float64)
    same, cross = both.T
    told: dict[str, Any] = {"same": _mean(same), "cross": _mean(cross), "folds": len(both)}
    told |= {"mann_whitney_p": math.nan, "stars": "", "delta": math.nan}
    if len(both) > 1:
        p = mann_whitney(same, cross)[1]
        told |= {"mann_whitney_p": p, "stars": stars(p), "delta": cliffs_delta(same, cross)}
    test = _corrected(same - cross, rows)
    told |= {"difference": test.value, "low": test.low, "high": test.high, "p": test.p}
    return {**told, "note": test.reason}


def _corrected(differences: np.ndarray, rows: pd.DataFrame) -> Difference:
    if len(differences) < 2:
        reason = f"not estimable: {len(differences)} folds have both areas, 2 are needed"
        return Difference(value=_mean(differences), reason=reason)
    tested, trained = rows["test_films"].mean(), rows["train_films"].mean()
    # Validation films are left out of the share: nothing is chosen by them, so none trains.
    return corrected_t(differences, tested / (tested + trained))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
