"""Heard wrong, or guessed: one error's evidence weighed.

Two questions are asked of it (:mod:`otoscope.methods.error_evidence` has the quantities):

    is the sound to blame?  the encoder's states in the span are not nearer to the reference's words than to what was
                            written, and those of a clean rendering would speak for the reference: putting them there
                            moves the margin by ``support(clean) - support(actual)``
    is the text to blame?   the sound in the span speaks for the reference as a clean rendering does, and yet something
                            else was written; or the word is right without the text before, or with a neutral one

One yes is the verdict, two are *mixed*, none is *undetermined*; where the word is right both without the text and with a
neutral one, the sound was good enough. The thresholds were chosen on planted errors of one half
of the speakers (:mod:`otoscope.studies.explain_planted`), and everything that is reported is of the other half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from otoscope.methods.error_evidence import Evidence, mean

VerdictName = Literal["heard wrong", "guessed", "mixed", "undetermined", "no error"]


@dataclass(frozen=True)
class Rule:
    """The thresholds.

    Attributes:
        mended: a margin below this (nats) counts as mended.
        share: the sound is good where it gives at least this share of a clean rendering's support.
        place: and where the states stand at least this far towards the reference's rendering.
        speaks: a support of less than this (nats) says nothing.
    """

    mended: float = 0.0
    share: float = 0.7
    place: float = 0.5
    speaks: float = 1.0


#: chosen on the development half of the planted errors
RULE = Rule()


@dataclass(frozen=True)
class Verdict:
    """What an error comes from.

    Attributes:
        name: ``heard wrong``, ``guessed``, ``mixed``, ``undetermined``, or ``no error``.
        reason: one sentence with the numbers that decide.
        sound, text: whether either is to blame; None where the evidence is silent.
        quality: how good the sound in the span is: 0 as if the reference's words were not there, 1 as a clean rendering.
    """

    name: VerdictName
    reason: str
    sound: bool | None = None
    text: bool | None = None
    quality: float = float("nan")


def judge(evidence: Evidence, rule: Rule = RULE, same_letters: bool = False) -> Verdict:
    """Weigh the evidence of one error.

    Args:
        evidence: of the error, or of a word that was written rightly against its strongest rival.
        rule: the thresholds.
        same_letters: both sides differ by spaces and hyphens only, so they sound alike.
    """
    e = evidence
    if e.margin < rule.mended:
        return Verdict("no error", f"the model prefers '{e.said_text}' to '{e.written_text}' by {-e.margin:.1f} nats.")
    if same_letters:
        return Verdict("undetermined", "both spellings sound alike, so neither the sound nor the text before decides.")
    freed = _freed(e, rule)
    good = _good_sound(e, rule)
    # where the word is right without the text, whatever stands in its place, the sound was good enough
    sound = False if freed and all(freed) else None if good is None else not good
    text = True if any(freed) else good
    return Verdict(_NAMES[(sound, text)], _reason(e, sound, text, freed), sound, text, _quality(e))


def settled(evidence: Evidence, rule: Rule = RULE) -> bool:
    """Whether the verdict on evidence that is still being gathered hangs on nothing more.

    Args:
        evidence: in which the arms that were not measured yet are empty.
        rule: the thresholds.
    """
    if evidence.margin < rule.mended:
        return True
    freed = _freed(evidence, rule)
    if freed and all(freed):
        return True
    return bool(evidence.none) and not _says_it(evidence, rule)


_NAMES: dict[tuple[bool | None, bool | None], VerdictName] = {
    (True, True): "mixed", (True, False): "heard wrong", (False, True): "guessed", (False, False): "undetermined",
    (None, True): "guessed", (None, False): "undetermined", (None, None): "undetermined",
}  # fmt: skip


def _freed(e: Evidence, rule: Rule) -> list[bool]:
    """Whether the word is right without the text before, and with a neutral one; empty where no text stands before."""
    return [m < rule.mended for m in (e.without_context, e.neutral_context) if m is not None]


def _says_it(e: Evidence, rule: Rule) -> bool:
    """Whether the sound in the span supports the reference's words about as a rendering of them does."""
    return e.support >= rule.speaks and e.clean_support >= rule.speaks and e.support >= rule.share * e.clean_support


def _good_sound(e: Evidence, rule: Rule) -> bool | None:
    """Whether the sound in the span says the reference's words; None where no rendering says them either."""
    if e.support < rule.speaks:
        return False if e.clean_support >= rule.speaks else None
    if math.isnan(e.clean_support) or e.clean_support < rule.speaks:
        return True
    return _says_it(e, rule) and (math.isnan(e.place) or e.place >= rule.place)


def _quality(e: Evidence) -> float:
    return e.support / e.clean_support if e.clean_support > 0 else float("nan")


def _reason(e: Evidence, sound: bool | None, text: bool | None, freed: list[bool]) -> str:
    said, written = f"'{e.said_text}'", f"'{e.written_text}'"
    if freed and all(freed):
        without = mean([m for m in (e.without_context, e.neutral_context) if m is not None])
        return f"the text before makes {written} preferred by {e.margin:.1f} nats; without it {said} is, by {-without:.1f}."
    numbers = f"the sound in the span speaks for {said} with {e.support:.1f} nats, a clean rendering with {e.clean_support:.1f}"
    if any(freed):
        other = "without it" if freed[0] else "with a neutral one"
        return f"{numbers}; the text before adds to it, for {other} the word is right."
    if sound is None:
        return f"{numbers}: no voice could make the model hear {said} here."
    if sound:
        return f"{numbers}, so {written} is in what the encoder heard."
    return f"{numbers}, and yet {written} is preferred by {e.margin:.1f} nats."
