"""Recordings set against recordings of another label."""

from __future__ import annotations

from collections import Counter

import pytest

from otoscope.errors import TaskError
from otoscope.tasks.opposed import oppose
from otoscope.tasks.recordings import Recording
from tests.tasks.conflict_clips import clip

LABELS = ("yes", "no", "up")


def _recordings(said: dict[str, str], takes: int = 1) -> list[Recording]:
    """Speaker -> the labels it says, as initials."""
    of = {label[0]: label for label in LABELS}
    return [
        Recording(f"{of[letter]}/{speaker}{take}", of[letter], speaker, lambda: clip("x"))
        for speaker, letters in said.items()
        for letter in letters
        for take in range(takes)
    ]


def test_partners_are_of_one_unit_where_there_is_one():
    # a and b say yes and no, c only up, and d up and yes
    found = _recordings({"a": "yn", "b": "yn", "c": "u", "d": "uy"})
    pairs = oppose(found, LABELS, 6, 0, corpus="x")
    of_one = [pair for pair in pairs if pair.clean.unit == pair.corrupt.unit]
    assert len(of_one) >= len(pairs) // 2
    for pair in pairs:
        assert pair.clean.label != pair.corrupt.label
        shared = {r.unit for r in found if r.label == pair.clean.label} & {
            r.unit for r in found if r.label == pair.corrupt.label
        }
        if pair.clean.unit != pair.corrupt.unit:  # only where nobody says both, or all who do have been used for this
            used = {p.clean.unit for p in pairs[: pairs.index(pair)] if p.clean.label == pair.clean.label}
            assert not shared - used


def test_no_unit_is_used_more_than_needed():
    found = _recordings(dict.fromkeys("abcdef", "ynu"))
    pairs = oppose(found, LABELS, 18, 3, corpus="x")
    assert set(Counter(pair.clean.unit for pair in pairs).values()) == {3}
    assert all(pair.clean.unit == pair.corrupt.unit for pair in pairs)
    assert len({pair.clean.name for pair in pairs}) == 18


def test_each_label_is_answer_and_foil_once_a_round():
    found = _recordings(dict.fromkeys("abcd", "ynu"))
    pairs = oppose(found, LABELS, 12, 1, corpus="x")
    for start in range(0, 12, 3):
        now = pairs[start : start + 3]
        assert sorted(p.clean.label for p in now) == sorted(p.corrupt.label for p in now) == sorted(LABELS)


def test_the_draw_does_not_depend_on_the_order_or_number():
    found = _recordings(dict.fromkeys("abcd", "ynu"), takes=2)
    names = [pair.clean.name for pair in oppose(found, LABELS, 12, 1, corpus="x")]
    assert [pair.clean.name for pair in oppose(found[::-1], LABELS, 5, 1, corpus="x")] == names[:5]
    assert [pair.clean.name for pair in oppose(found, LABELS, 12, 2, corpus="x")] != names


def test_labels_without_recordings_are_refused():
    with pytest.raises(TaskError, match="the corpus has no recording of 'up'"):
        oppose(_recordings({"a": "yn"}), LABELS, 3, 0, corpus="the corpus")
    with pytest.raises(TaskError, match="give at least two different ones"):
        oppose(_recordings({"a": "yn"}), ("yes",), 3, 0, corpus="the corpus")
