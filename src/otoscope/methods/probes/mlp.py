"""MLP probes: what a layer holds in any form that one hidden layer can read.

A label that an MLP reads and a linear probe does not is there, but not as a direction. The weight decay is chosen on training
groups alone, as the penalty of the linear probe is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from otoscope.methods.probes.linear import checked, held_out_log_likelihood, inner_folds

#: weight decays that are tried
DECAYS = (1.0, 0.01)
_STEPS = 2000


@dataclass(frozen=True, eq=False)
class MLPProbe:
    """A fitted MLP probe with one hidden layer of rectified units.

    Attributes:
        classes: labels in order.
        decay: that was chosen.
        validation: log-likelihood per held-out training row (nats); NaN where nothing was chosen.
        model: scikit-learn's classifier on standardised features.
        mean, spread: of the training rows.
    """

    classes: Shaped[np.ndarray, " label"]
    decay: float
    validation: float
    model: Any
    mean: Float[np.ndarray, " d"]
    spread: Float[np.ndarray, " d"]

    def log_probs(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row label"]:
        """Log-probability of each label (nats)."""
        standard = ((np.asarray(x, np.float32) - self.mean) / self.spread).astype(np.float32)
        return np.log(np.maximum(self.model.predict_proba(standard), 1e-12))

    def predict(self, x: Float[np.ndarray, "row d"]) -> Shaped[np.ndarray, " row"]:
        """The likeliest label of each row."""
        return self.classes[self.log_probs(x).argmax(axis=1)]

    def right(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
        """Whether each row is labelled as it should be."""
        return self.predict(x) == np.asarray(y)

    def score(self, x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"]) -> float:
        """Accuracy."""
        return float(self.right(x, y).mean())


def fit_mlp(
    x_train: Float[np.ndarray, "row d"],
    y_train: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"] | None = None,
    *,
    hidden: int = 64,
    decays: Sequence[float] = DECAYS,
    folds: int = 1,
    seed: int = 0,
) -> MLPProbe:
    """Fit an MLP probe.

    Args:
        x_train: features of the training rows.
        y_train: their labels.
        groups: speakers of the training rows; the decay is chosen with whole speakers held out. None: rows.
        hidden: units of the hidden layer.
        decays: to choose from.
        folds: inner folds that choose.
        seed: of the initial weights and the inner folds.

    Raises:
        TaskError: fewer than two labels, shapes that disagree, or values that are not finite.
    """
    x, y = checked(x_train, y_train)
    chosen, best = decays[0], float("nan")
    inner = inner_folds(y, groups, folds, seed) if len(decays) > 1 else []
    if inner:
        found = [
            np.mean([
                held_out_log_likelihood(_trained(x[a], y[a], hidden, decay, seed), x[b], y[b]) for a, b in inner
            ])
            for decay in decays
        ]  # fmt: skip
        chosen, best = decays[int(np.argmax(found))], float(np.max(found))
    made = _trained(x, y, hidden, chosen, seed)
    return MLPProbe(made.classes, chosen, best, made.model, made.mean, made.spread)


def _trained(
    x: Float[np.ndarray, "row d"], y: Shaped[np.ndarray, " row"], hidden: int, decay: float, seed: int
) -> MLPProbe:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < 1e-8] = 1.0
    batch = min(128, len(x))
    epochs = max(10, min(200, _STEPS * batch // len(x)))
    settings: dict[str, Any] = {"alpha": decay, "batch_size": batch, "max_iter": epochs, "random_state": seed}
    model = MLPClassifier((hidden,), **settings)
    with warnings.catch_warnings():
        # the number of steps is fixed, so that large and small sets get the same training
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - mean) / spread, y)
    return MLPProbe(np.asarray(model.classes_), decay, float("nan"), model, mean, spread)
