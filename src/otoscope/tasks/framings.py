"""Framings: ways in which the text around a sound can name a label, each in several wordings.

A wording has a slot for the ``{topic}`` ("the word") and one for the ``{label}``. It is filled once for the agreeing and
once for the conflicting context of an item, so that the two differ in the label and in nothing else.
"""

from __future__ import annotations

from otoscope.errors import TaskError

#: name of a framing -> its wordings
FRAMINGS: dict[str, tuple[str, ...]] = {
    "caption": (
        'The caption says {topic} is "{label}".',
        'According to the caption, {topic} is "{label}".',
        'The recording is captioned with {topic} "{label}".',
    ),
    "hint": (
        'Hint: {topic} is "{label}".',
        'Here is a hint: {topic} is probably "{label}".',
        'As a hint, {topic} might be "{label}".',
    ),
    "speaker": (
        'An earlier speaker said {topic} is "{label}".',
        'Somebody who listened before claimed that {topic} is "{label}".',
        'The last person who was asked answered that {topic} is "{label}".',
    ),
    "transcript": (
        'The transcript says {topic} is "{label}".',
        'In the transcript, {topic} is given as "{label}".',
        'An automatic transcript has {topic} as "{label}".',
    ),
}
#: what a wording calls the thing that the question asks for, where nothing more specific is known
TOPIC = "the answer"


def wordings(framing: str) -> tuple[str, ...]:
    """Wordings of a framing: a name in :data:`FRAMINGS`, or a wording of your own with the slot ``{label}``.

    Raises:
        TaskError: it is neither, or a wording of your own does not have the slot exactly once.
    """
    if framing in FRAMINGS:
        return FRAMINGS[framing]
    if framing.count("{label}") != 1:
        raise TaskError(
            f"'{framing}' is no framing: expected one of {', '.join(FRAMINGS)}, or a sentence of your own with the slot "
            "{label} once."
        )
    return (framing,)


def render(framing: str, label: str, *, wording: int = 0, topic: str = TOPIC) -> str:
    """The sentence that says ``label`` in a framing.

    Args:
        framing: a name in :data:`FRAMINGS`, or a wording of your own with the slot ``{label}``.
        label: what it says; put in as it is, so braces in it mean nothing.
        wording: which of the framing's wordings, counted round where there are fewer.
        topic: what the label is a value of, such as "the word", "the sound" or "the speaker".

    Raises:
        TaskError: the framing is unknown, or its own wording lacks the slot.
    """
    chosen = wordings(framing)
    return chosen[wording % len(chosen)].replace("{topic}", topic).replace("{label}", label)
