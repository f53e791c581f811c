"""A scatter carries its numbers and refuses what it cannot draw."""

import csv
import io

import pytest

from otoscope.report.scatter import Point, scatter
from otoscope.stats import Interval

NAN = float("nan")
POINTS = [
    Point("first", "a", Interval(1.0, 0.5, 1.5, 9), Interval(0.2, 0.1, 0.4, 9), named=True),
    Point("second", "b", Interval(2.0, NAN, NAN, 1), Interval(0.7, 0.1, 0.9, 9)),
]


def test_every_point_is_in_the_table_and_only_named_ones_in_the_figure():
    one = scatter("s", POINTS, x_label="distance", y_label="share", mark=1.0, mark_label="border")
    rows = list(csv.DictReader(io.StringIO(one.csv())))
    assert [(r["group"], r["role"], r["x_value"], r["y_low"]) for r in rows] == [
        ("first", "a", "1", "0.1"), ("second", "b", "2", "0.1"),
    ]  # fmt: skip
    assert "The highest is second (0.70)" in one.alt
    assert one.pdf()
    assert one.svg() == scatter("s", POINTS, x_label="distance", y_label="share", mark=1.0, mark_label="border").svg()


def test_no_points_or_too_many_roles_are_refused():
    with pytest.raises(ValueError, match="not 0 of 0"):
        scatter("s", [], x_label="x", y_label="y")
    many = [Point(str(i), str(i), Interval(1.0, NAN, NAN, 1), Interval(1.0, NAN, NAN, 1)) for i in range(4)]
    with pytest.raises(ValueError, match="not 4 of 4"):
        scatter("s", many, x_label="x", y_label="y")
