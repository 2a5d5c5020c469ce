"""Intervals, tests and thresholds; entries that are NaN or -1 are left out, label by label.

Shapes: ``n`` films, ``C`` labels, ``G`` patients, ``R`` replicates.  What cannot be estimated comes
back with NaN bounds and a reason; nothing is guessed.
"""

from __future__ import annotations

from ark_framework.statistics.delong import delong, delong_paired
from ark_framework.statistics.folds import cliffs_delta, mann_whitney, stars
from ark_framework.statistics.grouped import MEASURES, GroupedFilms
from ark_framework.statistics.pairs import bootstrap_paired, bootstrap_rows_paired
from ark_framework.statistics.ratios import bootstrap_means_paired
from ark_framework.statistics.resampling import bootstrap
from ark_framework.statistics.results import (
    FEW,
    Difference,
    Differences,
    Interval,
    Intervals,
    LabelScore,
    label_scores,
)
from ark_framework.statistics.rows import bootstrap_rows
from ark_framework.statistics.seeds import (
    BEST,
    SECOND,
    TIED,
    Standing,
    corrected_t,
    difference_to_best,
    holm,
    paired_t,
    two_sample_t,
    welch,
)
from ark_framework.statistics.subgroups import TESTED, GroupScore, Subgroups, subgroups
from ark_framework.statistics.thresholds import (
    POLICIES,
    Threshold,
    choose,
    threshold_at_specificity,
    youden_threshold,
)
from ark_framework.statistics.weighted import (
    Metric,
    RowMetric,
    weighted_accuracy,
    weighted_auroc,
    weighted_average_precision,
)

__all__ = [
    "BEST",
    "Difference",
    "Differences",
    "FEW",
    "GroupScore",
    "GroupedFilms",
    "Interval",
    "Intervals",
    "LabelScore",
    "MEASURES",
    "Metric",
    "POLICIES",
    "RowMetric",
    "SECOND",
    "Standing",
    "Subgroups",
    "TESTED",
    "TIED",
    "Threshold",
    "bootstrap",
    "bootstrap_means_paired",
    "bootstrap_paired",
    "bootstrap_rows",
    "bootstrap_rows_paired",
    "choose",
    "cliffs_delta",
    "corrected_t",
    "delong",
    "delong_paired",
    "difference_to_best",
    "holm",
    "label_scores",
    "mann_whitney",
    "paired_t",
    "stars",
    "subgroups",
    "threshold_at_specificity",
    "two_sample_t",
    "weighted_accuracy",
    "weighted_auroc",
    "weighted_average_precision",
    "welch",
    "youden_threshold",
]
