"""Intervals, paired tests and effect sizes over pairs, utterances or speakers; imports nothing of ours."""

from otoscope.stats.bootstrap import Interval, bootstrap, bootstrap_map, bootstrap_sums, ratio_of_sums
from otoscope.stats.effect import cliffs_delta, cohen_d, hedges_g
from otoscope.stats.tests import (
    Correlation,
    benjamini_hochberg,
    binomial_test,
    clopper_pearson,
    holm,
    sign_flip,
    sign_flip_map,
    spearman,
)

__all__ = [
    "Correlation",
    "Interval",
    "benjamini_hochberg",
    "binomial_test",
    "bootstrap",
    "bootstrap_map",
    "bootstrap_sums",
    "cliffs_delta",
    "clopper_pearson",
    "cohen_d",
    "hedges_g",
    "holm",
    "ratio_of_sums",
    "sign_flip",
    "sign_flip_map",
    "spearman",
]
