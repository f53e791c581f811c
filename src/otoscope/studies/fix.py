"""Can a Whisper be kept from writing words where nobody speaks, without fine-tuning and without harm to speech?

On the first part of the data interventions are searched, on the second one of them and its strength are chosen, on the
third, other sounds and other speakers, it is reported. The bars stand here and were set before the first report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.engine.fix import Fix
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.invention import NO_SPEECH, Ears, Written, has_words, padding_attention, write
from otoscope.methods.invention_edits import (
    Candidate,
    damped,
    end_direction,
    head_effects,
    last_layer,
    neurons,
    reader,
    states,
    steered,
)
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval
from otoscope.stats.ranking import roc_auc
from otoscope.studies.fix_trial import Tried, begin, read_out, tried, written
from otoscope.studies.outcome import Step
from otoscope.tasks.no_speech import PARTS, Part, Sound, divided_sounds, divided_speech, harder_speech, noises

#: at most this share of sounds without speech may have words, and WER may rise by so much
MOST_INVENTED, MOST_WER = 0.10, 0.003
#: frontiers: heads that are damped, strengths of the direction, thresholds of the neuron (half-way is 0)
HEADS, STRENGTHS, THRESHOLDS = (1, 2, 4, 8), (0.25, 0.5, 1.0, 2.0), (0.5, 0.25, 0.0, -0.25, -0.5)
#: what a neuron writes when it fires fully, in mean norms of the states
GAIN = 2.0
#: sounds by which heads are searched, per side
HEAD_SOUNDS = 20
FAMILIES = ("heads", "direction", "neuron")


@dataclass(frozen=True)
class FixConfig:
    """What is asked.

    Attributes:
        language: of a multilingual model.
        seed: of parts and draws.
        hard: sentences that are also heard in noise and cut short, per part.
        families: kinds of intervention that are searched.
    """

    language: str = "en"
    seed: int = 0
    hard: int = 24
    families: tuple[str, ...] = FAMILIES


@dataclass(frozen=True, eq=False)
class Fixed:
    """What the study gives.

    Attributes:
        model: its name.
        parts: the sounds.
        effects: head -> its effect.
        auc: signal -> how well it tells sounds with and without speech apart on the report's part.
        chosen: frontiers on the choosing part; the model as it is comes first.
        reported: what is reported on the third part; the model as it is comes first, the fix second.
        by_kind: kind of sound -> (sounds, with words before, with words after).
        fix: the intervention that was chosen; None where none held the bar on WER.
        examples: sounds of the report with what is written before and after.
        unchanged: whether the fix at strength 0 writes what the model as it is writes.
    """

    model: str
    parts: Mapping[Part, Sequence[Sound]]
    effects: Mapping[tuple[str, int], float]
    auc: Mapping[str, float]
    chosen: Sequence[Tried]
    reported: Sequence[Tried]
    by_kind: Mapping[str, tuple[int, int, int]]
    fix: Fix | None
    examples: Sequence[tuple[Sound, str, str]] = ()
    unchanged: bool = True
    notes: Sequence[str] = field(default_factory=list)


def material(
    sounds: Sequence[Clip], speech: Sequence[Clip], config: FixConfig, window: float
) -> dict[Part, list[Sound]]:
    """All parts: recordings without speech, made noise, sentences, and speech that is easily silenced.

    Raises:
        TaskError: there is too little speech.
    """
    short = [clip for clip in speech if clip.duration <= window]
    if len(short) < 6:
        raise TaskError(
            f"a fix is searched, chosen and reported on different sentences, and {len(short)} of at most {window:.0f} s are too "
            "few: give at least 6, better 60, of several speakers."
        )
    quiet = divided_sounds([clip for clip in sounds if clip.duration <= window], config.seed)
    spoken = divided_speech(short, config.seed)
    parts: dict[Part, list[Sound]] = {}
    for part in PARTS:
        lengths = (2.0, 5.0) if window >= 5 else (window / 2, window)
        made = [*quiet[part], *noises(part, config.seed, lengths)]
        parts[part] = [
            *made, *spoken[part], *harder_speech(spoken[part], made, config.seed + PARTS.index(part), config.hard)
        ]  # fmt: skip
    return parts


def study(
    model: Model,
    parts: Mapping[Part, Sequence[Sound]],
    config: FixConfig,
    step: Step,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> Fixed:
    """Search, choose and report.

    Args:
        model: a Whisper.
        parts: from :func:`material`.
        config: what is asked.
        step: keeps what is finished.
        notify: told what is being done.
        progress: called with (done, total).

    Raises:
        ModelError: the model is no Whisper, or has no tokenizer.
    """
    ears = {part: Ears(model, [s.clip for s in parts[part]], config.language) for part in PARTS}
    notify("searching: heads, states and directions")
    effects = _effects(ears["search"], parts["search"], step) if "heads" in config.families else {}
    candidates, words = _candidates(model, ears["search"], parts["search"], effects, config, step)
    bar = _Bar(progress, len(candidates) + 2)
    notify(f"choosing among {len(candidates)} interventions")
    plain = written(ears["choose"], parts["choose"], None, step)
    bar.tick()
    chosen = [tried(None, plain, plain, parts["choose"])]
    for candidate in candidates:
        now = written(ears["choose"], parts["choose"], candidate, step)
        chosen.append(tried(candidate, now, plain, parts["choose"]))
        bar.tick()
    pick = _pick(candidates, chosen)
    notify("reporting on other sounds and other speakers")
    before = read_out(ears["report"], parts["report"], None, step)
    reported = [tried(None, before, before, parts["report"])]
    finals = _finals(candidates, chosen, pick)
    after = before
    for candidate in finals:
        now = read_out(ears["report"], parts["report"], candidate, step)
        reported.append(tried(candidate, now, before, parts["report"]))
        after = now if candidate is pick else after
    unchanged = True
    if pick:
        off = _without_strength(pick)
        unchanged = [w.text for w in written(ears["choose"], parts["choose"], off, step)] == [w.text for w in plain]
    bar.tick()
    sounds = parts["report"]
    return Fixed(
        model.name, parts, effects, _auc(ears["report"], sounds, before, words, step), chosen, reported,
        _kinds(sounds, before, after), _export(model, pick, reported, parts, config) if pick else None,
        _examples(sounds, before, after), unchanged,
    )  # fmt: skip


def claims(found: Fixed) -> list[Claim]:
    """The two bars of the fix, each with its controls."""
    if found.fix is None:
        return []
    after = found.reported[1]
    null = next((t for t in found.reported if t.control and t.family == after.family), None)
    controls = {
        "with the fix at strength 0 nothing changes (1 = so)": Control.of(float(found.unchanged), Threshold(">=", 1))
    }
    if null:
        controls[f"{null.label} leaves them"] = Control.of(null.invented.value, Threshold(">=", MOST_INVENTED))
    return [
        Claim.of(
            "invented", "With the fix, sounds without speech have words at most so often.",
            Threshold("<=", MOST_INVENTED), after.invented, controls,
        ),
        Claim.of(
            "wer", "The fix costs no more than 0.3 points of WER on sentences of other speakers.",
            Threshold("<=", MOST_WER), after.wer_rise,
        ),
    ]  # fmt: skip


def metrics(found: Fixed) -> dict[str, Interval | float | int | None]:
    """Flat numbers of the results."""
    before = found.reported[0]
    after = found.reported[1] if found.fix else before
    out: dict[str, Interval | float | int | None] = {
        "hallucination.before": before.invented, "hallucination.after": after.invented,
        "hallucination.before.rule": before.after_rule, "hallucination.after.rule": after.after_rule,
        "wer.before": before.wer, "wer.after": after.wer, "wer.rise": after.wer_rise,
        "wer.noisy.before": before.noisy_wer, "wer.noisy.after": after.noisy_wer, "silenced": after.silenced,
    }  # fmt: skip
    for other in found.reported[2:]:
        key = f"{other.family}{'.control' if other.control else ''}"
        out |= {f"hallucination.{key}": other.invented, f"wer.rise.{key}": other.wer_rise}
    return out | {f"auc.{signal}": value for signal, value in found.auc.items()}


# -- searching ---------------------------------------------------------------------------------------------------------


def _effects(ears: Ears, sounds: Sequence[Sound], step: Step) -> dict[tuple[str, int], float]:
    quiet = _spread([i for i, s in enumerate(sounds) if not s.said], HEAD_SOUNDS)
    spoken = _spread([i for i, s in enumerate(sounds) if s.kind == "speech"], HEAD_SOUNDS)
    rows = step("heads", lambda: [[*head, effect] for head, effect in head_effects(ears, quiet, spoken).items()])
    return {(site, int(head)): float(effect) for site, head, effect in rows}


def _spread(members: Sequence[int], n: int) -> list[int]:
    """``n`` of them, evenly over the list."""
    return [members[i] for i in np.unique(np.linspace(0, len(members) - 1, min(n, len(members))).round().astype(int))]


def _candidates(
    model: Model,
    ears: Ears,
    sounds: Sequence[Sound],
    effects: Mapping[tuple[str, int], float],
    config: FixConfig,
    step: Step,
) -> tuple[list[Candidate], dict[str, np.ndarray]]:
    """Everything that will be tried, and per layer the direction that tells speech from none at the start."""
    made: list[Candidate] = damped(dict(effects), _counts(effects), config.seed) if effects else []
    layers = [f"decoder.{i}.resid_post" for i in range(model.stacks["decoder"].n_layers)]
    site = last_layer(model)

    def compute() -> dict[str, np.ndarray]:
        which = list(range(len(sounds)))
        silent = [i for i in which if not sounds[i].said]
        texts = dict(zip(which, write(ears, which)))
        stop = model.tokenizer.convert_tokens_to_ids(".")
        held: dict[str, list[np.ndarray]] = {"quiet": [], "spoken": []}
        starts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        for i, seen in zip(which, states(ears, which, [texts[i] for i in which], layers)):
            # after the last word of speech the end is right, so its last state belongs to neither side
            held["spoken" if sounds[i].said else "quiet"].append(seen[site] if not sounds[i].said else seen[site][:-1])
            for layer in layers:
                starts[layer].append(seen[layer][0])
        if isinstance(stop, int) and stop < model.hf.generation_config.eos_token_id:
            # where the end is not allowed at the start, a full stop stands there, and the end must follow
            held["quiet"] += [seen[site][1:] for seen in states(ears, silent, [[stop]] * len(silent), [site])]
        out = {f"start {layer}": np.stack(rows) for layer, rows in starts.items()}
        for side, rows in held.items():
            rows = [x for x in rows if len(x)]
            out[side] = np.concatenate(rows)
            out[f"{side} lengths"] = np.array([len(x) for x in rows])
        return out

    kept = step("states", compute)
    quiet, spoken = (
        np.split(kept[side], np.cumsum(kept[f"{side} lengths"])[:-1].astype(int)) for side in ("quiet", "spoken")
    )
    said = np.array([s.said for s in sounds])
    if "direction" in config.families:
        start = kept[f"start {site}"]
        made += steered(site, start[~said], start[said], STRENGTHS, config.seed)
    if "neuron" in config.families:
        writes = end_direction(model)
        made += neurons(site, reader(quiet, spoken), writes, THRESHOLDS, GAIN)
        made += neurons(site, reader(quiet, spoken, shuffled=config.seed), writes, THRESHOLDS[2:3], GAIN, control=True)
    found = {}
    for layer in layers:
        x = kept[f"start {layer}"]
        told = reader([row[None] for row in x[~said]], [row[None] for row in x[said]])
        found[layer] = np.append(told.weights, told.bias)
    return made, found


def _counts(effects: Mapping[tuple[str, int], float]) -> tuple[int, ...]:
    return tuple(n for n in HEADS if n <= len(effects) // 2) or (1,)


# -- choosing -------------------------------------------------------------------------------------------------------------


def _pick(candidates: Sequence[Candidate], chosen: Sequence[Tried]) -> Candidate | None:
    """The intervention with the fewest invented words among those that hold the bar on WER; the mildest of equals."""
    held = [
        (t.invented.value, t.silenced.value if t.silenced.n else 0.0, abs(t.strength), i)
        for i, (c, t) in enumerate(zip(candidates, chosen[1:]))
        if not c.control and t.wer_rise.value <= MOST_WER and _noise_held(t, chosen[0])
    ]
    best = min(held, default=None)
    return None if best is None or best[0] >= chosen[0].invented.value else candidates[best[-1]]


def _noise_held(one: Tried, plain: Tried) -> bool:
    return not one.noisy_wer.n or one.noisy_wer.value - plain.noisy_wer.value <= MOST_WER


def _finals(candidates: Sequence[Candidate], chosen: Sequence[Tried], pick: Candidate | None) -> list[Candidate]:
    """The fix, then of every other family the best that holds WER (else the mildest), then the fix's control."""
    made = [] if pick is None else [pick]
    for family in dict.fromkeys(c.family for c in candidates):
        mine = [(c, t) for c, t in zip(candidates, chosen[1:]) if c.family == family]
        if pick is None or family != pick.family:
            held = [
                (t.invented.value, i) for i, (c, t) in enumerate(mine) if not c.control and t.wer_rise.value <= MOST_WER
            ]
            made.append(mine[min(held)[1]][0] if held else mine[0][0])
    controls = [c for c in candidates if c.control and (pick is None or c.family == pick.family)]
    return [*made, *controls]


def _without_strength(pick: Candidate) -> Candidate:
    """The same edits with nothing done: hooks alone."""
    edits = tuple(
        {**edit, "factor": 1.0} if edit["op"] == "scale" else {**edit, "strength": 0.0} for edit in pick.edits
    )
    return Candidate("insertion alone", 0.0, edits, pick.vectors)


# -- reporting ---------------------------------------------------------------------------------------------------------


def _auc(
    ears: Ears, sounds: Sequence[Sound], before: Sequence[Written], words: Mapping[str, np.ndarray], step: Step
) -> dict[str, float]:
    """How well each signal tells, at the start, sounds without speech from speech (1 is perfect)."""
    which = list(range(len(sounds)))
    truth = [i for i in which if not sounds[i].said]

    def compute() -> dict[str, np.ndarray]:
        seen = states(ears, which, [[]] * len(which), list(words))
        return {site: np.stack([row[site][0] for row in seen]) for site in words}

    kept = step("report states", compute)
    made = {"no_speech_prob": roc_auc(np.array([w.no_speech for w in before]), truth)}
    behind = step("report padding", lambda: padding_attention(ears, which))
    made["padding_attention"] = roc_auc(np.asarray(behind), truth)
    made["low_log_prob"] = roc_auc(-np.array([w.log_prob for w in before]), truth)
    for site, row in words.items():
        made[f"probe.{site}"] = roc_auc(kept[site] @ row[:-1] + row[-1], truth)
    return {name: float(value) for name, value in made.items()}


def _kinds(
    sounds: Sequence[Sound], before: Sequence[Written], after: Sequence[Written]
) -> dict[str, tuple[int, int, int]]:
    made: dict[str, tuple[int, int, int]] = {}
    for s, b, a in zip(sounds, before, after):
        if not s.said:
            n, x, y = made.get(s.kind, (0, 0, 0))
            made[s.kind] = (n + 1, x + has_words(b.text), y + has_words(a.text))
    return dict(sorted(made.items()))


def _examples(
    sounds: Sequence[Sound], before: Sequence[Written], after: Sequence[Written], n: int = 6
) -> list[tuple[Sound, str, str]]:
    """Sounds of different kinds to listen to: mended ones, then those where words are left, then changed speech."""
    rows = [(s, b.text, a.text) for s, b, a in zip(sounds, before, after)]
    left = [r for r in rows if not r[0].said and has_words(r[2])]
    mended = [r for r in rows if not r[0].said and has_words(r[1]) and not has_words(r[2])]
    harmed = [r for r in rows if r[0].said and r[1] != r[2]]
    one_of_each = list({r[0].kind: r for r in reversed(mended)}.values())[::-1]
    return [*one_of_each[:n], *left[: n // 2], *harmed[: n // 2]]


def _export(
    model: Model, pick: Candidate, reported: Sequence[Tried], parts: Mapping[Part, Sequence[Sound]], config: FixConfig
) -> Fix:
    after, before = reported[1], reported[0]
    scores = {
        "sounds without speech": before.invented.n, "with words before": before.invented.value,
        "with words after": after.invented.value, "wer before": before.wer.value, "wer after": after.wer.value,
    }  # fmt: skip
    found_with = {
        "no-speech threshold of the rule": NO_SPEECH, "seed": config.seed, "language": config.language,
        **{f"{part} part": f"{sum(not s.said for s in parts[part])} sounds without speech, "
           f"{sum(s.said for s in parts[part])} with" for part in PARTS},
    }  # fmt: skip
    return Fix(
        f"no invented words: {pick.label}", model.family, model.weights_hash(), pick.edits, pick.vectors,
        begin(model, pick), scores, found_with,
    )  # fmt: skip


class _Bar:
    def __init__(self, progress: Callable[[int, int], None] | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def tick(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)
