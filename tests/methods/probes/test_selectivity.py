"""Control tasks: random features show why they are needed, planted labels are selective, absent ones are not."""

import numpy as np

from otoscope.methods.probes import control_labels, held_out, selectivity, shuffled_labels
from tests.methods.probes.synthetic import balanced, linear, noise, rows, speakers

#: 40 words, each said 15 times by 15 speakers; half of the words are of either class
WORDS = np.resize([f"w{i:02d}" for i in range(40)], 600)
SPEAKERS = speakers(15, 40)
CLASS = np.where([int(w[1:]) % 2 for w in WORDS], "b", "a")


def test_random_features_of_the_words_solve_the_task_and_the_control_alike():
    """High-dimensional random features let any labels be memorised: accurate, but not selective."""
    codes = noise(40, 200)[np.unique(WORDS, return_inverse=True)[1]] + 0.2 * noise(600, 200, 1)
    found = selectivity(codes, rows(CLASS, SPEAKERS, WORDS), seeds=(0, 1), folds=3)
    assert found.task.accuracy().value > 0.95
    assert found.control.accuracy().value > 0.95
    assert abs(found.interval().value) < 0.05


def test_planted_direction_is_selective():
    found = selectivity(linear(CLASS, 8), rows(CLASS, SPEAKERS, WORDS), seeds=(0, 1), folds=3)
    assert found.task.accuracy().value > 0.9
    assert found.interval().low > 0.25


def test_absent_label_has_no_selectivity():
    found = selectivity(noise(600, 8), rows(CLASS, SPEAKERS, WORDS), seeds=(0, 1, 2), folds=3).interval()
    assert found.low < 0.0
    assert abs(found.value) < 0.05


def test_control_gives_every_type_one_label_and_shuffling_moves_whole_groups():
    control = control_labels(CLASS, WORDS, 0)
    assert all(len(set(control[word == WORDS])) == 1 for word in set(WORDS))
    assert (control != CLASS).any()
    assert (control == "a").sum() == (CLASS == "a").sum()
    y = np.repeat(np.resize(["a", "b"], 15), 40)
    shuffled = shuffled_labels(y, SPEAKERS, 1)
    assert all(len(set(shuffled[name == SPEAKERS])) == 1 for name in set(SPEAKERS))
    assert sorted(shuffled) == sorted(y)
    assert (shuffled != y).any()


def test_types_that_never_cross_groups_are_tested_on_known_speakers():
    """With new speakers alone, a random label per speaker could not be right more often than chance."""
    y = np.repeat(np.resize(["a", "b"], 15), 40)
    voices = noise(15, 100)[np.unique(SPEAKERS, return_inverse=True)[1]] + 0.2 * noise(600, 100, 1)
    known = rows(y, SPEAKERS)
    assert known.types_are_groups
    found = selectivity(voices, known, seeds=(0,), folds=3)
    assert found.control.accuracy().value > 0.95
    assert found.task.accuracy().value > 0.95
    new = held_out(voices, control_labels(y, SPEAKERS, 0), SPEAKERS, SPEAKERS, seeds=(0,), folds=3).accuracy()
    assert new.low < 0.6


def test_only_rows_of_known_types_are_scored():
    y = balanced(600)
    found = held_out(noise(600, 4), y, SPEAKERS, SPEAKERS, seeds=(0,), known=SPEAKERS)
    assert np.isnan(found.right).all()
