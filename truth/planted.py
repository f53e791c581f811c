"""Planted truth and nulls of the foundation, on real sentences: prints one JSON object.

60 real sentences of which one word is overwritten (20 by noise, 20 by another word, 20 by silence). The largest encoder
effect at the input layer must lie in the overwritten span; on equal sounds and on untrained weights nothing may be
significant beyond chance.

    python truth/planted.py [--data FOLDER] [--pairs 60]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from otoscope.audio.align import align
from otoscope.audio.files import read_manifest
from otoscope.engine.model import Model, load
from otoscope.engine.patch import Patch
from otoscope.engine.sweep import sweep
from otoscope.errors import TaskError
from otoscope.methods.contrast import Contrast, contrast
from otoscope.methods.controls import untrained
from otoscope.models.wer import normaliser
from otoscope.stats import clopper_pearson, sign_flip_map
from otoscope.studies.patch import ALPHA, TOLERANCE
from otoscope.tasks.pair import Pair
from otoscope.tasks.planted import Kind, overwrite_pairs

KINDS: tuple[Kind, ...] = ("noise", "word", "silence")
WIDTH = 0.1
#: starts of the windows of 0.2 s around the onset of the change for the significance tests, seconds
AROUND = np.arange(-0.4, 0.6, 0.2)
UNTRAINED_SEEDS = (0, 1)
#: pairs of the significance tests and of the map at the last layer, a third of each kind
FEW = 20


def one_change(clean: str, corrupt: str) -> bool:
    """Whether two transcripts differ in one stretch of at most three words, and agree before and after it."""
    a, b = (normaliser()(text).split() for text in (clean, corrupt))
    head = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    tail = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1])) if x != y), min(len(a), len(b)))
    middle = max(len(a), len(b)) - head - tail
    return a != b and head > 0 and tail > 0 and 0 < middle <= 3


def usable(model: Model, pairs: list[Pair], n: int) -> list[tuple[Pair, Contrast]]:
    """The first ``n`` pairs whose transcripts differ at one place only."""
    found = []
    for pair in pairs:
        if len(found) == n:
            break
        try:
            c = contrast(model, pair.clean, pair.corrupt)
        except TaskError:
            continue
        if one_change(c.clean_text, c.corrupt_text):
            found.append((pair, c))
    return found


def peak_in_span(model: Model, pair: Pair, c: Contrast, site: str) -> bool:
    """Whether the middle of the strongest window at ``site`` lies in the span, give or take the tolerance."""
    clean, corrupt = c.inputs(model, pair.clean), c.inputs(model, pair.corrupt)
    clock = model.clock("encoder", clean.n_samples[0])
    windows = clock.windows(WIDTH)
    patches = [Patch(site, positions=tuple(w)) for w in windows]
    effects = sweep(model, corrupt, clean, patches, c.metric).effects()
    best = windows[int(np.nanargmax(effects))]
    middle = (clock.time(best[0]) + clock.time(best[-1])) / 2
    return bool(pair.span[0] - TOLERANCE <= middle <= pair.span[1] + TOLERANCE)


def around_change(model: Model, pair: Pair, c: Contrast, donor_is_clean: bool) -> np.ndarray:
    """Change of the logit difference per layer and window around the onset of the planted change."""
    clean, corrupt = c.inputs(model, pair.clean), c.inputs(model, pair.corrupt)
    clock = model.clock("encoder", clean.n_samples[0])
    rows = ["encoder.0.resid_pre"] + [f"encoder.{i}.resid_post" for i in range(model.stacks["encoder"].n_layers)]
    windows = [clock.frames(pair.span[0] + a, pair.span[0] + a + 0.2) for a in AROUND]
    patches = [Patch(site, positions=tuple(w)) for site in rows for w in windows]
    result = sweep(model, corrupt, clean if donor_is_clean else corrupt, patches, c.metric)
    change = result.values["logit_diff"] - result.base["logit_diff"]
    return change.reshape(len(rows), len(windows))


def share(maps: list[np.ndarray]) -> tuple[float, float]:
    """Share of cells significant family-wise, and share of cells with an uncorrected p below the level."""
    stack = np.stack(maps)
    wise = sign_flip_map(stack, floor=1e-3)
    single = np.array([[sign_flip_map(stack[:, i : i + 1, j : j + 1], floor=1e-3)[0, 0] for j in range(stack.shape[2])]
                       for i in range(stack.shape[1])])  # fmt: skip
    return float(np.mean(wise < ALPHA)), float(np.mean(single < ALPHA))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/librispeech"))
    parser.add_argument("--pairs", type=int, default=60)
    options = parser.parse_args()
    model = load("whisper-tiny.en")
    clips = [align(clip) for clip in read_manifest(options.data) if clip.duration <= 8.0]
    per_kind = options.pairs // len(KINDS)
    chosen: list[tuple[Pair, Contrast, str]] = []
    for seed, kind in enumerate(KINDS):
        candidates = overwrite_pairs(clips, kind, n=4 * per_kind, per_clip=1, seed=seed)
        chosen += [(pair, c, kind) for pair, c in usable(model, candidates, per_kind)]
        print(f"{kind}: {sum(k == kind for *_, k in chosen)} pairs", file=sys.stderr)
    last = f"encoder.{model.stacks['encoder'].n_layers - 1}.resid_post"
    hits = {
        kind: [peak_in_span(model, p, c, "encoder.0.resid_pre") for p, c, k in chosen if k == kind] for kind in KINDS
    }
    few = chosen[:: max(1, len(chosen) // FEW)][:FEW]
    deep = [peak_in_span(model, p, c, last) for p, c, _ in few]
    print("places done", file=sys.stderr)
    trained = share([around_change(model, p, c, True) for p, c, _ in few])
    equal = share([around_change(model, p, c, False) for p, c, _ in few])
    print("trained and equal done", file=sys.stderr)
    nulls = []
    for seed in UNTRAINED_SEEDS:
        null = untrained(model, seed)
        nulls.append(share([around_change(null, p, c, True) for p, c, _ in few]))
    every = [h for group in hits.values() for h in group]
    interval, deep_interval = clopper_pearson(sum(every), len(every)), clopper_pearson(sum(deep), len(deep))
    metrics = {
        "pairs": len(chosen),
        "peak_in_span": interval.value,
        **{f"peak_in_span.{kind}": float(np.mean(group)) for kind, group in hits.items() if group},
        "peak_in_span.last_layer": deep_interval.value,
        "significant.trained": trained[0],
        "significant.equal": equal[0],
        "significant.untrained": float(np.mean([n[0] for n in nulls])),
        "p_below_level.untrained": float(np.mean([n[1] for n in nulls])),
    }
    intervals = {
        "peak_in_span": [interval.low, interval.high],
        "peak_in_span.last_layer": [deep_interval.low, deep_interval.high],
    }
    json.dump({"command": "planted", "metrics": metrics, "intervals": intervals}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
