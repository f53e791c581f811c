"""Make the atlas: load, listen, correlate, judge the claims, write the run and its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.engine.model import Model, load
from otoscope.methods.controls import untrained
from otoscope.methods.units import unit_sites
from otoscope.runs import Claim, Run
from otoscope.studies.atlas import AtlasConfig, Found, claims, describe, metrics, shares, study
from otoscope.studies.atlas_material import pieces
from otoscope.studies.outcome import claim_line, compute_now, without_run, write_tables

#: where the project's own recordings lie, seen from a checkout
DATA = Path("../shared/data")


@dataclass(frozen=True)
class Mapped:
    """What an atlas gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def atlas(
    model: str | Model = "whisper-tiny.en",
    *,
    data: Path = DATA,
    config: AtlasConfig | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Mapped:
    """What every neuron and head of a Whisper responds to, and where every head looks.

    Args:
        model: a Whisper by name or path, or a loaded one.
        data: folder with LibriSpeech and ESC-10.
        config: what to compute.
        out: directory for the run; a run that was stopped goes on from there.
        progress: called with (done, total).
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError, TaskError, AudioError: a model or recording that cannot be used; the sentence says why.
    """
    config = config or AtlasConfig()
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    unit_sites(loaded, "encoder")  # refuses what is no Whisper before anything is aligned
    found = pieces(data, config.n_speech, config.n_noisy, config.n_sounds, config.seed, notify)
    identity = {
        "model": loaded.name, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"),
        "recordings": [piece.clip.digest()[:16] for piece in found], **describe(config),
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "atlas", identity, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        seen = study(
            loaded, found, config, run.step if run else compute_now, progress, notify,
            fresh=lambda seed: untrained(loaded, seed),
        )  # fmt: skip
        numbers, made = metrics(seen), claims(seen)
        said = lines(seen, made)
        if run is None:
            return Mapped(without_run("atlas", numbers, made), said, seen, None)
        write_tables(run, tables(seen))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.atlas_report import write_report

        return Mapped(results, said, seen, write_report(run, seen, made, headline(seen)))


def tables(found: Found) -> dict[str, list[dict[str, Any]]]:
    """``units`` (all that respond), ``labels`` and ``heads`` as rows."""
    return {"units": unit_rows(found), "labels": label_rows(found), "heads": found.looks.table()}


def unit_rows(found: Found) -> list[dict[str, Any]]:
    """One row per unit and label that it responds to, the most selective first."""
    rows = []
    for r in found.responses:
        effect, selectivity, learned = r.effect, r.selectivity, r.learned
        for unit, label in zip(*np.nonzero(r.responds)):
            rows.append(
                {
                    "unit": r.units[unit], "responds to": r.labels[label],
                    "how": "higher" if r.r[unit, label] > 0 else "lower", "AUC": float(r.auc[unit, label]),
                    "r": float(r.r[unit, label]), "effect": float(effect[unit, label]),
                    "selectivity": float(selectivity[unit, label]), "p": float(r.p[unit, label]),
                    "learned": bool(learned[unit, label]),
                }
            )  # fmt: skip
    return sorted(rows, key=lambda row: (not row["learned"], -row["selectivity"]))


def label_rows(found: Found) -> list[dict[str, Any]]:
    """One row per label: how many units respond, how many learned to, the best one, and its effect on other speakers."""
    rows = []
    for r in found.responses:
        for j, label in enumerate(r.labels):
            if np.isnan(r.r[:, j]).all():
                continue
            best = int(np.nanargmax(np.abs(r.r[:, j])))
            chosen, held_out = r.held_out(j)
            rows.append(
                {
                    "stack": r.stack, "label": label, "units": len(r.units), "respond": int(r.responds[:, j].sum()),
                    "learned": int(r.learned[:, j].sum()), "best unit": r.units[best],
                    "effect": float(r.effect[best, j] * np.sign(r.r[best, j])),
                    "selectivity": float(r.selectivity[best, j]), "chosen by half": r.units[chosen] if chosen >= 0 else "none",
                    "effect on the other half": held_out, "fresh weights that pass": float(r.passed[j]),
                }
            )  # fmt: skip
    return rows


def headline(found: Found) -> str:
    """The answer in one sentence."""
    _, encoder, _ = shares(found, "encoder")
    _, decoder, _ = shares(found, "decoder")
    head, value = found.looks.alignment()
    return (
        f"{encoder:.0%} of the encoder's and {decoder:.0%} of the decoder's neurons and heads respond to a label more than any "
        f"unit of fresh weights does; {head} looks at the word being written ({value.value:.0%} of its attention beyond chance)."
    )


def lines(found: Found, made: list[Claim]) -> list[str]:
    """What a person reads in the terminal."""
    out = [headline(found), ""]
    for row in label_rows(found):
        out.append(
            f"{row['stack']}, {row['label']}: {row['learned']} units learned it ({row['respond']} respond); best "
            f"{row['best unit']}, effect {row['effect']:+.2f}; {row['effect on the other half']:+.2f} where it was not chosen"
        )
    out.append("")
    kinds = [found.looks.kind(i)[0] for i in range(len(found.looks.heads))]
    for stack, point in (("encoder", "z"), ("decoder", "z"), ("decoder", "cross_z")):
        mine = [kind for head, kind in zip(found.looks.heads, kinds) if head.startswith(stack) and f".{point}." in head]
        counts = ", ".join(
            f"{mine.count(kind)} {kind}" for kind in dict.fromkeys(sorted(mine, key=lambda k: -mine.count(k)))
        )
        out.append(f"{stack} heads ({point}) look at: {counts}")
    out.append("")
    return out + [claim_line(claim) for claim in made]
