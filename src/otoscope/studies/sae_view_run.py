"""Write the pages about a dictionary's features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from otoscope.audio.clip import Clip, Span
from otoscope.engine.model import Model, load
from otoscope.errors import AudioError, ModelError, RunError
from otoscope.report.feature_site import write_site, write_sounds
from otoscope.report.features import FeaturePage, FeatureSite
from otoscope.runs import Run
from otoscope.runs.files import plain
from otoscope.sae import shards
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import load as load_dictionary
from otoscope.sae.recordings import find
from otoscope.sae.steering import can_write
from otoscope.sae.store import Store
from otoscope.studies.outcome import Step
from otoscope.studies.sae_sounds import HeardSounds, Sounds, StoredSounds, timed
from otoscope.studies.sae_view import (
    ViewConfig,
    choose,
    cut,
    moments_of,
    neighbours,
    rows,
    steer_features,
    watch,
)

_ALIGNED_AT_ONCE = 16


@dataclass(frozen=True)
class Viewed:
    """The results object, and lines for a person."""

    results: dict[str, Any]
    lines: list[str]


def view_study(
    dictionary: Path | Dictionary,
    recordings: Sequence[Path] | Sequence[Clip],
    out: Path,
    config: ViewConfig | None = None,
    *,
    model: str | Model | None = None,
    site: str | None = None,
    align: bool = True,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Viewed:
    """Watch a dictionary's features over recordings and write ``out/index.html`` with a page for some of them.

    Args:
        dictionary: its folder, in any known format, or the dictionary.
        recordings: files, folders and manifests, or clips; or the folder of one store of activations, whose times of phones
            and words are used (a sound is then played without the noise that a harvest added).
        out: directory of the run; one that was stopped goes on.
        config: what is shown.
        model, site: what it reads, where its own metadata do not say, or say something else.
        align: find times of words and phones by forced alignment where a recording has a text and no times.
        progress: called with what is done and the total, of one part after another.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError: the dictionary or the model cannot be read, or it is not known which model and site it reads.
        SiteError: the site has no moments of sound, or another width.
        AudioError: a recording cannot be read.
        RunError: nothing is active, or ``out`` cannot be written.
    """
    config = config or ViewConfig()
    known = dictionary if isinstance(dictionary, Dictionary) else load_dictionary(dictionary)
    stored = one_store(recordings)
    sounds = (
        _from_store(known, stored, site, model, config.steer > 0, notify, **loading)
        if stored
        else _from_recordings(known, recordings, model, site, notify, **loading)
    )
    name, place, loaded = _model_name(sounds), sounds.site, sounds.model
    asked = {
        "model": name, "site": place, "dictionary": digest_of(known), "align": align and not stored,
        "sounds": _described(sounds), **asdict(config),
    }  # fmt: skip
    with Run(out, "sae view", asked, seeds={"view": config.seed}) as run:
        if loaded is not None:
            run.record_weights(name, loaded.weights_hash())
        if align and isinstance(sounds, HeardSounds):
            sounds.times = _aligned(sounds, run.step, progress, notify)
        notify(f"watching {len(known.encoder)} features over {len(sounds)} recordings")
        activity = watch(sounds, config, run.step, progress)
        chosen = choose(activity, config)
        steering = {}
        if config.steer and (loaded is None or not can_write(loaded)):
            notify(f"note: {name} writes no transcripts, so nothing is steered")
        elif config.steer:
            some = chosen[: config.steer]
            notify(f"steering with {len(some)} features")
            steering = steer_features(sounds, some, activity.spread, config, run.step, progress)
        notify("writing the pages")
        listed = {row.feature: row for row in rows(activity)}
        strength = max((s for s in config.strengths if s > 0), default=None) if steering else None
        for feature, tables in steering.items():
            effects = [r.changed for table in tables for r in table.rows if r.strength == strength]
            listed[feature] = replace(listed[feature], effect=sum(effects) / len(effects) if effects else None)
        moments, near = moments_of(sounds, activity, chosen, config), neighbours(known, chosen)
        pages = [
            FeaturePage(listed[f], *moments[f], *near[f], steering=steering.get(f, ())) for f in chosen
        ]  # fmt: skip
        limit = round(config.max_mb * 1e6)
        kept, written = write_sounds(
            run, pages, len(listed), lambda name: cut(sounds, name, config.seconds), limit
        )  # fmt: skip
        seconds = sum(map(sounds.seconds, range(len(sounds))))
        alive = int((activity.active > 0).sum())
        notes = []
        if len(kept) < len(pages):
            notes.append(
                f"{len(kept)} of {len(pages)} features got a page: more would make the site larger than {config.max_mb:g} MB."
            )
        shown = FeatureSite(
            title=f"Features of {place} in {name}",
            subtitle=f"{alive} of {len(listed)} features are active in {seconds / 60:.3g} minutes of sound.",
            rows=list(listed.values()), pages=sorted(kept, key=lambda p: p.row.feature), notes=notes, info=run.info,
            spread=activity.spread or 1.0,
            facts={
                "dictionary": f"{known.architecture}, {len(listed)} features of {known.config.d} channels",
                "model": name, "site": place,
                "sounds": f"{len(sounds)} recordings, {seconds:.0f} s, {activity.n_frames} frames",
                "labels": ", ".join(f"{kind} ({len(t.names)})" for kind, t in activity.tallies.items()) or "none known",
            },
        )  # fmt: skip
        written += write_site(run, shown, strength)
        metrics = {
            "features": len(listed), "alive": alive, "pages": len(kept), "steered": len(steering), "recordings": len(sounds),
            "seconds_of_sound": seconds, "frames": activity.n_frames, "l0": float(activity.active.sum() / activity.n_frames),
            "spread": activity.spread, "bytes": written,
        }  # fmt: skip
        run.table("features", _columns(shown))
        results = run.finish(metrics)
    lines = [f"{out / 'index.html'}: {len(kept)} of {len(listed)} features with a page, {written / 1e6:.3g} MB", *notes]
    return Viewed(results, lines)


def what_it_reads(
    dictionary: Dictionary,
    model: str | Model | None,
    site: str | None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> tuple[Model, str]:
    """The model, loaded, and the site that a dictionary reads: as given, else as its metadata say.

    Raises:
        ModelError: neither says, or the model cannot be loaded.
    """
    name = model or dictionary.metadata.get("model_name")
    place = site or dictionary.metadata.get("hook_name")
    for what, found, option in (("model", name, "--model"), ("site", place, "--site")):
        if not found:
            raise ModelError(f"the dictionary does not say which {what} it reads: name it with {option}.")
    return name if isinstance(name, Model) else load(str(name), progress=notify, **loading), str(place)


def one_store(recordings: Sequence[Path] | Sequence[Clip]) -> Path | None:
    """The folder of a store of activations, where the sounds are given as one.

    Raises:
        RunError: a store stands beside other sounds.
    """
    stores = [r for r in recordings if isinstance(r, Path) and (r / shards.PLAN).is_file()]
    if stores and len(recordings) > 1:
        raise RunError(f"{stores[0]} is a store of activations, which is viewed alone: leave the other sounds out.")
    return stores[0] if stores else None


def _from_store(
    dictionary: Dictionary, path: Path, site: str | None, model: str | Model | None, writes: bool,
    notify: Callable[[str], None], **loading: Any,
) -> StoredSounds:  # fmt: skip
    store = Store(path, None, memory_gb=1.0)
    wanted = site or (dictionary.metadata.get("hook_name") if len(store.sites) > 1 else None)
    store = Store(path, wanted, memory_gb=1.0)
    if not writes:
        return StoredSounds(dictionary, None, store)
    name = model or store.model
    loaded = name if isinstance(name, Model) else load(name, progress=notify, **loading)
    return StoredSounds(dictionary, loaded, store)


def _from_recordings(
    dictionary: Dictionary, recordings: Sequence[Path] | Sequence[Clip], model: str | Model | None, site: str | None,
    notify: Callable[[str], None], **loading: Any,
) -> HeardSounds:  # fmt: skip
    items = [item for r in recordings for item in ([r] if isinstance(r, Clip) else find(r))]
    if not items:
        raise AudioError("there is no sound to view features on: name files, folders or manifests of recordings.")
    loaded, place = what_it_reads(dictionary, model, site, notify, **loading)
    return HeardSounds(dictionary, loaded, place, items, notify)


def _model_name(sounds: Sounds) -> str:
    return sounds.store.model if isinstance(sounds, StoredSounds) else sounds.model.name if sounds.model else ""


def _described(sounds: Sounds) -> str:
    """What tells one set of sounds from another (SHA-256, first 16 hex digits)."""
    if isinstance(sounds, StoredSounds):
        told: Any = [sounds.store.weights, [u.digest for u in sounds.store.utterances]]
    else:
        assert isinstance(sounds, HeardSounds)
        told = [item.digest() if isinstance(item, Clip) else plain(item.described()) for item in sounds.items]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def digest_of(dictionary: Dictionary) -> str:
    """SHA-256 over a dictionary's weights (first 16 hex digits)."""
    h = hashlib.sha256(repr(sorted(dictionary.describe().items())).encode())
    for name, tensor in sorted(dictionary.state_dict().items()):
        h.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def _aligned(
    sounds: HeardSounds, step: Step, progress: Callable[[int, int], None] | None, notify: Callable[[str], None]
) -> dict[int, tuple[list[Span], list[Span]]]:
    """Times of words and phones of the recordings that have a text to align and no times."""
    lacking = sounds.lacking_times()
    found: dict[int, tuple[list[Span], list[Span]]] = {}
    failed: list[str] = []
    if lacking:
        notify(f"finding the times of words and phones in {len(lacking)} recordings")
    for start in range(0, len(lacking), _ALIGNED_AT_ONCE):
        some = lacking[start : start + _ALIGNED_AT_ONCE]

        def compute(some: list[int] = some) -> list[dict[str, Any]]:
            return [_times_of(sounds.clip(i)) for i in some]

        for i, own in zip(some, step(f"times {start}", compute)):
            if own["why"]:
                failed.append(own["why"])
            else:
                found[i] = [Span(*s) for s in own["words"]], [Span(*s) for s in own["phones"]]
        if progress:
            progress(start + len(some), len(lacking))
    if failed:
        notify(f"note: {len(failed)} recordings have no times of phones: {failed[0]}")
    return found


def _times_of(clip: Clip) -> dict[str, Any]:
    clip, why = timed(clip)
    words, phones = ([[s.start, s.end, s.text] for s in kind] for kind in (clip.words, clip.phones))
    return {"words": words, "phones": phones, "why": why}


def _columns(site: FeatureSite) -> dict[str, list[Any]]:
    rows = site.rows
    columns: dict[str, list[Any]] = {
        "feature": [r.feature for r in rows], "density": [r.density for r in rows], "mean": [r.mean for r in rows],
        "strongest": [r.strongest for r in rows],
    }  # fmt: skip
    for kind in site.kinds:
        first = [next(iter(r.labels.get(kind, ())), None) for r in rows]
        columns[kind] = [s.label if s else None for s in first]
        columns[f"{kind}_share"] = [s.share if s else None for s in first]
    return columns | {"steers": [r.effect for r in rows]}
