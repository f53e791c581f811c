"""Why did it get this word wrong? One recording at a time: its errors, each with evidence, verdict, places and remedies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from otoscope.audio.clip import Clip
from otoscope.audio.pronounce import sound_alike
from otoscope.engine.model import Model
from otoscope.methods.error_evidence import Evidence, gather_evidence, mean
from otoscope.methods.error_places import Places, places_of_sound, places_of_text
from otoscope.methods.error_remedies import Remedy, remedies
from otoscope.methods.error_verdict import RULE, Rule, Verdict, judge, settled
from otoscope.methods.suspicion import COMPRESSION, Suspicion, suspicion
from otoscope.methods.whisper_writing import check_whisper
from otoscope.models.asr_errors import WordError
from otoscope.tasks.planted_errors import Sentence, hear

#: errors of one recording that are explained; in a transcript that is wrong all over, the rest would say no more
MOST_ERRORS = 12
#: a head is tried as a remedy where it moves the margin at least so much of the way
WORTH_TRYING = 0.15


@dataclass(frozen=True)
class ExplainConfig:
    """What to compute.

    Attributes:
        context: the text before each sound that the model is given (Whisper's prompt).
        language: of a multilingual model.
        details: also look for the layer and the heads, and try the remedies.
        seed: of every random choice.
    """

    context: str = ""
    language: str = "en"
    details: bool = True
    seed: int = 0


@dataclass(frozen=True)
class ExplainedError:
    """One error, explained.

    Attributes:
        error: what is wrong.
        evidence: None where no token tells both sides apart.
        verdict: heard wrong, guessed, mixed or undetermined.
        places: where in the model; None where there is no run that does not err.
        remedies: the sentence with one thing changed, from the smallest change to the largest.
    """

    error: WordError
    evidence: Evidence | None
    verdict: Verdict
    places: Places | None = None
    remedies: tuple[Remedy, ...] = ()

    @property
    def remedy(self) -> Remedy | None:
        """The smallest change that mends the word."""
        return next((r for r in self.remedies if r.mends), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with what is derived of it."""
        e = self.evidence
        derived = {} if e is None else {"support": e.support, "clean_support": e.clean_support, "place": e.place}
        return {
            **asdict(self.error), "text": self.error.text, "evidence": None if e is None else {**e.to_json(), **derived},
            "verdict": asdict(self.verdict), "places": None if self.places is None else _plain_places(self.places),
            "remedies": [asdict(r) for r in self.remedies], "advice": advice(self),
        }  # fmt: skip


def _plain_places(places: Places) -> dict[str, Any]:
    return {**asdict(places), "heads": [{"name": h.name, "effect": h.effect} for h in places.heads]}


def explain_clip(
    model: Model, clip: Clip, config: ExplainConfig | None = None, rule: Rule = RULE
) -> tuple[Sentence, list[ExplainedError], Suspicion | None]:
    """Explain the errors of one recording.

    Args:
        model: a Whisper.
        clip: the sound; with its text, which is the reference, or without.
        config: what to compute.
        rule: thresholds of the verdict.

    Returns:
        the sentence as it was heard; its errors (none without a reference); and, without a reference, what is suspect.

    Raises:
        ModelError: the model is no Whisper, or has no tokenizer.
        TaskError: the sound is longer than the model hears at once.
    """
    config = config or ExplainConfig()
    check_whisper(model, clip, "explaining errors")
    clip = clip.resample(model.adapter.rate)
    sentence = hear(model, clip, config.context)
    options: dict[str, Any] = {"context": config.context, "language": config.language, "seed": config.seed}
    if not clip.text:
        return sentence, [], suspicion(model, clip, sentence.tokens, sentence.encoded[0], **options)
    errors = [explain_error(model, sentence, error, config, rule) for error in sentence.found.errors[:MOST_ERRORS]]
    return sentence, errors, None


@torch.no_grad()
def explain_error(
    model: Model, sentence: Sentence, error: WordError, config: ExplainConfig | None = None, rule: Rule = RULE
) -> ExplainedError:
    """Explain one error of a sentence as it was heard; arguments as of :func:`explain_clip`."""
    config = config or ExplainConfig()
    clip, base = sentence.clip, sentence.encoded[0]
    options: dict[str, Any] = {"language": config.language, "seed": config.seed}
    evidence = gather_evidence(
        model, clip, sentence.found, error, sentence.words, writer=sentence.writer, context=sentence.context,
        settled=None if config.details else partial(settled, rule=rule), **options,
    )  # fmt: skip
    if evidence is None:
        return ExplainedError(error, None, Verdict("undetermined", "no token tells both sides apart."))
    verdict = judge(evidence, rule, error.same_letters, sound_alike(error.said, error.written))
    if not config.details:
        return ExplainedError(error, evidence, verdict)
    places = None
    if verdict.name == "guessed":
        places = places_of_text(model, clip, evidence, sentence.context, language=config.language)
    if places is None:
        places = places_of_sound(model, clip, error, evidence, context=sentence.context, **options)
    heads = []
    if places is not None and places.heads and places.heads[0].effect >= WORTH_TRYING:
        top = places.heads[0]
        heads = [(top.site, top.head, 0.0), *([] if places.donor == "neutral text" else [(top.site, top.head, 2.0)])]
    tried = remedies(
        model, clip, clip.text or "", error, evidence, base, context=sentence.context, heads=heads, **options
    )
    return ExplainedError(error, evidence, verdict, places, tuple(tried))


def advice(explained: ExplainedError) -> str:
    """What a person can do about it, in one sentence."""
    remedy = explained.remedy
    mended = "" if remedy is None else f" The smallest change that mends it here: {remedy.what}."
    match explained.verdict.name:
        case "heard wrong":
            return (
                "Record this stretch more clearly, or train on more of such sounds; another text would not help."
                + mended
            )
        case "guessed" if explained.evidence is not None and explained.evidence.without_context is not None:
            return "Leave the text before out, or write the right word into it." + mended
        case "guessed":
            return "The sound is good: weaken what the text expects, or give the word in the text before." + mended
        case "mixed":
            return "Sound and text are both to blame; mend either." + mended
        case _:
            return "No change that was tried separates sound from text here." + mended


def describe_errors(errors: list[ExplainedError]) -> list[str]:
    """One line per error, for a person."""
    lines = []
    for one in errors:
        e = one.evidence
        where = "" if e is None else f" at {e.span[0]:.2f}-{e.span[1]:.2f} s"
        lines.append(f"{one.verdict.name.upper()}: {one.error.text}{where}; {one.verdict.reason}")
    return lines


def summary_row(one: ExplainedError) -> dict[str, Any]:
    """One row of the table of errors, of plain numbers and text."""
    e, p = one.evidence, one.places
    nan = float("nan")
    return {
        "kind": one.error.kind, "said": " ".join(one.error.said), "written": " ".join(one.error.written),
        "verdict": one.verdict.name, "start": e.span[0] if e else nan, "end": e.span[1] if e else nan,
        "margin": e.margin if e else nan, "support": e.support if e else nan,
        "clean_support": e.clean_support if e else nan, "place": e.place if e else nan,
        "no_sound": mean(e.none) if e else nan,
        "layer": "" if p is None or p.layer is None else f"encoder.{p.layer}",
        "head": p.heads[0].name if p and p.heads else "", "head_effect": p.heads[0].effect if p and p.heads else nan,
        "mended_by": one.remedy.what if one.remedy else "",
    }  # fmt: skip


def check_compression(found: Suspicion) -> str:
    """A sentence where the whole text looks like a loop; empty elsewhere."""
    if found.compression <= COMPRESSION:
        return ""
    return f"the text compresses {found.compression:.1f} times (more than {COMPRESSION:g}): it repeats itself."
