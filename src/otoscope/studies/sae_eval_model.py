"""The measures of AudioSAEBench that ask the model: selectivity, steering with its side effects, minimal pairs, answers.

They edit the site in a running model, thousands of times, so each is run when asked for. Each gives numbers of the dictionary
and of the random one, and rows for a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model
from otoscope.methods.pose import pose
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.edits import matched
from otoscope.sae.measures.answers import answers, asked_of, plain_answers
from otoscope.sae.measures.battery import Numbers, labels_of
from otoscope.sae.measures.behaviour import Plain
from otoscope.sae.measures.disentangle import disentangle
from otoscope.sae.measures.erasure import FACTORS, Curve, K, best_features, erasure
from otoscope.sae.measures.forced import Forced
from otoscope.sae.measures.frames import Frames, Reading, csr
from otoscope.sae.measures.phone_classes import english
from otoscope.sae.measures.posed_pairs import PosedPair
from otoscope.sae.measures.rivals import read_with
from otoscope.sae.measures.selectivity import features_of, selectivity
from otoscope.sae.measures.side_effects import Edit, ce_costs, scaling, share, wer_cost, writes_words
from otoscope.sae.measures.sparsity import firing_rates
from otoscope.stats import Interval
from otoscope.tasks.registry import make

#: what can be asked for, and what it says
ASKED = {
    "selectivity": "ablate a feature where it is active: what happens to the tokens said there, and to the others",
    "steering": "erase and turn up the features of a label: target against cross-entropy and WER on speech",
    "pairs": "exchange the features of one phonological distinction: is the answer moved, and no other",
    "answers": "spoken digits told with the frames rebuilt",
}
#: factor by which features are turned up, set beforehand; the table shows the others
TURNED_UP = 4.0
#: labels that are erased, those that are there, in this order; at most so many
_ERASED, _MOST_ERASED = ("manner", "sex", "voicing", "speaker"), 2
#: by which the codes of the features of sounds are multiplied
_ON_SOUNDS = (2.0, TURNED_UP, 8.0)

Rows = list[dict[str, Any]]
#: what one measure gives of one dictionary
Taken = tuple[Numbers, Rows]


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary and what it makes of the bench's frames."""

    name: str
    dictionary: Dictionary
    reading: Reading

    def read(self, x: Float[np.ndarray, "frame d"]) -> Reading:
        """What it makes of other frames."""
        return read_with(self.dictionary, x)


@dataclass(frozen=True, eq=False)
class Setting:
    """What the measures are told.

    Attributes:
        model, site: whose frames are edited.
        clips, texts, before: recordings, what is said in them, what the untouched model does with them.
        frames: of the bench.
        search: frames of recordings that are not among ``clips``, for choosing features.
        sounds: environmental sounds; none leaves them out.
        data: folder of recordings of spoken digits; None for synthetic ones.
        n_features, n_pairs, n_answers: how many are asked about.
        n_resamples, seed: of the intervals and draws.
        progress: called with what is done and all there is.
    """

    model: Model
    site: str
    clips: Sequence[Clip]
    texts: Sequence[str]
    before: Sequence[Plain]
    frames: Frames
    search: Bool[np.ndarray, " frame"]
    sounds: Sequence[Clip] = ()
    data: Path | None = None
    n_features: int = 8
    n_pairs: int = 24
    n_answers: int = 12
    n_resamples: int = 1000
    seed: int = 0
    progress: Callable[[int, int], None] | None = None

    @property
    def resampling(self) -> dict[str, int]:
        """For the measures."""
        return {"n_resamples": self.n_resamples, "seed": self.seed}

    def heard(self) -> list[Forced]:
        """The recordings with what the untouched model writes."""
        made = [Forced.of(self.model, self.site, clip, was.transcript) for clip, was in zip(self.clips, self.before)]
        return [one for one in made if one is not None]


def take_selectivity(setting: Setting, subjects: Sequence[Subject]) -> dict[str, Taken]:
    """Selectivity of the feature that tells each of the commonest phones best."""
    heard, found = setting.heard(), {}
    for subject in subjects:
        features = features_of(subject.reading, setting.frames.phone, setting.n_features, setting.search, setting.seed)
        rates = firing_rates(subject.reading.codes)
        done = selectivity(heard, subject.read, features, rates, progress=setting.progress, **setting.resampling)
        numbers: Numbers = {
            "selectivity": done.ratio, "selectivity_other": done.other, "selectivity_elsewhere": done.elsewhere,
            "selectivity_inside": done.inside, "selectivity_outside": done.outside,
            "selectivity_lost_inside": done.lost_inside, "selectivity_lost_outside": done.lost_outside,
        }  # fmt: skip
        found[subject.name] = numbers, [{"subject": subject.name, **row} for row in done.rows]
    return found


def take_steering(setting: Setting, subjects: Sequence[Subject]) -> dict[str, Taken]:
    """Erasure and turning up of labels, and words on sounds, each with what it costs on speech."""
    heard, found = setting.heard(), {}
    labels = labels_of(setting.frames, english(setting.frames.phone.names))
    for subject in subjects:
        numbers: Numbers = {}
        rows: Rows = []
        curves: list[Curve] = []
        for name in _ERASED:
            if name in labels and len(curves) < _MOST_ERASED:
                about = (setting.frames, subject.reading, labels[name], name)
                curve = erasure(*about, n_resamples=setting.n_resamples, seed=setting.seed)
                curves += [] if curve is None else [curve]
        for curve in curves:
            numbers |= _costs(setting, subject, heard, curve, rows)
        if setting.sounds:
            numbers |= _sounds(setting, subject, heard, rows)
        found[subject.name] = numbers, rows
    return found


def take_pairs(setting: Setting, subjects: Sequence[Subject]) -> dict[str, Taken]:
    """Cause and isolate on minimal pairs that the model tells apart; principal components and all channels beside them."""
    task = make("minimal-pairs", n=setting.n_pairs, seed=setting.seed)
    pairs = []
    for i, item in enumerate(task):
        posed = pose(setting.model, item)
        if posed is not None:
            pairs.append(PosedPair.of(setting.model, setting.site, posed))
        if setting.progress:
            setting.progress(i + 1, len(task))
    found: dict[str, Taken] = {}
    for i, subject in enumerate(subjects):
        # the rivals that know nothing of a dictionary are asked once
        arms = ("own", "random features", *(("pca", "all channels") if i == 0 else ()))
        done = disentangle(pairs, subject.read, arms=arms, progress=setting.progress, **setting.resampling)
        own, drawn = done.arms["own"], done.arms["random features"]
        numbers: Numbers = {
            "disentangle": own.disentangle, "cause": own.cause, "isolate": own.isolate,
            "disentangle_drawn": drawn.disentangle,
        }  # fmt: skip
        found[subject.name] = numbers, [{"subject": subject.name, **row} for row in done.rows]
        for arm, rival in (("pca", "pca"), ("all channels", "raw")):
            if arm in done.arms:
                scores = done.arms[arm]
                found[rival] = {
                    "disentangle": scores.disentangle, "cause": scores.cause, "isolate": scores.isolate
                }, []  # fmt: skip
    return found


def take_answers(setting: Setting, subjects: Sequence[Subject]) -> dict[str, Taken]:
    """Spoken digits with the frames rebuilt."""
    task = make("digits", n=setting.n_answers, seed=setting.seed, data=setting.data)
    asked = asked_of(task)
    before = plain_answers(setting.model, setting.site, asked, task.options)
    found: dict[str, Taken] = {}
    for subject in subjects:

        @torch.no_grad()
        def rebuild(x: torch.Tensor, d: Dictionary = subject.dictionary) -> torch.Tensor:
            return d.decode(d.encode_sparse(x.to(d.decoder))).to(x)

        done = answers(
            setting.model, setting.site, asked, task.options, before, rebuild, progress=setting.progress,
            **setting.resampling,
        )  # fmt: skip
        found[subject.name] = {
            "answer_accuracy": done.accuracy, "answer_delta": done.delta, "answer_own": done.own,
            "answer_recovered": done.recovered,
        }, []  # fmt: skip
    return found


TAKES: dict[str, Callable[[Setting, Sequence[Subject]], dict[str, Taken]]] = {
    "selectivity": take_selectivity, "steering": take_steering, "pairs": take_pairs, "answers": take_answers,
}  # fmt: skip


def _costs(setting: Setting, subject: Subject, heard: Sequence[Forced], curve: Curve, rows: Rows) -> Numbers:
    """Cross-entropy of every edit of a curve, and WER of erasing and of turning up; adds the curve's rows."""
    of_arm = {"own": curve.chosen.features, "null": curve.chosen.null, "inserted": curve.chosen.features}
    edits: dict[str, Edit] = {
        f"{arm} {factor:g}": scaling(subject.read, list(features), factor, insert=arm == "inserted")
        for arm, features in of_arm.items()
        for factor in (FACTORS if arm == "own" else (0.0, 1.0, TURNED_UP))
        if factor != 1 or arm == "inserted"
    }
    ce = ce_costs(heard, edits, **setting.resampling)
    wer = {name: _wer(setting, edits[name]) for name in ("own 0", f"own {TURNED_UP:g}")}
    for point in curve.points:
        name = f"{point.arm} {point.factor:g}"
        if name in ce or name == "own 1":
            rows.append({
                "subject": subject.name, "target": f"{curve.chosen.label}: {curve.chosen.value}", "arm": point.arm,
                "factor": point.factor, "features": len(of_arm[point.arm]), "effect": "probe",
                **_columns("value", point.accuracy), "called": point.called, **_columns("ce", ce.get(name)),
                **_columns("wer", wer.get(name)),
            })  # fmt: skip
    label = curve.chosen.label
    return {
        f"erasing_ce.{label}": ce["own 0"], f"erasing_ce_null.{label}": ce["null 0"],
        f"erasing_wer.{label}": wer["own 0"],
    }  # fmt: skip


def _sounds(setting: Setting, subject: Subject, heard: Sequence[Forced], rows: Rows) -> Numbers:
    """Words written where nobody speaks, with the features of sounds turned up or those of speech erased.

    Features are chosen on the first half of the sounds and on the bench's speech; words are counted on the other half.
    """
    half = len(setting.sounds) // 2
    search = [_frames_of(setting, sound) for sound in setting.sounds[:half]]
    codes = [subject.read(x).codes for x in search]
    speech = subject.reading.codes[np.flatnonzero(setting.search)]
    n = sum(c.shape[0] for c in codes)
    both = Reading(csr(_stacked([*codes, speech])), np.zeros((0, 0)))
    is_sound = np.arange(both.codes.shape[0]) < n
    chosen = np.sort(np.random.default_rng(setting.seed).permutation(len(is_sound))[:8000])
    of_sound = best_features(both, chosen, is_sound[chosen], K)
    of_speech = best_features(both, chosen, ~is_sound[chosen], K)
    null = matched(firing_rates(both.codes), of_sound, setting.seed)
    edits: dict[tuple[str, float], Edit | None] = {("own", 1.0): None}
    for factor in _ON_SOUNDS:
        edits["own", factor] = scaling(subject.read, list(of_sound), factor)
    edits["null", TURNED_UP] = scaling(subject.read, list(null), TURNED_UP)
    edits["inserted", 1.0] = scaling(subject.read, list(of_sound), 1.0, insert=True)
    edits["speech features", 0.0] = scaling(subject.read, list(of_speech), 0.0)
    ce = ce_costs(heard, {f"{a} {f:g}": e for (a, f), e in edits.items() if e is not None}, **setting.resampling)
    ask, numbers = setting.sounds[half:], {}
    for i, ((arm, factor), edit) in enumerate(edits.items()):
        words = share(writes_words(setting.model, setting.site, ask, edit), **setting.resampling)
        wer = None if edit is None or arm == "null" else _wer(setting, edit)
        rows.append({
            "subject": subject.name, "target": "sounds: words written", "arm": arm, "factor": factor, "features": K,
            "effect": "words", **_columns("value", words), "called": None, **_columns("ce", ce.get(f"{arm} {factor:g}")),
            **_columns("wer", wer),
        })  # fmt: skip
        if (arm, factor) == ("own", 1.0):
            numbers["sounds_words_before"] = words
        elif (arm, factor) == ("own", TURNED_UP):
            numbers |= {"sounds_words": words, "sounds_wer": wer}
        if setting.progress:
            setting.progress(i + 1, len(edits))
    return numbers


def _frames_of(setting: Setting, clip: Clip) -> Float[np.ndarray, "frame d"]:
    from otoscope.sae.measures.behaviour import n_valid

    x = setting.model.capture(setting.model.inputs(clip), setting.site)[setting.site]
    return x[0, : n_valid(setting.model, setting.site, clip)].float().cpu().numpy()


def _stacked(parts: Sequence[Any]) -> Any:
    from scipy import sparse

    return sparse.vstack(parts, format="csr")


def _wer(setting: Setting, edit: Edit) -> Interval:
    return wer_cost(
        setting.model, setting.site, setting.clips, setting.texts, setting.before, edit, **setting.resampling
    )


def _columns(name: str, value: Interval | None) -> dict[str, float | None]:
    if value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def rows_by_measure(taken: Mapping[str, Mapping[str, Taken]]) -> dict[str, Rows]:
    """Measure -> the rows of all subjects."""
    return {
        name: rows for name, subjects in taken.items() if (rows := [row for _, own in subjects.values() for row in own])
    }
