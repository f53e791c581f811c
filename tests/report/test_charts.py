"""Effects, grids and lenses carry the numbers they were given and refuse what does not fit."""

import csv
import io

import numpy as np
import pytest

from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.lens import Line, lens
from otoscope.stats import Interval

NAN = float("nan")


def rows(drawing) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(drawing.csv())))


def test_effects_list_every_control():
    bar = Bar("mlp", Interval(0.5, 0.4, 0.6, 9), {"random donor": Interval(0.0, -0.1, 0.1, 9)})
    one = effects("e", [bar, Bar("attn", Interval(-0.7, -0.8, -0.6, 9))], label="effect")
    assert [(r["component"], r["kind"], r["value"], r["low"], r["high"], r["n"]) for r in rows(one)] == [
        ("mlp", "effect", "0.5", "0.4", "0.6", "9"),
        ("attn", "effect", "-0.7", "-0.8", "-0.6", "9"),
        ("mlp", "random donor", "0", "-0.1", "0.1", "9"),
    ]
    assert "The largest is attn with -0.70" in one.alt


def test_effects_without_intervals_or_values_are_drawn():
    assert effects(
        "e", [Bar("one pair", Interval(0.3, NAN, NAN, 1)), Bar("none", Interval(NAN, NAN, NAN, 0))], label="x"
    ).pdf()


def test_no_bars_is_refused():
    with pytest.raises(ValueError, match="at least one bar"):
        effects("e", [], label="x")


def test_grid_lists_every_cell():
    one = grid(
        "g", np.array([[0.1, 0.2], [0.3, -0.9]]), ["0", "1"], ["a", "b"], label="effect", significant=np.eye(2) > 0
    )
    assert [(r["layer"], r["head"], r["value"], r["significant"]) for r in rows(one)] == [
        ("0", "a", "0.1", "True"), ("0", "b", "0.2", "False"), ("1", "a", "0.3", "False"), ("1", "b", "-0.9", "True"),
    ]  # fmt: skip
    assert "The largest is layer 1, head b, -0.90" in one.alt


def test_grid_of_nothing_can_be_drawn():
    assert grid("g", np.full((2, 2), NAN), ["0", "1"], ["a", "b"], label="x", significant=np.zeros((2, 2), bool)).svg()


@pytest.mark.parametrize("extra", [{}, {"significant": np.zeros((3, 2), bool)}])
def test_grid_shapes_that_disagree_are_refused(extra):
    with pytest.raises(ValueError, match="rows and"):
        grid("g", np.zeros((2, 2)), ["0", "1"], ["a"] if not extra else ["a", "b"], label="x", **extra)


def test_lens_lists_every_layer_and_line():
    lines = [
        Line("pad", np.array([0.1, 0.9]), "answer", np.array([0.0, 0.8]), np.array([0.2, 1.0])),
        Line("bad", np.array([0.2, 0.0])),
    ]
    got = rows(lens("l", lines, ["embed", "0"]))
    assert [(r["line"], r["layer"], r["value"], r["low"]) for r in got] == [
        ("pad", "embed", "0.1", "0"), ("pad", "0", "0.9", "0.8"), ("bad", "embed", "0.2", ""), ("bad", "0", "0", ""),
    ]  # fmt: skip


def test_rank_lens_can_be_drawn_and_wrong_length_is_refused():
    assert lens("l", [Line("pad", np.array([900.0, 1.0]))], ["0", "1"], scale="rank", label="rank").svg()
    with pytest.raises(ValueError, match="3 values for 2 layers"):
        lens("l", [Line("pad", np.zeros(3))], ["0", "1"])
