"""Run the probing study: load, listen, fit, judge the claims, write the run and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.engine.model import Model, load
from otoscope.errors import TaskError
from otoscope.methods.controls import untrained
from otoscope.methods.frames import MEL
from otoscope.runs import Claim, Run
from otoscope.studies.outcome import claim_line, compute_now, without_run, write_tables
from otoscope.studies.probe import Found, ProbeConfig, claims, describe, metrics, sites_of, study
from otoscope.studies.probe_labels import NOISE, SNR, Labelled, labelled

#: where the project's own recordings lie, seen from a checkout
DATA = Path("../shared/data")


@dataclass(frozen=True)
class Probed:
    """What a probing run gives back: the results object, lines for a person, all that was found, the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def probe(
    model: str | Model = "whisper-tiny.en",
    label: str | Labelled = "sex",
    *,
    data: Path = DATA,
    layers: Sequence[int] | None = None,
    config: ProbeConfig | None = None,
    noise: str = NOISE,
    snr_db: float = SNR,
    against: str | Model | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Probed:
    """Probe the layers of a model for a label.

    Args:
        model: name, path, or a loaded model that listens.
        label: ``sex``, ``speaker``, ``phone``, ``word``, ``noise``, a column of the folder's manifest, or labelled recordings.
        data: folder of the corpora, or of the manifest.
        layers: encoder layers; by default all, and what the first one reads.
        config: what to compute.
        noise: corruption that is added, for ``noise``.
        snr_db: its signal-to-noise ratio.
        against: another model whose layers are compared with this one's (CKA).
        out: directory for the run; a run that was stopped goes on from there.
        progress: called with (done, total).
        notify: told what is being computed.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError, TaskError, AudioError: a model, label or recording that cannot be used; the sentence says why.
    """
    config = config or ProbeConfig()
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    sites = sites_of(loaded, layers)
    if isinstance(label, Labelled):
        rows = label
    else:
        rows = labelled(label, data, config.n, config.seed, noise=noise, snr_db=snr_db, notify=notify)
    for remark in rows.notes:
        notify(f"note: {remark}")
    named = against.name if isinstance(against, Model) else against
    identity = {
        "model": loaded.name, "against": named, "dtype": str(loaded.adapter.dtype), "revision": loading.get("revision"),
        "label": rows.label, "recordings": rows.digest()[:16], "sites": [str(site) for site in sites], **describe(config),
    }  # fmt: skip

    def there() -> Model:
        return against if isinstance(against, Model) else load(str(against), progress=notify, **loading)

    with nullcontext() if out is None else Run(out, "probe", identity, seeds={"seed": config.seed}) as run:
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        found = study(
            loaded, rows, sites, config, run.step if run else compute_now, progress, notify,
            fresh=lambda: untrained(loaded, config.seed), other=None if against is None else there,
        )  # fmt: skip
        numbers, made = metrics(found), claims(found)
        said = lines(found, made)
        if run is None:
            return Probed(without_run("probe", numbers, made), said, found, None)
        write_tables(run, tables(found))
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.probe_report import write_report

        return Probed(results, said, found, write_report(run, found, made, headline(found)))


def layer_numbers(text: str | None) -> list[int] | None:
    """Layers as a person writes them: ``0,2-3``; None for all.

    Raises:
        TaskError: something else is written.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise TaskError(f"'{text}' names no layers: give numbers and ranges, such as 0,2-3.")
        found += range(int(low), int(high or low) + 1)
    return sorted(set(found))


def tables(found: Found) -> dict[str, list[dict[str, Any]]]:
    """Every number as rows, by the name of their file."""
    made: dict[str, list[dict[str, Any]]] = {"layers": [], "untrained": []}
    for site, reading in found.readings.items():
        row: dict[str, Any] = {"site": site}
        for name in ("linear", "mlp", "shuffled", "task", "control"):
            held = getattr(reading, name)
            interval = None if held is None else held.accuracy()
            row |= {
                name: interval and interval.value, f"{name}_low": interval and interval.low,
                f"{name}_high": interval and interval.high,
            }  # fmt: skip
        chosen = reading.selectivity
        row |= {
            "selectivity": chosen and chosen.value, "selectivity_low": chosen and chosen.low,
            "selectivity_high": chosen and chosen.high, "compression": reading.compression, "bits_per_row": reading.bits,
            "validation": reading.linear.validation,
        }  # fmt: skip
        made["layers"].append(row)
    for site, reading in found.untrained.items():
        value = reading.linear.accuracy()
        made["untrained"].append(
            {"site": site, "linear": value.value, "linear_low": value.low, "linear_high": value.high,
             "validation": reading.linear.validation}
        )  # fmt: skip
    made["rows"] = [
        {"label": label, "rows": int((found.rows.labels == label).sum()),
         "right": float(np.nanmean(found.readings[found.best].linear.per_row[found.rows.labels == label]))}
        for label in np.unique(found.rows.labels)
    ]  # fmt: skip
    for name, alike in found.similarity.items():
        made[f"similarity.{name}"] = alike.table()
    return made


def headline(found: Found) -> str:
    """The answer in one sentence."""
    best = found.readings[found.best].linear.accuracy()
    mel = found.readings[MEL].linear.accuracy()
    blank = found.untrained[found.best_untrained].linear.accuracy()
    return (
        f"{found.label.capitalize()} is read from {found.best} with {best.value:.0%} [{best.low:.0%}, {best.high:.0%}] accuracy; "
        f"from the spectrogram with {mel.value:.0%}, from untrained weights with {blank.value:.0%}, and by always saying the most "
        f"frequent label with {found.rows.chance:.0%}."
    )


def lines(found: Found, made: list[Claim]) -> list[str]:
    """What a person reads in the terminal."""
    out = [headline(found), ""]
    for site, reading in found.readings.items():
        value = reading.linear.accuracy()
        line = f"{site}: linear {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
        if reading.mlp is not None:
            line += f", MLP {reading.mlp.accuracy().value:.3f}"
        if reading.control is not None and reading.selectivity is not None:
            line += f", control {reading.control.accuracy().value:.3f}, selectivity {reading.selectivity.value:+.3f}"
        if not np.isnan(reading.compression):
            line += f", compression {reading.compression:.2f}"
        if site in found.untrained:
            line += f", untrained {found.untrained[site].linear.accuracy().value:.3f}"
        out.append(line)
    out.append("")
    return out + [claim_line(claim) for claim in made]
