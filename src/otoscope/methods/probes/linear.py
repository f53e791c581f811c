"""Linear probes: what a layer holds in a form that one matrix reads.

Multinomial logistic regression with an L2 penalty: ``mean_i -log p(y_i | x_i) + l/2 |W|^2`` on standardised features, divided
by ``sqrt(d)``, so that a row's squared norm is about 1 and ``l`` means the same at every width.
The penalty ``l`` is chosen by the held-out log-likelihood of *training* groups alone; the test rows are never looked at.
The mean (not the sum) over rows makes ``l`` mean the same for every number of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Shaped

from otoscope.errors import TaskError
from otoscope.methods.probes.splits import Fold, disjoint_folds

#: penalties that are tried, the strongest first: each starts from the solution of the one before
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
_MOST_STEPS = 300


class Probe(Protocol):
    """What every kind of probe offers.

    Attributes:
        classes: labels in the order of the columns of ``log_probs``.
        validation: log-likelihood per held-out training row (nats) of what was chosen; higher is better.
    """

    @property
    def classes(self) -> Shaped[np.ndarray, " label"]: ...

    @property
    def validation(self) -> float: ...

    def log_probs(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row label"]: ...


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted linear probe, in the units of the features themselves (the standardisation is folded in).

    Attributes:
        classes: labels in order.
        weights: ``[label, d]``; of two labels one row, which speaks for the second.
        bias: one per row of ``weights``.
        penalty: that was chosen.
        validation: log-likelihood per held-out training row (nats); NaN where nothing was chosen.
    """

    classes: Shaped[np.ndarray, " label"]
    weights: Float[np.ndarray, "output d"]
    bias: Float[np.ndarray, " output"]
    penalty: float
    validation: float = float("nan")

    def logits(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row output"]:
        """``x W' + b``."""
        return np.asarray(x, float) @ self.weights.T + self.bias

    def log_probs(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row label"]:
        """Log-probability of each label (nats)."""
        z = self.logits(x)
        if len(self.classes) == 2:
            z = np.concatenate([np.zeros_like(z), z], axis=1)
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def predict(self, x: Float[np.ndarray, "row d"]) -> Shaped[np.ndarray, " row"]:
        """The likeliest label of each row."""
        return self.classes[self.log_probs(x).argmax(axis=1)]

    def right(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
        """Whether each row is labelled as it should be."""
        return self.predict(x) == np.asarray(y)

    def score(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> float:
        """Accuracy: the share of rows that are labelled as they should be."""
        return float(self.right(x, y).mean())


def fit(
    x_train: Float[np.ndarray, "row d"],
    y_train: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"] | None = None,
    *,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 3,
    balanced: bool = False,
    seed: int = 0,
) -> LinearProbe:
    """Fit a linear probe.

    Args:
        x_train: features of the training rows.
        y_train: their labels.
        groups: speakers of the training rows; the penalty is chosen with whole speakers held out. None: rows.
        penalties: to choose from; a single one is taken as it is.
        folds: inner folds that choose; 1 uses one split only, which is enough for thousands of rows.
        balanced: weigh every label equally, however frequent it is.
        seed: of the inner folds.

    Raises:
        TaskError: fewer than two labels, shapes that disagree, or values that are not finite.
    """
    x, y = checked(x_train, y_train)
    ordered = sorted(penalties, reverse=True)
    chosen, best = ordered[0], float("nan")
    inner = inner_folds(y, groups, folds, seed) if len(ordered) > 1 else []
    if inner:
        totals = np.zeros(len(ordered))
        for train, test in inner:
            for i, probe in enumerate(fit_path(x[train], y[train], ordered, balanced=balanced)):
                totals[i] += held_out_log_likelihood(probe, x[test], y[test]) / len(inner)
        chosen, best = ordered[int(totals.argmax())], float(totals.max())
    probe = fit_path(x, y, [chosen], balanced=balanced)[0]
    return LinearProbe(probe.classes, probe.weights, probe.bias, chosen, best)


def checked(
    x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, "row d"], Shaped[np.ndarray, " row"]]:
    """Features as float32 and labels as an array.

    Raises:
        TaskError: shapes disagree, values are not finite, or there is but one label.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y)
    if x.ndim != 2 or len(x) != len(y):
        raise TaskError(f"a probe takes features [rows, d] and a label per row: got {x.shape} and {len(y)} labels.")
    if not np.isfinite(x).all():
        raise TaskError("the features hold NaN or infinite values: leave those rows out before probing.")
    if len(np.unique(y)) < 2:
        raise TaskError(f"all {len(y)} training rows have one label: a probe needs at least two.")
    return x, y


def inner_folds(
    y: Shaped[np.ndarray, " row"], groups: Shaped[np.ndarray, " row"] | None, folds: int, seed: int
) -> list[Fold]:
    """Folds of the training rows that choose a setting; none where a label has too few groups to be held out."""
    try:
        return disjoint_folds(y, groups, max(folds, 3), seed)[:folds]
    except (TaskError, ValueError):
        return []


def held_out_log_likelihood(probe: Probe, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> float:
    """Mean log-probability of the true labels (nats); labels that were never seen count as 1 in 10^6."""
    logs = np.full(len(y), np.log(1e-6))
    found = probe.log_probs(x)
    for column, label in enumerate(probe.classes):
        rows = np.asarray(y == label)
        logs[rows] = np.maximum(found[rows, column], np.log(1e-6))
    return float(logs.mean())


def fit_path(
    x: Float[np.ndarray, "row d"],
    y: Shaped[np.ndarray, " row"],
    penalties: Sequence[float] = PENALTIES,
    *,
    balanced: bool = False,
) -> list[LinearProbe]:
    """A probe per penalty, in the order given; each starts from the one before, so give the strongest first."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    spread[spread < 1e-8] = 1.0
    spread *= np.sqrt(x.shape[1])
    standard = ((x - mean) / spread).astype(np.float32)
    model: Any = LogisticRegression(
        max_iter=_MOST_STEPS, warm_start=True, tol=1e-3, class_weight="balanced" if balanced else None
    )
    made = []
    for penalty in penalties:
        # scikit-learn weighs the *sum* of the losses by C
        model.set_params(C=1 / (penalty * len(x)))
        with _quietly():
            model.fit(standard, y)
        weights = model.coef_.astype(np.float64) / spread
        bias = model.intercept_.astype(np.float64) - weights @ mean
        made.append(LinearProbe(model.classes_, weights, bias, penalty))
    return made


@contextmanager
def _quietly() -> Iterator[None]:
    """Weak penalties are cut off after a fixed number of steps on purpose: stopping early only adds to the penalty."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
