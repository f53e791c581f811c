"""The planted truth: along the dial from guesser to listener, does the coefficient order the models as they behave?

Only the total effect is needed (layer 0, where an exchange of states is an exchange of inputs), so every setting is three
plain runs per item: (A, B), (B, B) and (A, A), sound first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from otoscope.engine.sweep import NOISE
from otoscope.methods.behaviour import Condition, ask_all, hits
from otoscope.methods.grounding_curve import ratio_curve
from otoscope.stats import Interval, bootstrap, spearman
from otoscope.studies.listen_models import DIAL, Compared
from otoscope.studies.outcome import Step
from otoscope.tasks.conflict import ConflictTask

_CORNERS: tuple[Condition, ...] = (("clean", "conflicting"), ("counterfactual", "conflicting"), ("clean", "agreeing"))


@dataclass(frozen=True)
class DialTruth:
    """What was measured along the dial.

    Attributes:
        shares: the listener's share at each setting; the rest is the guesser's.
        listen_rate: share of items whose answer is the sound's label, per setting.
        gc: the coefficient's summary per setting.
        rho: Spearman's correlation of the two over settings; its interval resamples items.
        calibration: mean over settings of ``|gc - listen rate|``; its interval resamples items.
    """

    shares: tuple[float, ...]
    listen_rate: list[Interval]
    gc: list[Interval]
    rho: Interval
    calibration: Interval

    def table(self) -> list[dict[str, Any]]:
        """One row per setting."""
        return [
            {
                "listener_share": share, "listen_rate": rate.value, "listen_rate_low": rate.low,
                "listen_rate_high": rate.high, "gc": gc.value, "gc_low": gc.low, "gc_high": gc.high, "n_items": rate.n,
            }
            for share, rate, gc in zip(self.shares, self.listen_rate, self.gc)
        ]  # fmt: skip


def dial_truth(
    those: Compared,
    task: ConflictTask,
    units: Sequence[str],
    *,
    shares: Sequence[float] = DIAL,
    step: Step,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = 500,
    seed: int = 0,
) -> DialTruth:
    """Ask every setting of the dial the three corners of every item.

    Args:
        those: a model with a dial.
        task: conflict items with counterfactual sounds.
        units: what intervals resample, one per item.
        shares: the listener's share at each setting.
        step: keeps finished settings.
        progress: called with settings done and their total.
        n_resamples, seed: of the bootstrap.

    Raises:
        ModelError: the model has no dial.
    """
    heard, audio, text = [], [], []
    try:
        for i, share in enumerate(shares):

            def ask(share: float = share) -> dict[str, Any]:
                those.choose(listener=share, guesser=1.0 - share)
                found = ask_all(those.model, task, _CORNERS)
                right = hits(found.choices[_CORNERS[0]], [item.sound_label for item in task])
                return {"heard": right, "margins": np.stack([found.margins[c] for c in _CORNERS])}

            found = step(f"dial-{share:.3f}", ask)
            ab, bb, aa = np.asarray(found["margins"])
            heard.append(np.asarray(found["heard"]))
            audio.append(ab - bb)
            text.append(aa - ab)
            if progress:
                progress(i + 1, len(shares))
    finally:
        those.choose()
    return summarise(tuple(shares), np.stack(heard), np.stack(audio), np.stack(text), units, n_resamples, seed)


def summarise(
    shares: tuple[float, ...],
    heard: Float[np.ndarray, "setting item"],
    audio: Float[np.ndarray, "setting item"],
    text: Float[np.ndarray, "setting item"],
    units: Sequence[str],
    n_resamples: int = 500,
    seed: int = 0,
) -> DialTruth:
    """From answers (1 where the sound was followed) and effects per setting and item to :class:`DialTruth`."""
    rates = [bootstrap(row, groups=units, seed=seed) for row in heard]
    curves = [ratio_curve(a[:, None], t[:, None], units, NOISE, seed=seed) for a, t in zip(audio, text)]
    gc = [Interval(float(c.gc[0]), float(c.low[0]), float(c.high[0]), c.n_units) for c in curves]

    def both(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # columns: heard, audio and text effects, setting by setting
        h, a, t = np.split(rows.mean(0), 3)
        with np.errstate(invalid="ignore", divide="ignore"):
            return h, a / (a + t)

    def order(rows: np.ndarray) -> float:
        return spearman(*both(rows), n_resamples=1).rho.value

    def error(rows: np.ndarray) -> float:
        h, g = both(rows)
        return float(np.abs(g - h).mean())

    rows = np.concatenate((heard, audio, text)).T
    options: dict[str, Any] = {"groups": units, "n_resamples": n_resamples, "seed": seed}
    return DialTruth(shares, rates, gc, bootstrap(rows, order, **options), bootstrap(rows, error, **options))
