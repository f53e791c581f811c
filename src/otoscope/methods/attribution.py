"""Attribution patching: what every patch would do, estimated by one backward pass, then confirmed exactly.

A patch puts the donor's value ``d`` where the base run has ``b``. To first order the metric ``m`` moves by

    score = sum of (d - b) * dm/db

over the patched cell, with the slope taken in the base run. Two forwards and one backward give the scores of all cells
of all sites (Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348). The estimate is exact where the
metric is linear in the patched value and fails where it bends (softmax saturation, norms, large differences), so what
it ranks high is confirmed by the exact sweep: :meth:`Attribution.confirm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.engine.capture import resolve_sites
from otoscope.engine.intervene import Intervention
from otoscope.engine.metrics import KL, Metric, Reading, Top1Change
from otoscope.engine.model import Model
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import NOISE, SweepResult
from otoscope.errors import SiteError, TaskError
from otoscope.models.inputs import Inputs
from otoscope.models.site import HEAD_POINTS, PATTERN_POINTS, Site
from otoscope.stats import spearman
from otoscope.stats.tests import Correlation

#: stack -> windows of positions that are patched together
Windows = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Confirmation:
    """Estimates beside the exact answers for the same patches.

    Attributes:
        patches: what was confirmed, the largest absolute score first, then the sampled ones.
        predicted: attribution score per patch, in metric units.
        exact: ``m_patched - m_base`` per patch, by the exact sweep, in the same units.
        sampled: which patches were drawn at random from the rest instead of ranked high.
        span: ``m_donor - m_base``, the denominator of effects.
        rank: Spearman's rho of ``predicted`` and ``exact``, with its interval over patches. Over the top k alone it is
            a rank correlation within a narrow range; sample some of the rest to judge the estimate as a whole.
        sweep: the exact sweep itself.
    """

    patches: list[Patch]
    predicted: Float[np.ndarray, " patch"]
    exact: Float[np.ndarray, " patch"]
    sampled: Bool[np.ndarray, " patch"]
    span: float
    rank: Correlation
    sweep: SweepResult = field(repr=False)

    @property
    def predicted_effects(self) -> Float[np.ndarray, " patch"]:
        """Scores over the difference of the two runs; NaN where that is noise."""
        return _over(self.predicted, self.span)

    @property
    def exact_effects(self) -> Float[np.ndarray, " patch"]:
        """Exact effects; NaN where the two runs differ by no more than noise."""
        return _over(self.exact, self.span)

    def table(self) -> dict[str, list[Any]]:
        """Columns for a CSV file, one line per patch."""
        described = [p.describe() for p in self.patches]
        return {
            **{key: [d[key] for d in described] for key in ("site", "positions", "heads", "neurons")},
            "sampled": self.sampled.tolist(),
            "predicted": self.predicted.tolist(),
            "exact": self.exact.tolist(),
            "predicted_effect": self.predicted_effects.tolist(),
            "exact_effect": self.exact_effects.tolist(),
        }


@dataclass(frozen=True)
class Attribution:
    """Scores of every cell, in units of the metric (logits or nats); positive moves the base run's metric up.

    Attributes:
        scores: site -> ``[pos]`` for streams and outputs (summed over channels), ``[pos, head]`` for heads (patterns:
            query positions, summed over keys), ``[pos, neuron]`` for ``mlp_post``.
        base, donor: metric of the two plain runs.
    """

    scores: dict[str, Float[np.ndarray, "pos ..."]]
    base: float
    donor: float
    _model: Model = field(repr=False)
    _inputs: tuple[Inputs, Inputs] = field(repr=False)
    _metric: Metric = field(repr=False)

    @property
    def span(self) -> float:
        """``m_donor - m_base``: what every effect is divided by, as in an exact sweep."""
        return self.donor - self.base

    def effects(self, site: str) -> Float[np.ndarray, "pos ..."]:
        """Scores of a site on the scale of normalised effects: 1 makes the base run's metric the donor's.

        Raises:
            SiteError: the site was not attributed.
        """
        return _over(self._of(site), self.span)

    def score(self, patch: Patch) -> float:
        """Estimated ``m_patched - m_base`` of one patch: its cells' scores summed, since the estimate is linear.

        Raises:
            SiteError: its site was not attributed, or it names channels of a stream (which are summed), another donor
                or a value of its own.
        """
        site = Site.parse(patch.site).whole
        scores = self._of(str(site))
        heads, neurons = patch.parts()
        parts = heads if site.point in HEAD_POINTS else neurons
        if patch.donor or patch.value is not None or (parts is not None and scores.ndim == 1) or (heads and neurons):
            raise SiteError(
                f"the patch of '{patch.site}' has no attribution: expected the donor's values, at positions, heads or "
                "mlp_post neurons; ask the exact sweep instead."
            )
        at = slice(None) if patch.positions is None else sorted(set(patch.positions))
        cells = scores[at]
        return float((cells if parts is None else cells[:, sorted(set(parts))]).sum())

    def top(self, k: int, windows: Windows | None = None, *, split: bool = True) -> list[tuple[Patch, float]]:
        """The k patches with the largest absolute scores.

        Args:
            k: how many.
            windows: stack -> windows of positions that are patched together; single positions where it says nothing.
            split: score heads and neurons one by one; otherwise all of a position together.
        """
        cells = self._cells(windows, split)
        scores = np.concatenate([s.ravel() for _, _, s in cells])
        order = np.argsort(-np.abs(scores), kind="stable")[:k]
        return [(_patch(cells, int(i)), float(scores[i])) for i in order]

    def confirm(
        self,
        top_k: int,
        windows: Windows | None = None,
        *,
        split: bool = True,
        sample: int = 0,
        seed: int = 0,
        **options: Any,
    ) -> Confirmation:
        """Run the exact sweep for the k patches that score highest, and for ``sample`` of the others.

        Args:
            top_k: how many of the highest absolute scores.
            windows: as in :meth:`top`.
            split: as in :meth:`top`.
            sample: how many of the remaining patches to draw at random, to see what the estimate misses.
            seed: of that draw.
            options: passed to the sweep (``memory_gb``, ``progress``, ``announce``, ``step``).
        """
        cells = self._cells(windows, split)
        scores = np.concatenate([s.ravel() for _, _, s in cells])
        order = np.argsort(-np.abs(scores), kind="stable")
        rest = order[top_k:]
        drawn = np.random.default_rng(seed).choice(rest, min(sample, len(rest)), replace=False)
        chosen = [*order[:top_k], *drawn]
        patches = [_patch(cells, int(i)) for i in chosen]
        result = self._model.sweep(*self._inputs, patches, self._metric, **options)
        exact = result.values[self._metric.name] - result.base[self._metric.name]
        predicted = scores[chosen]
        sampled = np.arange(len(chosen)) >= len(order[:top_k])
        return Confirmation(patches, predicted, exact, sampled, self.span, spearman(predicted, exact), result)

    def _of(self, site: str) -> Float[np.ndarray, "pos ..."]:
        if site not in self.scores:
            kept = ", ".join(list(self.scores)[:6])
            raise SiteError(f"'{site}' was not attributed: the sites are {kept}; name it when attributing.")
        return self.scores[site]

    def _cells(self, windows: Windows | None, split: bool) -> list[tuple[str, list[tuple[int, ...]], np.ndarray]]:
        """Per site: its windows and their summed scores, ``[window]`` or ``[window, part]``."""
        cells = []
        for site, scores in self.scores.items():
            given = (windows or {}).get(site.split(".")[0])
            at = [(i,) for i in range(len(scores))] if given is None else [tuple(w) for w in given]
            if any(not w or min(w) < 0 or max(w) >= len(scores) for w in at):
                raise SiteError(f"a window of '{site}' is empty or outside its positions, 0 to {len(scores) - 1}.")
            whole = scores if split or scores.ndim == 1 else scores.sum(1)
            cells.append((site, at, np.stack([whole[list(w)].sum(0) for w in at])))
        return cells


def attribute(
    model: Model, base: Inputs, donor: Inputs, sites: str | Site | Iterable[str | Site], metric: Metric
) -> Attribution:
    """Estimate the effect of every patch of the donor's values into the base run.

    Args:
        model: the model.
        base: the run to be patched, one item.
        donor: the run that values come from, one item of the same lengths.
        sites: names and patterns; an index is widened to all heads or neurons of its site.
        metric: one metric with a slope at the base run: a logit difference or a label's log-probability.

    Raises:
        TaskError: the metric has no slope there (KL is at its minimum, a top-1 change is a step), more than one item,
            or unequal lengths.
        SiteError: the model has no such site.
    """
    if isinstance(metric, KL | Top1Change):
        raise TaskError(
            f"'{metric.name}' has no slope at the base run, so no first-order estimate: attribute with LogitDiff or "
            "LabelLogProb, then sweep with it."
        )
    if base.batch != 1 or donor.batch != 1:
        raise TaskError(
            f"attribution compares one base with one donor, not {base.batch} with {donor.batch}: use .item(i)."
        )
    Inputs.stack([base, donor])  # refuses unequal lengths
    wanted = resolve_sites(model.adapter, sites)
    seen: dict[Site, tuple[Tensor, Tensor]] = {}

    def nudge(site: Site) -> Intervention:
        # not every site is a tensor that the model itself computes with (heads are a view, resid_mid a sum), so the
        # slope is taken at a zero that is added there
        def change(value: Tensor, _at: Tensor) -> Tensor:
            seen[site] = value.detach(), torch.zeros_like(value, requires_grad=True)
            return value + seen[site][1]

        return Intervention(site, change, name="slope")

    logits = model.run(base, [nudge(s) for s in wanted], grad=True).logits
    n = logits.shape[1]
    # one item at a time, as the base: other batch shapes round otherwise, and equal runs must differ by exactly 0
    other = model.run(donor, capture_sites=wanted)
    metric_donor = _value(other.logits, metric, n)
    metric_base = _value(logits, metric, n)
    slopes = torch.autograd.grad(metric_base, [seen[s][1] for s in wanted], materialize_grads=True)
    scores = {
        str(site): _cell_scores(site, slope * (other.cache[site] - seen[site][0]))
        for site, slope in zip(wanted, slopes)
    }
    return Attribution(scores, metric_base.item(), metric_donor.item(), model, (base, donor), metric)


def _value(logits: Float[Tensor, "1 pos vocab"], metric: Metric, n_positions: int) -> Float[Tensor, ""]:
    reading = Reading.of(metric, n_positions)
    part = logits[:, list(reading.positions)]
    part = part if reading.vocab is None else part[..., list(reading.vocab)]
    return reading.values(part, part, n_positions)[metric.name][0]


def _cell_scores(site: Site, product: Float[Tensor, "1 ..."]) -> Float[np.ndarray, "pos ..."]:
    """Slope times difference, summed to the cells that a patch can name."""
    cells = product[0].double()
    if site.point in PATTERN_POINTS:
        cells = cells.sum(-1).T
    elif site.point != "mlp_post":
        cells = cells.sum(-1)
    return cells.cpu().numpy()


def _patch(cells: list[tuple[str, list[tuple[int, ...]], np.ndarray]], index: int) -> Patch:
    """The patch behind a place in the concatenated scores."""
    for name, windows, scores in cells:
        if index < scores.size:
            window, *part = np.unravel_index(index, scores.shape)
            site = Site.parse(name)
            one = Site(site.stack, site.layer, site.point, int(part[0])) if part else site
            return Patch(str(one), positions=windows[int(window)])
        index -= scores.size
    raise IndexError(index)


def _over(values: Float[np.ndarray, "..."], span: float) -> Float[np.ndarray, "..."]:
    return values / span if abs(span) > NOISE else np.full_like(values, np.nan)
