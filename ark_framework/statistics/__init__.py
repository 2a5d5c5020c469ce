"""Intervals, tests and thresholds; entries that are NaN or -1 are left out, label by label.

Shapes: ``n`` films, ``C`` labels, ``G`` patients, ``R`` replicates.  What cannot be estimated comes
back with NaN bounds and a reason; nothing is guessed.
"""

from __future__ import annotations

from ark_framework.statistics.delong import delong, delong_paired
from ark_framework.statistics.resampling import bootstrap
from ark_framework.statistics.results import (
    FEW,
    Difference,
    Interval,
    Intervals,
    LabelScore,
    label_scores,
)
from ark_framework.statistics.seeds import (
    BEST,
    SECOND,
    TIED,
    Standing,
    difference_to_best,
    holm,
    two_sample_t,
    welch,
)
from ark_framework.statistics.thresholds import (
    POLICIES,
    Threshold,
    choose,
    threshold_at_specificity,
    youden_threshold,
)
from ark_framework.statistics.weighted import Metric, weighted_auroc, weighted_average_precision

__all__ = [
    "BEST",
    "Difference",
    "FEW",
    "Interval",
    "Intervals",
    "LabelScore",
    "Metric",
    "POLICIES",
    "SECOND",
    "Standing",
    "TIED",
    "Threshold",
    "bootstrap",
    "choose",
    "delong",
    "delong_paired",
    "difference_to_best",
    "holm",
    "label_scores",
    "threshold_at_specificity",
    "two_sample_t",
    "weighted_auroc",
    "weighted_average_precision",
    "welch",
    "youden_threshold",
]
