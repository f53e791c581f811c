"""The time axis is one and in seconds; cells, peaks and numbers are those that were given."""

import csv
import io
import json

import numpy as np
import pytest
from tests.report import sample

from otoscope.audio.clip import Clip
from otoscope.report.timeline import TimeMap, time_map


def small(**changes) -> TimeMap:
    values = np.array([[0.1, -0.9, 0.0], [0.2, 0.4, np.nan]])
    base = {
        "values": values,
        "starts": np.array([0.0, 0.1, 0.2]),
        "ends": np.array([0.1, 0.2, 0.3]),
        "rows": ["0", "1"],
    }
    return TimeMap(**{**base, **changes})


def test_spectrogram_and_maps_stand_on_one_axis_in_seconds():
    clip = sample.speech("pad")
    for narrow in (False, True):
        panels = json.loads(
            time_map("m", clip, [sample.effect_map(), sample.effect_map()], until=2.5).inline(narrow)[1]
        )
        assert len(panels) == 3
        assert {(p["left"], p["right"], p["start"], p["end"]) for p in panels} == {
            (panels[0]["left"], panels[0]["right"], 0.0, 2.5)
        }
        tops = [p["top"] for p in panels]
        assert tops == sorted(tops)
        assert all(0 <= p["top"] < p["bottom"] <= 1 for p in panels)


def test_the_axis_ends_with_the_clip_or_the_last_window():
    clip = sample.speech("pad")
    (panel,) = json.loads(time_map("m", clip).inline(False)[1])
    assert panel["end"] == pytest.approx(clip.duration)


def test_peak_is_the_largest_in_size_among_the_significant():
    assert small().peak == (0, 1)
    assert small(significant=np.array([[1, 0, 0], [1, 1, 0]], bool)).peak == (1, 1)
    assert small(significant=np.zeros((2, 3), bool)).peak is None


def test_overlapping_windows_meet_in_the_middle():
    got = small(starts=np.array([0.0, 0.1, 0.2]), ends=np.array([0.2, 0.3, 0.4])).edges()
    np.testing.assert_allclose(got, [0.0, 0.15, 0.25, 0.4])


@pytest.mark.parametrize(
    "changes",
    [{"values": np.zeros((3, 2))}, {"significant": np.zeros((2, 2), bool)}, {"ends": np.array([0.1])}, {"rows": ["0"]}],
)
def test_shapes_that_disagree_are_refused(changes):
    with pytest.raises(ValueError, match=r"rows x|window"):
        small(**changes)


def test_the_csv_has_every_cell_of_every_map():
    two = [small(title="a", low=np.zeros((2, 3))), small(title="b", significant=np.ones((2, 3), bool))]
    rows = list(csv.DictReader(io.StringIO(time_map("m", Clip(np.ones(4800, np.float32), 16000), two).csv())))
    assert len(rows) == 12
    assert rows[1] | {"low": ""} == {
        "row": "0", "start_s": "0.1", "end_s": "0.2", "value": "-0.9", "map": "a", "low": "", "significant": "",
    }  # fmt: skip
    assert (rows[1]["low"], rows[7]["low"]) == ("0", "")
    assert (rows[7]["map"], rows[7]["significant"]) == ("b", "True")
    assert rows[5]["value"] == ""


def test_the_text_alternative_names_the_peak_or_its_absence():
    clip = Clip(np.ones(4800, np.float32), 16000, name="beep")
    assert "largest cell is layer 0, 0.10 to 0.20 s, with -0.90" in time_map("m", clip, small()).alt
    assert "no cell is significant" in time_map("m", clip, small(significant=np.zeros((2, 3), bool))).alt


def test_silence_and_odd_cells_can_be_drawn():
    quiet = Clip(np.zeros(8000, np.float32), 8000)
    odd = small(values=np.full((2, 3), np.nan), unnatural=np.ones((2, 3), bool))
    assert time_map("m", quiet, odd, span=(0.1, 0.2)).svg().startswith("<?xml")
