"""Cause and isolate on phonological minimal pairs: do some features carry one distinction, and no other?

After RAVEL (Huang et al. 2024, as in SAEBench 0.6.0), with a phonological feature (voicing, place, manner, vowel height) in
place of an attribute of an entity. Two sounds say words that differ in one of them. In the frames of the span where they
differ, some features' codes of one sound are put into the other, the dictionary's error kept:
``x + sum_j (f_j(donor) - f_j(x)) d_j``. The effect is ``(m(edited) - m(x)) / (m(donor) - m(x))``, where ``m`` is the logit of
one word minus that of the other.

The features of a factor are chosen on a search half of the pairs: those whose codes differ more between the sounds of its
pairs than between those of all others. On the other half

    ``cause = mean effect on pairs of the factor``,
    ``isolate = 1 - mean |effect| on pairs of the other factors``, both cut to 0 ... 1,
    ``disentangle = (cause + isolate) / 2``, mean over factors.

Doing nothing scores 0.5, and so does putting everything in: only what tells factors apart scores more. Rivals: all channels,
as many principal components of the search half's differences of the factor, as many features drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from otoscope.sae.edits import written
from otoscope.sae.measures.frames import Reading, csr
from otoscope.stats import Interval, bootstrap_sums

#: features that are exchanged
K = 32
ARMS = ("own", "random features", "pca", "all channels")
#: an effect beyond these is cut: one pair whose two answers nearly agree must not decide
_CUT = (-1.0, 2.0)


class Contrasted(Protocol):
    """Two sounds that differ in one thing, as a model hears them."""

    @property
    def factor(self) -> str:
        """What they differ in."""
        ...

    @property
    def unit(self) -> str:
        """What intervals resample: pairs of one unit are drawn together."""
        ...

    @property
    def x(self) -> Float[np.ndarray, "frame d"]:
        """Frames of the span in the sound that is edited."""
        ...

    @property
    def donor(self) -> Float[np.ndarray, "frame d"]:
        """The same frames of the other sound."""
        ...

    def effects(self, edited: Sequence[Float[np.ndarray, "frame d"]]) -> Float[np.ndarray, " edit"]:
        """Effect of each edit of the span's frames; 0 for the frames themselves."""
        ...


class Scores(NamedTuple):
    """Of one arm, intervals over units."""

    cause: Interval
    isolate: Interval
    disentangle: Interval


@dataclass(frozen=True, eq=False)
class Disentangled:
    """``arms``: arm -> scores; ``rows``: factor and arm -> effects, plain data; ``features``: factor -> those exchanged."""

    arms: Mapping[str, Scores]
    rows: list[dict[str, Any]]
    features: Mapping[str, list[int]]


def disentangle(
    pairs: Sequence[Contrasted],
    read: Callable[[Float[np.ndarray, "frame d"]], Reading],
    *,
    k: int = K,
    arms: Sequence[str] = ARMS,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Disentangled:
    """Scores of the features of each factor.

    Args:
        pairs: of two factors or more; every second one of each factor is searched, the others are asked.
        read: the dictionary, from frames to what it makes of them.
        k: features (or components) that are exchanged.
        arms: of ``ARMS``; ``all channels`` asks nothing of the dictionary.
        progress: called with pairs done and their number.
        n_resamples, seed: of the intervals and draws.

    Returns:
        NaN where a factor has no pair to search or to ask, or there is one factor only.
    """
    search, ask = _split(pairs)
    factors = sorted({p.factor for p in search} & {p.factor for p in ask})
    moved = [_moved(p, read) for p in search]
    chosen = {f: _specific(moved, search, f, k) for f in factors}
    components = {f: _components([p for p in search if p.factor == f], k) for f in factors}
    rng = np.random.default_rng(seed)
    effects = np.full((len(ask), len(factors), len(arms)), np.nan)
    for i, pair in enumerate(ask):
        both = read(np.concatenate([pair.x, pair.donor]))
        assert both.decoder is not None
        alive = np.flatnonzero(np.asarray(abs(both.codes).sum(axis=0)).ravel() > 0)
        edits = []
        for factor in factors:
            for arm in arms:
                if arm == "pca":
                    basis = components[factor]
                    change = (pair.donor - pair.x) @ basis.T @ basis
                elif arm == "all channels":
                    change = pair.donor - pair.x
                else:
                    drawn = rng.permutation(alive)[: len(chosen[factor])]
                    change = _exchange(both, len(pair.x), chosen[factor] if arm == "own" else drawn)
                edits.append(pair.x + change)
        effects[i] = np.clip(pair.effects(edits), *_CUT).reshape(len(factors), len(arms))
        if progress:
            progress(i + 1, len(ask))
    return _scored(ask, factors, arms, effects, chosen, n_resamples, seed)


def _split(pairs: Sequence[Contrasted]) -> tuple[list[Contrasted], list[Contrasted]]:
    seen: dict[str, int] = {}
    halves: tuple[list[Contrasted], list[Contrasted]] = ([], [])
    for pair in pairs:
        n = seen.get(pair.factor, 0)
        halves[n % 2].append(pair)
        seen[pair.factor] = n + 1
    return halves


def _moved(pair: Contrasted, read: Callable[..., Reading]) -> Float[np.ndarray, " feature"]:
    """How much each feature's code differs between the two sounds, mean over the span, in the units of what it writes."""
    both = read(np.concatenate([pair.x, pair.donor]))
    n = len(pair.x)
    gap = np.asarray(abs(csr(both.codes[:n]) - csr(both.codes[n:])).sum(axis=0)).ravel() / n
    return gap * np.linalg.norm(both.decoder, axis=1)  # type: ignore[arg-type]


def _specific(
    moved: Sequence[Float[np.ndarray, " feature"]], search: Sequence[Contrasted], factor: str, k: int
) -> Int[np.ndarray, " k"]:
    """The features that differ more in pairs of a factor than in all other pairs."""
    own = np.mean([m for m, p in zip(moved, search) if p.factor == factor], axis=0)
    rest = [m for m, p in zip(moved, search) if p.factor != factor]
    score = own - (np.mean(rest, axis=0) if rest else 0)
    best = np.argsort(-score, kind="stable")[:k]
    return best[score[best] > 0]


def _components(pairs: Sequence[Contrasted], k: int) -> Float[np.ndarray, "k d"]:
    """Directions in which the two sounds of a factor's pairs differ most."""
    gaps = np.concatenate([p.donor - p.x for p in pairs]).astype(np.float64)
    return np.linalg.svd(gaps, full_matrices=False)[2][:k]


def _exchange(both: Reading, n: int, features: Int[np.ndarray, " k"]) -> Float[np.ndarray, "frame d"]:
    all_written = written(both.codes, both.decoder, features)  # type: ignore[arg-type]
    return all_written[n:] - all_written[:n]


def _scored(
    ask: Sequence[Contrasted],
    factors: Sequence[str],
    arms: Sequence[str],
    effects: Float[np.ndarray, "pair factor arm"],
    chosen: Mapping[str, np.ndarray],
    n_resamples: int,
    seed: int,
) -> Disentangled:
    units = sorted({p.unit for p in ask})
    same = np.array([[p.factor == f for f in factors] for p in ask]).reshape(len(ask), len(factors))
    found: dict[str, Scores] = {}
    rows = []
    for a, arm in enumerate(arms):
        # per unit and factor: effect and number of own pairs, |effect| and number of others
        sums = np.zeros((len(units), len(factors), 4))
        for i, pair in enumerate(ask):
            e, u = effects[i, :, a], units.index(pair.unit)
            there = np.isfinite(e)
            sums[u, :, 0] += np.where(same[i] & there, e, 0)
            sums[u, :, 1] += same[i] & there
            sums[u, :, 2] += np.where(~same[i] & there, np.minimum(np.abs(e), 1), 0)
            sums[u, :, 3] += ~same[i] & there
        found[arm] = Scores(
            *(bootstrap_sums(sums, lambda t, w=w: _score(t)[w], n_resamples, seed=seed) for w in range(3))
        )
        for f, factor in enumerate(factors):
            one = sums[:, f : f + 1]
            parts = [bootstrap_sums(one, lambda t, w=w: _score(t)[w], n_resamples, seed=seed) for w in range(2)]
            rows.append({
                "factor": factor, "arm": arm, "cause": parts[0].value, "cause_low": parts[0].low,
                "cause_high": parts[0].high, "isolate": parts[1].value, "isolate_low": parts[1].low,
                "isolate_high": parts[1].high, "features": len(chosen[factor]), "pairs": int(one[:, 0, 1].sum()),
            })  # fmt: skip
    return Disentangled(found, rows, {f: [int(i) for i in chosen[f]] for f in factors})


def _score(total: Float[np.ndarray, "factor 4"]) -> tuple[float, float, float]:
    """Cause, isolate and their mean, over the factors that have pairs of both kinds."""
    there = (total[:, 1] > 0) & (total[:, 3] > 0)
    if not there.any():
        nan = float("nan")
        return nan, nan, nan
    part = total[there]
    cause = float(np.clip(part[:, 0] / part[:, 1], 0, 1).mean())
    isolate = float(np.clip(1 - part[:, 2] / part[:, 3], 0, 1).mean())
    return cause, isolate, (cause + isolate) / 2
