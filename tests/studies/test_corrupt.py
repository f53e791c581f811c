"""Settings of a corruption as a person writes them."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import describe
from otoscope.audio.files import write
from otoscope.errors import AudioError
from otoscope.studies.corrupt import parameters


def _with(kind: str) -> tuple[str, str]:
    """A corruption and a parameter of it, of the given type."""
    return next((row["name"], name) for row in describe() for name, p in row["params"].items() if p["type"] == kind)


def test_values_get_the_type_that_is_declared():
    kind, name = _with("float")
    assert parameters(kind, [f"{name}=-2.5"]) == {name: -2.5}
    kind, name = _with("int")
    value = parameters(kind, [f"{name}=3"])[name]
    assert value == 3
    assert isinstance(value, int)
    assert parameters("silence", []) == {}


def test_a_path_stands_for_a_sound(tmp_path):
    kind, name = _with("clip")
    path = write(tmp_path / "a=b.wav", Clip(np.full(400, 0.25, np.float32), 16000))
    clip = parameters(kind, [f"{name}={path}"])[name]
    assert np.array_equal(clip.samples, np.full(400, 0.25, np.float32))
    with pytest.raises(AudioError, match="There is no file"):
        parameters(kind, [f"{name}={tmp_path / 'no.wav'}"])


def test_what_is_no_setting_is_refused():
    with pytest.raises(
        AudioError, match=r"'snr_db' is no setting of white_noise: expected NAME=VALUE with one of .*snr_db"
    ):
        parameters("white_noise", ["snr_db"])
    with pytest.raises(AudioError, match="'loud=1' is no setting of white_noise"):
        parameters("white_noise", ["loud=1"])
    with pytest.raises(AudioError, match="snr_db=x does not fit white_noise: expected a number"):
        parameters("white_noise", ["snr_db=x"])
    kind, name = _with("int")
    with pytest.raises(AudioError, match="expected a whole number"):
        parameters(kind, [f"{name}=1.5"])
