"""Geometry of rows that are made to be antipodal, double, clustered or random."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.sae.measures.geometry import geometry, neighbours


def test_orthogonal_rows_are_alone() -> None:
    found = geometry(np.eye(6), classes=np.array([0, 0, 0, 1, 1, 1]))
    assert found == (0, 0, 0, 0)


def test_antipodal_and_double_rows_are_counted() -> None:
    rows = np.concatenate([np.eye(8), -np.eye(8)[:2], 3 * np.eye(8)[2:3]])
    found = geometry(rows)
    assert found.antipodal == pytest.approx(4 / 11)
    assert found.duplicates == pytest.approx(2 / 11)
    assert geometry(rows, chosen=np.arange(11) < 8).antipodal == 0


def test_classes_that_share_a_direction_cluster_and_random_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 3
    shared = rng.standard_normal((3, 200))[classes]
    assert geometry(shared + rng.standard_normal((60, 200)), classes=classes).clustering == pytest.approx(0.5, abs=0.05)
    assert abs(geometry(rng.standard_normal((60, 200)), classes=classes).clustering) < 0.02


def test_neighbours_are_nearest_first() -> None:
    rows = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [-1, 0]])
    order, cosines = neighbours(rows, 2)
    assert order[0].tolist() == [1, 2]
    assert cosines[0, 0] > cosines[0, 1]
    assert order[3, -1] != 3


def test_one_row_says_nothing() -> None:
    assert np.isnan(geometry(np.ones((1, 4))).nearest)
