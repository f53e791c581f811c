"""k-sparse probes: how well the best k features alone tell a label (Gurnee et al. 2023; SAEBench 0.6.0).

Features are ranked on the training rows: by the absolute difference of their means with and without the label (SAEBench), or by
the Fisher score, the variance of the classes' means over the mean variance within them (AudioSAE, arXiv 2602.05027). A
logistic regression then sees the first k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from otoscope.methods.probes.linear import PENALTIES, LinearProbe, checked, fit

Ranking = Literal["mean_difference", "fisher"]


def mean_difference(
    x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"], label: object
) -> Float[np.ndarray, " d"]:
    """``|mean(x | y = label) - mean(x | y != label)|`` of each feature."""
    inside = np.asarray(y == label)
    return np.abs(x[inside].mean(axis=0) - x[~inside].mean(axis=0))


def fisher_score(x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> Float[np.ndarray, " d"]:
    """``sum_c n_c (mu_c - mu)^2 / sum_c n_c var_c`` of each feature; 0 for a constant one."""
    x = np.asarray(x, np.float64)
    between, within = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    overall = x.mean(axis=0)
    for label in np.unique(y):
        rows = x[y == label]
        between += len(rows) * (rows.mean(axis=0) - overall) ** 2
        within += len(rows) * rows.var(axis=0)
    # a feature that is constant within every class but differs between them separates without error
    safe = np.where(within > 0, within, 1.0)
    return np.where(within > 0, between / safe, np.where(between > 0, np.inf, 0.0))


@dataclass(frozen=True, eq=False)
class SparseProbe:
    """A probe that reads only some features.

    Attributes:
        features: indices of what it reads, the best first.
        inner: the probe on those.
    """

    features: Int[np.ndarray, " k"]
    inner: LinearProbe

    @property
    def classes(self) -> Shaped[np.ndarray, " label"]:
        """Labels in order."""
        return self.inner.classes

    @property
    def validation(self) -> float:
        """Log-likelihood per held-out training row (nats)."""
        return self.inner.validation

    def log_probs(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row label"]:
        """Log-probability of each label (nats); ``x`` holds all features."""
        return self.inner.log_probs(np.asarray(x)[:, self.features])

    def right(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
        """Whether each row is labelled as it should be."""
        return self.inner.right(np.asarray(x)[:, self.features], y)

    def score(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> float:
        """Accuracy."""
        return float(self.right(x, y).mean())


def fit_sparse(
    x_train: Float[np.ndarray, "row d"],
    y_train: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"] | None = None,
    *,
    k: int = 1,
    ranking: Ranking = "fisher",
    penalties: Sequence[float] = PENALTIES,
    balanced: bool = False,
    seed: int = 0,
) -> SparseProbe:
    """Fit a probe on the ``k`` features that rank first on the training rows.

    Args:
        x_train: all features of the training rows.
        y_train: their labels; of two labels, ``mean_difference`` ranks too.
        groups: speakers; the penalty is chosen with whole speakers held out.
        k: number of features (all of them, where there are fewer).
        ranking: ``fisher``, or ``mean_difference`` (two labels only).
        penalties: to choose from.
        balanced: weigh every label equally.
        seed: of the inner folds.

    Raises:
        TaskError: fewer than two labels, shapes that disagree, or values that are not finite.
        ValueError: ``mean_difference`` with more than two labels, or k below 1.
    """
    x, y = checked(x_train, y_train)
    labels = np.unique(y)
    if k < 1:
        raise ValueError(f"k is {k}: a sparse probe reads at least one feature")
    if ranking == "mean_difference" and len(labels) > 2:
        raise ValueError(f"mean_difference ranks for two labels, not {len(labels)}: use one_vs_rest, or fisher")
    merit = mean_difference(x, y, labels[-1]) if ranking == "mean_difference" else fisher_score(x, y)
    features = np.argsort(-merit, kind="stable")[:k]
    return SparseProbe(features, fit(x[:, features], y, groups, penalties=penalties, balanced=balanced, seed=seed))


def one_vs_rest(
    x_train: Float[np.ndarray, "row d"],
    y_train: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"] | None,
    x_test: Float[np.ndarray, "test d"],
    y_test: Shaped[np.ndarray, " test"],
    *,
    k: int = 1,
    ranking: Ranking = "mean_difference",
    measure: Callable[[Bool[np.ndarray, " test"], Bool[np.ndarray, " test"]], float] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Score of a k-sparse probe for each label against all others, as SAEBench does for tasks with many labels.

    Args:
        x_train, y_train, groups: the training rows.
        x_test, y_test: the test rows.
        k: number of features.
        ranking: how they are chosen.
        measure: (truth, prediction) -> score; by default balanced accuracy, whose chance is 0.5 however rare the label is.
        seed: of the inner folds.

    Returns:
        label -> score; labels missing on either side are left out.
    """
    scores = {}
    for label in np.unique(y_train):
        truth = np.asarray(y_test == label)
        inside = np.asarray(y_train == label)
        if truth.all() or not truth.any() or inside.all():
            continue
        probe = fit_sparse(x_train, inside, groups, k=k, ranking=ranking, balanced=True, seed=seed)
        predicted = probe.log_probs(x_test)[:, 1] > np.log(0.5)
        scores[str(label)] = (measure or balanced_accuracy)(truth, predicted)
    return scores


def balanced_accuracy(truth: Bool[np.ndarray, " row"], predicted: Bool[np.ndarray, " row"]) -> float:
    """Mean of the share of hits among the true and of rejections among the others."""
    return float((predicted[truth].mean() + (~predicted[~truth]).mean()) / 2)
