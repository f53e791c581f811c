"""Heard wrong, or guessed: one error's evidence weighed.

Two questions are asked of it (:mod:`otoscope.methods.error_evidence` has the quantities):

    is the sound to blame?  the encoder's states in the span are not nearer to the reference's words than to what was
                            written, and those of a clean rendering would speak for the reference: putting them there
                            moves the margin by ``support(clean) - support(actual)``
    is the text to blame?   the sound in the span speaks for the reference as a clean rendering does, and yet something
                            else was written; or the word is right both without the text before and with a neutral one,
                            which also shows that the sound was good enough; clearly right with one of them: the text
                            adds to it

A sound that speaks against the reference's words is to blame whatever a rendering does; where neither the sound nor a
rendering says much for them, the words that the states are nearer to decide. Two words that sound alike cannot be told apart by
any sound: the text is to blame. One yes is the verdict, two are *mixed*, none is *undetermined*. The form of the rule and its
thresholds were chosen on planted errors of one half of the speakers (:mod:`otoscope.studies.explain_planted`), and everything
that is reported is of the other half.
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
        against: a sound whose support is below minus this (nats) speaks against the reference's words.
    """

    mended: float = 0.0
    share: float = 0.5
    place: float = 0.5
    speaks: float = 1.0
    against: float = 3.0


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


def judge(evidence: Evidence, rule: Rule = RULE, same_letters: bool = False, alike: bool = False) -> Verdict:
    """Weigh the evidence of one error.

    Args:
        evidence: of the error, or of a word that was written rightly against its strongest rival.
        rule: the thresholds.
        same_letters: both sides differ by spaces and hyphens only, so they sound alike.
        alike: both sides have the same phones.
    """
    e = evidence
    if e.margin < rule.mended:
        return Verdict("no error", f"the model prefers '{e.said_text}' to '{e.written_text}' by {-e.margin:.1f} nats.")
    if same_letters:
        return Verdict("undetermined", "both spellings sound alike, so neither the sound nor the text before decides.")
    freed = _freed(e, rule)
    if alike and not freed:
        reason = "what was said and what was written sound alike, so only what the model expects tells them apart."
        return Verdict("guessed", reason, False, True, _quality(e))
    good = _good_sound(e, rule)
    # where the word is right without the text, whatever stands in its place, the sound was good enough
    sound = False if freed else None if good is None else not good
    text = True if freed or _adds(e, rule) else good
    return Verdict(_NAMES[(sound, text)], _reason(e, sound, freed, rule), sound, text, _quality(e))


def settled(evidence: Evidence, rule: Rule = RULE) -> bool:
    """Whether the verdict on evidence that is still being gathered hangs on nothing more.

    Args:
        evidence: in which the arms that were not measured yet are empty.
        rule: the thresholds.
    """
    if evidence.margin < rule.mended or _freed(evidence, rule):
        return True
    return bool(evidence.none) and not _says_it(evidence, rule) and not _silent(evidence, rule)


_NAMES: dict[tuple[bool | None, bool | None], VerdictName] = {
    (True, True): "mixed", (True, False): "heard wrong", (False, True): "guessed", (False, False): "undetermined",
    (None, True): "guessed", (None, False): "undetermined", (None, None): "undetermined",
}  # fmt: skip


def _elsewise(e: Evidence) -> list[float]:
    """The margin without the text before, and with a neutral one; empty where no text stands before."""
    return [m for m in (e.without_context, e.neutral_context) if m is not None]


def _freed(e: Evidence, rule: Rule) -> bool:
    """Whether the word is right without the text before and with a neutral one."""
    return bool(others := _elsewise(e)) and max(others) < rule.mended


def _adds(e: Evidence, rule: Rule) -> bool:
    """Whether the word is right, by more than nothing, without the text before or with a neutral one."""
    return any(m < rule.mended - rule.speaks for m in _elsewise(e))


def _says_it(e: Evidence, rule: Rule) -> bool:
    """Whether the sound in the span supports the reference's words about as a rendering of them does."""
    return e.support >= rule.speaks and e.clean_support >= rule.speaks and e.support >= rule.share * e.clean_support


def _silent(e: Evidence, rule: Rule) -> bool:
    """Whether neither the sound nor a rendering says much for or against the reference's words."""
    return -rule.against < e.support < rule.speaks and not e.clean_support >= rule.speaks


def _good_sound(e: Evidence, rule: Rule) -> bool | None:
    """Whether the sound in the span says the reference's words; None where nothing tells."""
    if e.support <= -rule.against:
        return False
    if _silent(e, rule):
        return True if e.place >= rule.place else False if e.place <= 0 else None
    if e.support < rule.speaks:
        return False
    if math.isnan(e.clean_support) or e.clean_support < rule.speaks:
        return True
    return _says_it(e, rule) and (math.isnan(e.place) or e.place >= rule.place)


def _quality(e: Evidence) -> float:
    return e.support / e.clean_support if e.clean_support > 0 else float("nan")


def _reason(e: Evidence, sound: bool | None, freed: bool, rule: Rule) -> str:
    said, written = f"'{e.said_text}'", f"'{e.written_text}'"
    if freed:
        without = mean(_elsewise(e))
        return f"the text before makes {written} preferred by {e.margin:.1f} nats; without it {said} is, by {-without:.1f}."
    numbers = f"the sound in the span speaks for {said} with {e.support:.1f} nats, a clean rendering with {e.clean_support:.1f}"
    if _adds(e, rule):
        right = e.without_context is not None and e.without_context < rule.mended
        other = "without it" if right else "with a neutral one"
        return f"{numbers}; the text before adds to it, for {other} the word is right."
    if _silent(e, rule):
        near = f"the states are nearer to {written if sound else said} (place {e.place:.2f})"
        return (
            f"{numbers}; {near}."
            if sound is not None
            else f"{numbers}: no voice could make the model hear {said} here."
        )
    if sound:
        return f"{numbers}, so {written} is in what the encoder heard."
    return f"{numbers}, and yet {written} is preferred by {e.margin:.1f} nats."
