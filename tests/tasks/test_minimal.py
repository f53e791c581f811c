"""Spoken pairs for patching."""

import pytest

from otoscope.tasks.minimal import spoken_pair


def test_a_spoken_pair_differs_from_where_its_span_begins():
    pytest.importorskip("espeakng_loader", reason='needs pip install "otoscope[speech]"')
    pair = spoken_pair("please say bad again", "please say pad again", join=True)
    difference = pair.difference()
    assert difference is not None
    assert difference[0] == pair.span[0]
    assert pair.span[0] > 0.3
    assert (pair.clean_text, pair.corrupt_text) == ("please say bad again", "please say pad again")
