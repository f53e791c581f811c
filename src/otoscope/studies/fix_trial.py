"""One intervention on one part of the data: what a Whisper writes with it, and what that does to silence and to speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.engine.fix import Fix
from otoscope.engine.intervene import Intervention
from otoscope.engine.model import Model
from otoscope.methods.invention import SHORT, Ears, Written, has_words, judged, write
from otoscope.methods.invention_edits import Candidate
from otoscope.models.wer import score
from otoscope.stats import Interval, bootstrap, clopper_pearson, ratio_of_sums
from otoscope.studies.outcome import Step
from otoscope.tasks.no_speech import Sound


@dataclass(frozen=True, eq=False)
class Tried:
    """One candidate on one part.

    Attributes:
        label, family, strength, control: of the candidate; ``none`` is the model as it is.
        invented: share of sounds without speech that have words.
        after_rule: the same after Whisper's own no-speech rule; NaN on the choosing part, where it is not computed.
        wer: word error rate of the sentences (text that was changed, where there are no references).
        wer_rise: its rise over the model as it is, with an interval over speakers.
        noisy_wer: of the sentences in other sounds.
        silenced: share of short pieces of speech that had words and have none.
    """

    label: str
    family: str
    strength: float
    control: bool
    invented: Interval
    after_rule: Interval
    wer: Interval
    wer_rise: Interval
    noisy_wer: Interval
    silenced: Interval


def interventions(candidate: Candidate | None) -> list[Intervention]:
    return [] if candidate is None else Fix("", "", "", candidate.edits, candidate.vectors).interventions()


def begin(model: Model, candidate: Candidate | None) -> tuple[int, ...] | None:
    """A neuron may end a text that has not begun, which Whisper's own settings forbid."""
    if candidate is None or candidate.family != "neuron":
        return None
    end, barred = model.hf.generation_config.eos_token_id, model.hf.generation_config.begin_suppress_tokens
    return None if barred is None else tuple(t for t in barred if t != end)


def written(ears: Ears, sounds: Sequence[Sound], candidate: Candidate | None, step: Step) -> list[Written]:
    """Texts of a part, without what the rule judges by."""
    edits, barred = interventions(candidate), begin(ears.model, candidate)
    name = "none" if candidate is None else candidate.label

    def compute() -> list[str]:
        texts: dict[int, str] = {}
        for said, most in ((False, SHORT), (True, None)):
            which = [i for i, s in enumerate(sounds) if s.said is said]
            rows = write(ears, which, edits, max_new_tokens=most, begin_suppress=barred)
            texts |= {i: ears.model.tokenizer.decode(row).strip() for i, row in zip(which, rows)}
        return [texts[i] for i in range(len(sounds))]

    return [Written(text, float("nan"), float("nan")) for text in step(f"choose {name}", compute)]


def read_out(ears: Ears, sounds: Sequence[Sound], candidate: Candidate | None, step: Step) -> list[Written]:
    edits, barred = interventions(candidate), begin(ears.model, candidate)
    name = "none" if candidate is None else candidate.label

    def compute() -> list[list[Any]]:
        found: dict[int, Written] = {}
        for said, most in ((False, SHORT), (True, None)):
            which = [i for i, s in enumerate(sounds) if s.said is said]
            found |= dict(zip(which, judged(ears, which, edits, max_new_tokens=most, begin_suppress=barred)))
        return [[found[i].text, found[i].no_speech, found[i].log_prob] for i in range(len(sounds))]

    return [Written(*row) for row in step(f"report {name}", compute)]


def tried(
    candidate: Candidate | None, now: Sequence[Written], plain: Sequence[Written], sounds: Sequence[Sound]
) -> Tried:
    silent = [w for w, s in zip(now, sounds) if not s.said]
    ruled = not any(np.isnan(w.log_prob) for w in silent)
    pieces = [
        (has_words(p.text), has_words(w.text)) for w, p, s in zip(now, plain, sounds) if s.kind == "short speech"
    ]  # fmt: skip
    of_speech = [float(not after) for before, after in pieces if before]
    wer, rise = _errors(now, plain, sounds, "speech")
    return Tried(
        "none" if candidate is None else candidate.label,
        "none" if candidate is None else candidate.family,
        0.0 if candidate is None else candidate.strength,
        candidate is not None and candidate.control,
        _share([has_words(w.text) for w in silent]),
        _share([has_words(w.text) and not w.dropped for w in silent]) if ruled else _NONE,
        wer, rise, _errors(now, plain, sounds, "speech in noise")[0], _share(of_speech),
    )  # fmt: skip


_NONE = Interval(float("nan"), float("nan"), float("nan"), 0)


def _share(values: Sequence[Any]) -> Interval:
    return clopper_pearson(int(sum(values)), len(values)) if len(values) else _NONE


def _errors(
    now: Sequence[Written], plain: Sequence[Written], sounds: Sequence[Sound], kind: str
) -> tuple[Interval, Interval]:
    """WER of a kind of speech and its rise, with intervals over speakers; against the model's own text where no reference is."""
    which = [i for i, s in enumerate(sounds) if s.kind == kind]
    if not which:
        return _NONE, _NONE
    texts = [sounds[i].clip.text for i in which]
    said = [plain[i].text if text is None else text for i, text in zip(which, texts)]
    after, before = (score([w[i].text for i in which], said).items for w in (now, plain))
    groups = [sounds[i].clip.speaker or sounds[i].clip.name for i in which]
    counted = np.array([[a.errors, a.words] for a in after], float)
    rise = np.array([[a.errors - b.errors, a.words] for a, b in zip(after, before)], float)
    return bootstrap(counted, ratio_of_sums, groups), bootstrap(rise, ratio_of_sums, groups)
