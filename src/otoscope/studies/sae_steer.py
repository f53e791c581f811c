"""What happens to transcripts as one feature is turned up: the target effect against the word error rate, over strengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.errors import RunError
from otoscope.models.wer import normaliser, score
from otoscope.runs import Run
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import load as load_dictionary
from otoscope.sae.recordings import find
from otoscope.sae.steering import Push, changed, direction_of, random_directions, steered
from otoscope.stats import bootstrap, ratio_of_sums
from otoscope.studies.outcome import compute_now, without_run, write_tables
from otoscope.studies.sae_sounds import HeardSounds
from otoscope.studies.sae_view_run import digest_of, what_it_reads


@dataclass(frozen=True)
class SteerConfig:
    """How a feature is turned up."""

    strengths: tuple[float, ...] = (0.1, 0.25, 0.5)
    """In units of the activations' spread; strength 0, the model as it is, always comes first."""

    target: tuple[str, ...] = ()
    """Words whose presence is the effect that is wanted; none: any change of the transcript is."""

    controls: int = 2
    """Random directions at each strength, each with the same length as the feature's."""

    max_new_tokens: int = 128
    """Most tokens of a transcript (Whisper)."""

    seed: int = 0
    """Of the random directions."""

    def __post_init__(self) -> None:
        if not self.strengths or 0.0 in self.strengths or not np.isfinite(self.strengths).all():
            raise RunError("steering needs strengths other than 0: give --strength 0.25, several times if you like.")
        if self.controls < 1 or self.max_new_tokens < 1:
            raise RunError("steering needs at least one random direction to compare with, and one token to write.")


@dataclass(frozen=True)
class SteerDone:
    """The results object; one row per recording and strength; one per strength."""

    results: dict[str, Any]
    transcripts: list[dict[str, Any]]
    curve: list[dict[str, Any]]


def steer_study(
    dictionary: Path | Dictionary,
    feature: int,
    recordings: Sequence[Path] | Sequence[Clip],
    config: SteerConfig | None = None,
    *,
    model: str | Model | None = None,
    site: str | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> SteerDone:
    """Transcribe recordings while a feature's decoder direction, or a random one, is added.

    Args:
        dictionary: its folder, in any known format, or the dictionary.
        feature: its number.
        recordings: files, folders and manifests, or clips; those with a text are scored against it.
        config: strengths, target and controls.
        model, site: what the dictionary reads, where its own metadata do not say.
        out: directory for the run; a run that was stopped goes on.
        progress: called with recordings done and their total.
        notify: told what is being done.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError: no such feature, or the model writes no transcripts.
        AudioError: a recording cannot be read.
    """
    config = config or SteerConfig()
    known = dictionary if isinstance(dictionary, Dictionary) else load_dictionary(dictionary)
    direction = direction_of(known, feature)
    items = [item for r in recordings for item in ([r] if isinstance(r, Clip) else find(r))]
    loaded, place = what_it_reads(known, model, site, notify, **loading)
    sounds = HeardSounds(known, loaded, place, items, notify)
    clips = [sounds.clip(i) for i in range(len(sounds))]
    asked = {
        "model": loaded.name, "site": place, "dictionary": digest_of(known), "feature": feature,
        "clips": [clip.digest()[:16] for clip in clips], **asdict(config),
    }  # fmt: skip
    with nullcontext() if out is None else Run(out, "sae steer", asked, seeds={"directions": config.seed}) as run:
        step = run.step if run else compute_now
        if run:
            run.record_weights(loaded.name, loaded.weights_hash())
        notify(f"listening to {len(clips)} recordings with {loaded.name}")
        natural = step("natural", lambda: _natural(sounds, feature))
        spread = natural["spread"]
        directions = [direction, *random_directions(known.config.d, config.controls, config.seed)]
        pushes = [Push(direction, 0.0), *(Push(d, s) for s in config.strengths for d in directions)]
        notify(f"steering with feature {feature}")
        texts = []
        for i, clip in enumerate(clips):

            def compute(clip: Clip = clip) -> list[str]:
                return steered(loaded, clip, sounds.site, spread, pushes, max_new_tokens=config.max_new_tokens)

            texts.append(step(f"recording {i}", compute))
            if progress:
                progress(i + 1, len(clips))
        english = loaded.name.endswith(".en") or not getattr(loaded.hf.generation_config, "lang_to_id", None)
        transcripts, curve = _tables(clips, texts, config, english)
        metrics = _metrics(curve) | {
            "recordings": len(clips), "spread": spread, "strongest": natural["strongest"] / spread,
            "density": natural["density"],
        }  # fmt: skip
        if run is None:
            return SteerDone(without_run("sae steer", metrics), transcripts, _flat(curve))
        write_tables(run, {"transcripts": transcripts, "curve": _flat(curve)})
        return SteerDone(run.finish(metrics), transcripts, _flat(curve))


def _natural(sounds: HeardSounds, feature: int) -> dict[str, float]:
    """The spread of the activations, and what the feature does by itself."""
    n, total, square, active, strongest = 0, 0.0, 0.0, 0, 0.0
    for i in range(len(sounds)):
        heard = sounds.hear([i])[0]
        if heard is None:
            continue
        own = sounds.strengths(i, [feature])[1][:, 0]
        n, total = n + len(heard.x), total + heard.x.sum(0, dtype=np.float64)
        square += float(np.square(heard.x, dtype=np.float64).sum())
        active, strongest = active + int((own > 0).sum()), max(strongest, float(own.max(initial=0.0)))
    mean = np.atleast_1d(total) / max(1, n)
    spread = float(np.sqrt(max(0.0, square / max(1, n) - float(mean @ mean))))
    if not spread > 0:
        raise RunError("the activations of these recordings do not vary, so a strength has no unit: give other sounds.")
    return {"spread": spread, "strongest": strongest, "density": active / n}


def _tables(
    clips: Sequence[Clip], texts: Sequence[Sequence[str]], config: SteerConfig, english: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows per recording and strength (the feature's own transcripts), and the curve with its null."""
    each = 1 + config.controls
    columns = {0.0: [0]} | {s: list(range(1 + k * each, 1 + (k + 1) * each)) for k, s in enumerate(config.strengths)}
    rows, curve = [], []
    speakers = [clip.speaker or str(i) for i, clip in enumerate(clips)]
    for strength, places in columns.items():
        by_direction = [[own[place] for own in texts] for place in places]
        effects = [[_effect(t, own[0], config.target, english) for t, own in zip(one, texts)] for one in by_direction]
        errors = [_errors(one, clips, english) for one in by_direction]
        for i, clip in enumerate(clips):
            wer = errors[0][i, 0] / errors[0][i, 1] if errors[0][i, 1] > 0 else None
            rows.append({
                "recording": clip.name, "strength": strength, "text": by_direction[0][i], "effect": effects[0][i],
                "wer": wer, "reference": clip.text,
            })  # fmt: skip
        scored = bool(np.isfinite(errors[0]).all(1).any())
        null = np.mean(effects[1:], 0) if strength else np.array(effects[0])
        null_errors = np.mean(errors[1:], 0) if strength else errors[0]
        curve.append({
            "strength": strength, "effect": bootstrap(effects[0], groups=speakers),
            "random_effect": bootstrap(null, groups=speakers),
            "wer": bootstrap(errors[0], ratio_of_sums, groups=speakers) if scored else None,
            "random_wer": bootstrap(null_errors, ratio_of_sums, groups=speakers) if scored else None,
        })  # fmt: skip
    return rows, curve


def _effect(text: str, plain: str, target: Sequence[str], english: bool) -> float:
    """Whether any word of the target is written; without a target, words changed per word."""
    if not target:
        return changed(text, plain, english)
    normalise = normaliser(english)
    words = f" {' '.join(normalise(text).split())} "
    return float(any(f" {' '.join(normalise(word).split())} " in words for word in target))


def _errors(texts: Sequence[str], clips: Sequence[Clip], english: bool) -> np.ndarray:
    """``[recording, 2]``: errors and reference words; NaN without a reference."""
    found = np.full((len(clips), 2), np.nan)
    for i, clip in enumerate(clips):
        if clip.text:
            item = score([texts[i]], [clip.text], english).items[0]
            found[i] = item.errors, item.words
    return found


def _metrics(curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{name}.{row['strength']:g}": row[name]
        for row in curve
        for name in ("effect", "random_effect", "wer", "random_wer")
    }


def _flat(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The curve with its bounds as columns."""
    rows = []
    for row in curve:
        flat: dict[str, Any] = {"strength": row["strength"]}
        for name in ("effect", "random_effect", "wer", "random_wer"):
            found = row[name]
            flat |= {
                name: None if found is None else found.value, f"{name}_low": None if found is None else found.low,
                f"{name}_high": None if found is None else found.high,
            }  # fmt: skip
        rows.append(flat)
    return rows
