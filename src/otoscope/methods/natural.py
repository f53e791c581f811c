"""The natural states of a model: what clean runs put at its sites, and how far other states are from that.

Natural states are collected on clean runs. For a state ``x`` at a site, with ``mu`` and the ``k`` leading principal axes
``u_i`` of the natural states and their standard deviations ``s_i``:

    norm ratio   |x| / median natural |x|
    Mahalanobis  sqrt( sum_i ((x - mu) . u_i)^2 / s_i^2 )
    nearest      min over natural states of |x - x_j|

Thresholds come from natural states that did not take part: each utterance is measured against a space fitted on the
others, since the frames of one utterance resemble each other. Sources: Mahalanobis distance in a network's states, Lee
et al. 2018 (arXiv 1807.03888); nearest natural state, Sun et al. 2022 (arXiv 2204.06507).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from otoscope.engine.capture import Cache, capture_until
from otoscope.engine.model import Model
from otoscope.errors import SiteError, TaskError
from otoscope.models.inputs import Inputs
from otoscope.models.site import PATTERN_POINTS, Site, expand

Measure = Literal["mahalanobis", "nearest", "norm_ratio", "any"]
#: measures with a value of their own; ``any`` is made of their ranks
SINGLE: tuple[Measure, ...] = ("mahalanobis", "nearest", "norm_ratio")
#: rows of states whose distances to all natural states are held at once
_ROWS = 1024


@dataclass(frozen=True)
class Departure:
    """How far states are from the natural ones; every array has the shape of the states without their last axis.

    Attributes:
        norm_ratio: length over the median natural length; 1 is natural.
        mahalanobis: distance from the natural mean in standard deviations along the principal axes.
        nearest: Euclidean distance to the nearest natural state, in the units of the states.
    """

    norm_ratio: Float[np.ndarray, "..."]
    mahalanobis: Float[np.ndarray, "..."]
    nearest: Float[np.ndarray, "..."]

    def summary(self) -> dict[str, float]:
        """Median and maximum of each measure over all states."""
        summaries = (("median", np.median), ("max", np.max))
        return {f"{m}.{name}": float(f(getattr(self, m))) for m in SINGLE for name, f in summaries}

    def at(self, index: Any) -> Departure:
        """The same for some of the states."""
        return Departure(self.norm_ratio[index], self.mahalanobis[index], self.nearest[index])


@dataclass(frozen=True)
class Space:
    """The natural states of one site.

    Attributes:
        mean: ``[d]``.
        axes: leading principal axes ``[k, d]``, orthonormal.
        spread: standard deviation along each, ``[k]``.
        norm: median length of a natural state.
        states: the natural states themselves, ``[n, d]``, float64.
        held_out: per utterance, its states measured against a space of all other utterances, in the order of time.
    """

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "k d"]
    spread: Float[np.ndarray, " k"]
    norm: float
    states: Float[np.ndarray, "n d"] = field(repr=False)
    held_out: tuple[Departure, ...] = field(default=(), repr=False)

    def depart(self, x: Float[np.ndarray, "state d"]) -> Departure:
        """Measure states."""
        steps = (x - self.mean) @ self.axes.T / self.spread
        return Departure(
            np.linalg.norm(x, axis=1) / self.norm, np.linalg.norm(steps, axis=1), _nearest(x, self.states, self.mean)
        )


@dataclass(frozen=True)
class Natural:
    """Natural states at several sites, with thresholds from held-out utterances.

    Attributes:
        spaces: site -> its space.
        skip: leading decoder positions that were left out.
    """

    spaces: dict[str, Space]
    skip: int
    _sorted: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)
    _limits: dict[tuple[str, Measure, int, float], float] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        states: Mapping[str, Sequence[Float[np.ndarray, "pos d"]]],
        components: float | int = 0.95,
        skip: int = 1,
        max_states: int = 10_000,
        seed: int = 0,
    ) -> Natural:
        """Fit states that are already at hand: site -> one array ``[pos, d]`` per utterance. Arguments as in :func:`fit`.

        Raises:
            TaskError: fewer than two utterances with states, or states that do not vary or are not finite.
        """
        if not components > 0:
            raise TaskError(f"{components} components make no space: expected a number of axes, or a share up to 1.0.")
        spaces = {}
        for site, utterances in states.items():
            full = [np.asarray(u, float) for u in utterances if len(u)]
            if len(full) < 2:
                raise TaskError(
                    f"natural states at '{site}' need at least two utterances, so that one can be held out, not {len(full)}."
                )
            rng = np.random.default_rng(seed)
            most = max(1, max_states // len(full))
            spaces[site] = _fit_space([_stretch(u, most, rng) for u in full], components, site)
        return cls(spaces, skip)

    def score(self, site: str | Site, states: Tensor | Float[np.ndarray, "... d"]) -> Departure:
        """Measure states ``[..., d]`` of a site; heads ``[..., head, d_head]`` count as one vector.

        Padding and skipped positions are the caller's to leave out; :func:`departures` does.

        Raises:
            SiteError: the site was not fitted, or the states have another width.
        """
        space = self.space(site)
        x = states.detach().cpu().double().numpy() if isinstance(states, Tensor) else np.asarray(states, float)
        width = space.mean.size
        if x.shape[-1] != width and x.ndim > 1 and x.shape[-1] * x.shape[-2] == width:
            x = x.reshape(*x.shape[:-2], width)
        if width == 1 and x.shape[-1] != 1:
            x = x[..., None]
        if x.shape[-1] != width:
            raise SiteError(f"the states for '{site}' have width {x.shape[-1]}, but it was fitted on width {width}.")
        flat = space.depart(x.reshape(-1, width))
        shape = x.shape[:-1]
        return Departure(flat.norm_ratio.reshape(shape), flat.mahalanobis.reshape(shape), flat.nearest.reshape(shape))

    def threshold(self, site: str | Site, measure: Measure = "any", width: int = 1, level: float = 0.99) -> float:
        """What ``level`` of the natural held-out windows of ``width`` consecutive positions stay below, on average over
        the window. Windows of utterances shorter than that are the whole utterance."""
        key = (str(site), measure, width, level)
        if key not in self._limits:
            held = [self.strangeness(site, d, measure) for d in self.space(site).held_out]
            windows = [_running_mean(s, min(width, len(s))) for s in held]
            self._limits[key] = float(np.quantile(np.concatenate(windows), level, method="higher"))
        return self._limits[key]

    def strangeness(self, site: str | Site, departure: Departure, measure: Measure = "any") -> Float[np.ndarray, "..."]:
        """One number per state, larger where it is less natural: the measure itself; the absolute logarithm of a norm
        ratio; or, for ``any``, the highest rank (0 to 1) of the three among the held-out natural states.

        Raises:
            SiteError: there is no such measure.
        """
        if measure not in get_args(Measure):
            raise SiteError(f"'{measure}' is not a measure: expected one of {', '.join(get_args(Measure))}.")
        if measure == "any":
            ranks = [self._rank(site, self.strangeness(site, departure, m), m) for m in SINGLE]
            return np.max(ranks, axis=0)
        values = getattr(departure, measure)
        if measure == "norm_ratio":
            return np.abs(np.log(np.maximum(values, 1e-12)))
        return values

    def flag(
        self, site: str | Site, departure: Departure, measure: Measure = "any", level: float = 0.99
    ) -> Bool[np.ndarray, "..."]:
        """Which single states lie beyond ``level`` of the natural held-out ones; about ``1 - level`` of natural states."""
        return np.asarray(self.strangeness(site, departure, measure) > self.threshold(site, measure, 1, level))

    def _rank(self, site: str | Site, values: np.ndarray, measure: Measure) -> np.ndarray:
        key = (str(site), measure)
        if key not in self._sorted:
            held = [self.strangeness(site, d, measure) for d in self.space(site).held_out]
            self._sorted[key] = np.sort(np.concatenate(held))
        return np.searchsorted(self._sorted[key], values) / len(self._sorted[key])

    def space(self, site: str | Site) -> Space:
        """The space of a site.

        Raises:
            SiteError: it was not fitted.
        """
        if str(site) not in self.spaces:
            raise SiteError(f"'{site}' was not fitted: the sites are {', '.join(list(self.spaces)[:6])}.")
        return self.spaces[str(site)]


def fit(
    model: Model,
    inputs: Sequence[Inputs],
    sites: str | Site | Iterable[str | Site],
    *,
    components: float | int = 0.95,
    skip: int = 1,
    max_states: int = 10_000,
    seed: int = 0,
) -> Natural:
    """Collect the natural states of clean runs.

    Only frames inside the recordings count. Leave the pair to be patched out of ``inputs``: a state that is itself among
    the natural ones has a nearest neighbour at distance 0.

    Args:
        model: the model.
        inputs: clean runs; every item of every batch is one utterance.
        sites: names and patterns, without attention patterns.
        components: principal axes kept: their number, or the share of variance they must explain; at most a tenth of
            the number of states, so that their spreads are known.
        skip: leading decoder positions left out; the first token's states are unlike all others.
        max_states: states kept per site, as one random stretch of every utterance.
        seed: of these stretches.

    Raises:
        TaskError: fewer than two utterances with states, or states that do not vary.
        SiteError: the model has no such site, or it is an attention pattern.
    """
    wanted = vector_sites(model, sites)
    collected: dict[Site, list[np.ndarray]] = {site: [] for site in wanted}
    whole = list(dict.fromkeys(s.whole for s in wanted))
    for batch in inputs:
        cache = capture_until(model.adapter, batch, whole)
        for i in range(batch.batch):
            for site in wanted:
                collected[site].append(states_of(cache, site, i)[positions(model, site, batch, i, skip)])
    return Natural.of({str(s): u for s, u in collected.items()}, components, skip, max_states, seed)


def _fit_space(utterances: list[np.ndarray], components: float | int, site: str) -> Space:
    """Fit one site, and measure each utterance against the others.

    Means and covariances without an utterance are the whole sums less its own, so that its states are never used.
    """
    states = np.concatenate(utterances)
    centre = states.mean(0)
    moved = [u - centre for u in utterances]
    sums, squares = [m.sum(0) for m in moved], [m.T @ m for m in moved]
    total, square, n = np.sum(sums, axis=0), np.sum(squares, axis=0), len(states)
    if not np.isfinite(square).all():
        raise TaskError(f"the states at '{site}' hold values that are not finite: run the model in float32.")

    def axes(
        total: np.ndarray, square: np.ndarray, n: int, keep: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean = total / n
        variance, vectors = np.linalg.eigh(square / n - np.outer(mean, mean))
        variance, vectors = variance[::-1], vectors[:, ::-1]
        useful = int((variance > 1e-10 * max(variance[0], 1e-30)).sum()) if variance[0] > 0 else 0
        if useful == 0:
            raise TaskError(f"the states at '{site}' do not vary between clean runs: give different recordings.")
        if keep is None:
            explained = np.cumsum(variance[:useful]) / variance[:useful].sum()
            share = isinstance(components, float) and components <= 1
            keep = int((explained < components - 1e-12).sum()) + 1 if share else int(components)
            keep = min(keep, max(1, n // 10))
        keep = min(keep, useful)
        spread = np.sqrt(variance[:keep] * n / max(n - 1, 1))
        return centre + mean, vectors[:, :keep].T, spread

    mean, kept, spread = axes(total, square, n, None)
    held_out = []
    for i, own in enumerate(utterances):
        others = np.concatenate(utterances[:i] + utterances[i + 1 :])
        parts = axes(total - sums[i], square - squares[i], len(others), len(kept))
        held_out.append(Space(*parts, _median_norm(others), others).depart(own))
    return Space(mean, kept, spread, _median_norm(states), states, tuple(held_out))


# -- states and their positions --------------------------------------------------------------------------------------


def vector_sites(model: Model, sites: str | Site | Iterable[str | Site]) -> list[Site]:
    """Sites that names and patterns give, if a state there is a vector on the stack's own clock.

    Raises:
        SiteError: an unknown site, an attention pattern or a layer of a frontend.
    """
    wanted = [sites] if isinstance(sites, str | Site) else sites
    found = list(dict.fromkeys(s for one in wanted for s in expand(one, model.stacks, model.name)))
    for site in found:
        if site.stack == "frontend":
            raise SiteError(
                f"'{site}' has frames of its own rate: name 'encoder.0.resid_pre', what the frontend gives, instead."
            )
        if site.point in PATTERN_POINTS:
            raise SiteError(
                f"'{site}' is an attention pattern, whose rows have no fixed width: name z or a stream instead."
            )
    return found


def states_of(cache: Cache, site: Site, item: int) -> Float[np.ndarray, "pos d"]:
    """States of one item, heads side by side."""
    value = cache[site][item].double().cpu().numpy()
    return value.reshape(len(value), -1)


def positions(model: Model, site: Site, inputs: Inputs, item: int, skip: int) -> np.ndarray:
    """Positions that count: frames inside the recording, tokens after the skipped ones."""
    if model.stacks[site.stack].frame_rate:
        return np.arange(model.clock(site.stack, inputs.n_samples[item], site.layer).n_valid)
    return np.arange(skip, 1 if inputs.tokens is None else inputs.tokens.shape[1])


def _stretch(states: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(max(1, len(states) - most + 1)))
    return states[start : start + most]


def _nearest(x: np.ndarray, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Distance to the nearest natural state: found by products, then computed exactly for the one that was found."""
    moved = natural - centre
    squares = (moved**2).sum(1)
    found = np.empty(len(x), int)
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS] - centre
        found[start : start + _ROWS] = (squares - 2 * rows @ moved.T).argmin(1)
    return np.linalg.norm(x - natural[found], axis=1)


def _median_norm(states: np.ndarray) -> float:
    return float(max(np.median(np.linalg.norm(states, axis=1)), 1e-30))


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    sums = np.cumsum(np.concatenate(([0.0], values)))
    return (sums[width:] - sums[:-width]) / width
