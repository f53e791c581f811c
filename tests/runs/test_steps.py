"""Steps come back as they were stored, without pickles, and a damaged one counts as missing."""

import numpy as np
import pytest

from otoscope.runs import steps


def test_plain_values_are_json_and_exact(tmp_path):
    value = {"a": [1, 0.1 + 0.2, None, True, "é"], "n": float("nan"), "i": float("inf")}
    got = steps.save(tmp_path / "s", value)
    assert (tmp_path / "s.json").is_file()
    assert got["a"] == value["a"]
    assert np.isnan(got["n"])
    assert got["i"] == float("inf")


def test_arrays_keep_dtype_and_shape(tmp_path):
    value = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "deep": [{"y": np.array([True, False])}], "k": 3}
    got = steps.save(tmp_path / "s", value)
    found, again = steps.load(tmp_path / "s")
    assert found
    for tree in (got, again):
        assert tree["x"].dtype == np.float32
        np.testing.assert_array_equal(tree["x"], value["x"])
        np.testing.assert_array_equal(tree["deep"][0]["y"], [True, False])
        assert tree["k"] == 3


def test_same_value_same_bytes():
    value = {"x": np.linspace(0, 1, 50), "name": "q"}
    assert steps.encode(value) == steps.encode(value)


def test_fresh_and_resumed_results_are_alike(tmp_path):
    fresh = steps.save(tmp_path / "s", (1, (2, 3)))
    assert fresh == [1, [2, 3]] == steps.load(tmp_path / "s")[1]


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1: "a"}, {"__array__": 0}, {1, 2}])
def test_live_objects_are_refused(value):
    with pytest.raises(TypeError, match="a step returned"):
        steps.encode(value)


@pytest.mark.parametrize("value", [{"a": 1}, {"a": np.ones(300)}])
def test_a_damaged_step_counts_as_missing(tmp_path, value):
    steps.save(tmp_path / "s", value)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    assert steps.load(tmp_path / "s") == (False, None)
    assert not path.exists()


def test_a_pickle_in_a_step_is_not_opened(tmp_path):
    np.savez(tmp_path / "s.npz", tree=np.array([{"evil": 1}], dtype=object))
    assert steps.load(tmp_path / "s") == (False, None)
