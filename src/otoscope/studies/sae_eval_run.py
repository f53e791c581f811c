"""AudioSAEBench as a command runs it: read dictionary and store, load the model, measure, write the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.engine.model import load as load_model
from otoscope.errors import ModelError, OtoscopeError, RunError
from otoscope.runs import Run
from otoscope.runs.files import plain
from otoscope.runs.run import config_hash
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import load
from otoscope.sae.measures.from_store import frames_of
from otoscope.sae.measures.rivals import read_with
from otoscope.sae.recordings import find
from otoscope.sae.store import Store, Utterance
from otoscope.stats import Interval
from otoscope.studies.outcome import Rows, compute_now, without_run, write_tables
from otoscope.studies.sae_eval import RIVALS, Across, Behaving, EvalConfig, Found, bench, direction, metrics, study
from otoscope.studies.sae_eval_claims import claims

#: sounds in which nobody speaks, half of them for choosing features
_MOST_SOUNDS = 32


@dataclass(frozen=True)
class Evaluated:
    """What the bench gives: the results object, lines for a person, all that was found, and the report's path."""

    results: dict[str, Any]
    lines: list[str]
    found: Found
    report: Path | None


def evaluate(
    dictionary: str | Path | Dictionary,
    store: str | Path | Store,
    *,
    site: str | None = None,
    also: Sequence[str | Path | Dictionary] = (),
    learned_from: str | Path | Store | None = None,
    config: EvalConfig | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda line: None,
    across: tuple[str | Path | Dictionary, str | Path | Store] | None = None,
    sounds: Sequence[Path] = (),
    data: Path | None = None,
    **loading: Any,
) -> Evaluated:
    """Measure a dictionary on a store of activations; with ``out``, as a run that goes on where it was stopped.

    Args:
        dictionary: its folder, in any known format, or the dictionary.
        store: activations, best with phones and words.
        site: of the store, where it holds several.
        also: the same training with other seeds, for the stability of features.
        learned_from: store that the rivals learn from (that of the training, where ``store`` is held out from it).
        config: what is computed.
        out: directory of the run.
        progress, notify: told what happens.
        across: dictionary and store of another model or layer, of the same recordings at the same frame rate, to match
            features with.
        sounds: files and folders in which nobody speaks, for the measure ``steering``.
        data: folder of recordings of spoken digits, for ``answers``; synthetic ones by default.
        loading: device, dtype and the like of the model, for behaviour.

    Raises:
        ModelError: a dictionary cannot be read, or does not fit the activations.
        RunError, SiteError: the store or the run cannot be used.
    """
    config = config or EvalConfig()
    source = store if isinstance(store, Store) else Store(store, site)
    found = [d if isinstance(d, Dictionary) else load(d) for d in (dictionary, *also)]
    for one in found:
        if one.config.d != source.d:
            raise ModelError(
                f"the dictionary reads activations of width {one.config.d}, and {source.site} in {source.path} has "
                f"{source.d}: give the store of its own site."
            )
    notify(f"reading {source.path}")
    frames, utterances = frames_of(source, config.frames)
    learn = None if learned_from is None else _frames(learned_from, source.site, config.frames)
    other = None if across is None else _across(across, source, frames.utterance, utterances)
    about = _about(found[0], source, utterances, len(frames.x), len(found))
    identity = {
        **asdict(config), "store": config_hash(source.index), "site": source.site,
        "dictionaries": [_digest(d) for d in found], "learned_from": None if learn is None else str(learned_from),
        "across": None if other is None else other.name, "sounds": [str(s) for s in sounds],
        "data": None if data is None else str(data),
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "sae eval", identity, seeds={"seed": config.seed}) as run:
        behaving = _behaving(source, utterances, config, notify, loading)
        if behaving is not None:
            heard = _sounds(sounds, behaving.model.adapter.rate) if "steering" in config.measures else ()
            behaving = replace(behaving, sounds=heard, data=data)
        if run:
            run.record_weights(source.model, source.weights)
        step = run.step if run else compute_now
        done = study(found, frames, about, config, behaving, learn, step, progress, notify, other)
        numbers, made = metrics(done), claims(done)
        said = [*lines(done), "", *(f"{c.verdict:13} {c.statement} {c.reason}" for c in made)]
        if run is None:
            return Evaluated(without_run("sae eval", numbers, made), said, done, None)
        write_tables(run, tables(done))
        run.write("saebench.json", json.dumps(plain(bench(done, made)), indent=2, ensure_ascii=False) + "\n")
        results = run.finish(numbers, claims=made)
        notify("writing the report")
        from otoscope.studies.sae_eval_report import write_report

        return Evaluated(results, said, done, write_report(run, done, made))


def tables(found: Found) -> dict[str, Rows]:
    """``measures``: every number beside its rivals; ``planted``: what each gave on planted truth."""
    rows = []
    for name, value in found.numbers.items():
        row: dict[str, Any] = {"measure": name, "better": direction(name), "verdict": found.verdict(name)}
        for subject, numbers in (("dictionary", found.numbers), *found.rivals.items()):
            there = numbers.get(name)
            inside = there if isinstance(there, Interval) else None
            row |= {
                subject: None if there is None else inside.value if inside else there,
                f"{subject}_low": inside.low if inside else None, f"{subject}_high": inside.high if inside else None,
            }  # fmt: skip
        row["n"] = value.n if isinstance(value, Interval) else None
        rows.append(row)
    planted = [
        {"measure": name, "verdict": t.verdict, "quality": quality, "world": i, "value": v}
        for name, t in found.trust.items()
        for quality, values in t.values.items()
        for i, v in enumerate(values)
    ]
    return {"measures": rows, "planted": planted, **found.tables}


def lines(found: Found) -> list[str]:
    """The bench for a person."""
    about = found.about
    said = [
        f"{about['architecture']} with {about['features']} features, {about['site']} of {about['model']}, on "
        f"{about['frames']} frames of {about['utterances']} recordings",
        "",
        f"{'':24}{'dictionary':>12}{''.join(f'{name:>10}' for name in RIVALS)}   planted truth",
    ]
    for name in found.numbers:
        cells = [_cell(found.numbers[name]), *(_cell(found.rivals[r].get(name)) for r in RIVALS)]
        said.append(f"{name:24}{cells[0]:>12}{''.join(f'{c:>10}' for c in cells[1:])}   {found.verdict(name)}")
    return said


def _cell(value: Interval | float | None) -> str:
    number = value.value if isinstance(value, Interval) else value
    return "" if number is None or number != number else f"{number:.3f}"


def _frames(store: str | Path | Store, site: str, most: int) -> Any:
    source = store if isinstance(store, Store) else Store(store, site)
    return frames_of(source, most)[0]


def _about(
    dictionary: Dictionary, store: Store, utterances: Sequence[Utterance], n_frames: int, n_seeds: int
) -> dict[str, Any]:
    return {
        "architecture": dictionary.architecture, "features": dictionary.config.n_features, "d": dictionary.config.d,
        "model": store.model, "weights": store.weights, "site": store.site, "frame_rate": store.frame_rate,
        "frames": n_frames, "utterances": len(utterances), "speakers": len({u.speaker for u in utterances if u.speaker}),
        "corpora": sorted({u.corpus for u in utterances}), "trainings": n_seeds,
        "trained_for": dictionary.metadata.get("training", {}), "aligned": any(u.has_phones for u in utterances),
    }  # fmt: skip


def _digest(dictionary: Dictionary) -> str:
    import hashlib

    h = hashlib.sha256(json.dumps(plain(dictionary.describe()), sort_keys=True).encode())
    for _, tensor in sorted(dictionary.state_dict().items()):
        h.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def _behaving(
    store: Store,
    utterances: Sequence[Utterance],
    config: EvalConfig,
    notify: Callable[[str], None],
    loading: dict[str, Any],
) -> Behaving | None:
    """The model with recordings that have a transcript; None, and a remark, where behaviour cannot be measured."""
    if config.clips == 0:
        return None
    if store.frame_rate is None or not store.site.startswith("encoder"):
        notify(f"behaviour is left out: {store.site} is no site of an encoder")
        return None
    chosen = [
        u for u in utterances if u.text and u.start == 0 and not u.noise and u.seconds < 30 and Path(u.path).is_file()
    ]
    if not chosen:
        notify("behaviour is left out: no recording of the store has a transcript and is still there")
        return None
    chosen = chosen[: config.clips]
    try:
        model = load_model(store.model, progress=notify, **loading)
    except OtoscopeError as error:
        notify(f"behaviour is left out: {error}")
        return None
    if model.family != "whisper":
        notify(f"behaviour is left out: {model.name} is no Whisper")
        return None
    clips = [read(Path(u.path)).resample(model.adapter.rate) for u in chosen]
    return Behaving(model, store.site, clips, [u.text or "" for u in chosen], [u.number for u in chosen])


def _sounds(paths: Sequence[Path], rate: int) -> list[Clip]:
    """Sounds in a fixed random order, each no longer than ten seconds."""
    found = [recording for path in paths for recording in find([path])]
    order = np.random.default_rng(0).permutation(len(found))[:_MOST_SOUNDS]
    clips = [found[i].clip().resample(rate) for i in order]
    return [c.replace(samples=c.samples[: 10 * rate], words=(), phones=()) for c in clips]


def _across(
    across: tuple[str | Path | Dictionary, str | Path | Store],
    store: Store,
    utterance: Int[np.ndarray, " frame"],
    utterances: Sequence[Utterance],
) -> Across:
    """What another model's dictionary makes of the frames that both stores hold.

    Raises:
        RunError: no recording is in both, or their frame rates differ.
    """
    dictionary = across[0] if isinstance(across[0], Dictionary) else load(across[0])
    other = across[1] if isinstance(across[1], Store) else Store(across[1])
    if dictionary.config.d != other.d:
        raise ModelError(
            f"the other dictionary reads activations of width {dictionary.config.d}, and {other.site} in {other.path} has "
            f"{other.d}: give the store of its own site."
        )
    if other.frame_rate != store.frame_rate:
        raise RunError(
            f"{other.path} has {other.frame_rate} frames per second and {store.path} has {store.frame_rate}: features can "
            "only be matched over common frames."
        )
    same = {u.digest: u for u in other.utterances}
    parts, rows = [], []
    for u in utterances:
        own = np.flatnonzero(utterance == u.number)
        if u.digest in same:
            x = other.frames(same[u.digest].number).x.numpy()
            n = min(len(own), len(x))
            parts.append(x[:n])
            rows.append(own[:n])
    if not parts:
        raise RunError(f"{other.path} and {store.path} have no recording in common: harvest the same ones for both.")
    codes = read_with(dictionary, np.concatenate(parts)).codes
    return Across(f"{other.model}, {other.site}", codes, np.concatenate(rows))
