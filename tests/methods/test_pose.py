"""An item is posed where the model tells its two sounds apart, and passed over where it does not."""

from __future__ import annotations

import pytest

from otoscope.errors import TaskError
from otoscope.methods.pose import pose, pose_all
from otoscope.tasks.pair import Pair
from otoscope.tasks.task import Card, Task, TaskItem
from tests.tiny import build, sound


def item(model, answer: str, foil: str) -> TaskItem:
    return TaskItem(Pair(sound(1), sound(2), (0.0, 0.25), "other"), answer, foil, "Which?")


def test_an_audio_llm_must_prefer_answer_and_foil(monkeypatch):
    model = build("qwen2_audio")
    asked = [model.ask(clip, "Which?").inputs for clip in (sound(1), sound(2))]
    best = [int(model.run(inputs).logits[0, -1].argmax()) for inputs in asked]
    if best[0] == best[1]:
        # this random model prefers one token whatever it hears, so no item of it can be posed
        monkeypatch.setattr(model.adapter, "label_tokens", lambda label: (best[0] if label == "a" else best[0] + 1,))
        assert pose(model, item(model, "a", "b")) is None
        return
    monkeypatch.setattr(model.adapter, "label_tokens", lambda label: (best[0] if label == "a" else best[1],))
    posed = pose(model, item(model, "a", "b"))
    assert posed is not None
    assert (posed.metric.answer, posed.metric.foil) == tuple(best)
    assert pose(model, item(model, "b", "a")) is None
    card = Card("s", "word", "made", "none", "here", "none")
    with pytest.raises(TaskError, match="hears none"):
        pose_all(model, Task("t", 1, 0, (item(model, "b", "a"),), card))


def test_answers_that_begin_alike_cannot_be_told_apart(monkeypatch):
    model = build("qwen2_audio")
    monkeypatch.setattr(model.adapter, "label_tokens", lambda label: (7, len(label)))
    assert pose(model, item(model, "a", "bc")) is None


@pytest.mark.weights
def test_whisper_is_posed_where_its_transcripts_part(whisper_tiny_en):
    import otoscope
    from otoscope.tasks.minimal import spoken_pair

    model = otoscope.load(str(whisper_tiny_en))
    one = TaskItem(spoken_pair("please say nine again", "please say five again"), "nine", "five")
    posed = pose(model, one)
    assert posed is not None
    pair = [model.run(inputs).logits[0, posed.metric.position] for inputs in (posed.clean, posed.corrupt)]
    assert pair[0][posed.metric.answer] > pair[0][posed.metric.foil]
    assert pair[1][posed.metric.answer] < pair[1][posed.metric.foil]
    assert pose(model, one, options=("nine", "five")) is None  # it does not write the label alone
