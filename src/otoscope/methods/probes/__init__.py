"""Probes: what a layer holds, read by a classifier that is kept honest.

``fit(x_train, y_train, groups) -> Probe`` with ``.score(x, y)`` and ``.weights``; ``fit_mlp`` and ``fit_sparse`` alike.
"""

from otoscope.methods.probes.linear import LinearProbe, Probe, fit, fit_path
from otoscope.methods.probes.mdl import CodeLength, online_code
from otoscope.methods.probes.mlp import MLPProbe, fit_mlp
from otoscope.methods.probes.selectivity import (
    HeldOut,
    Rows,
    Selectivity,
    control_labels,
    held_out,
    selectivity,
    shuffled_labels,
)
from otoscope.methods.probes.sparse import SparseProbe, fisher_score, fit_sparse, mean_difference, one_vs_rest
from otoscope.methods.probes.splits import disjoint_folds

__all__ = [
    "CodeLength",
    "HeldOut",
    "LinearProbe",
    "MLPProbe",
    "Probe",
    "Rows",
    "Selectivity",
    "SparseProbe",
    "control_labels",
    "disjoint_folds",
    "fisher_score",
    "fit",
    "fit_mlp",
    "fit_path",
    "fit_sparse",
    "held_out",
    "mean_difference",
    "one_vs_rest",
    "online_code",
    "selectivity",
    "shuffled_labels",
]
