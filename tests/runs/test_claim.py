"""The verdict follows from interval, threshold and controls, and from nothing else."""

import math

import pytest

from otoscope.errors import RunError
from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval

NAN = float("nan")
AT_LEAST = Threshold(">=", 0.9)


@pytest.mark.parametrize(
    ("threshold", "value", "interval", "verdict"),
    [
        (AT_LEAST, 0.95, (0.91, 0.99), "supported"),
        (AT_LEAST, 0.95, (0.90, 0.99), "supported"),
        (AT_LEAST, 0.95, (0.85, 0.99), "inconclusive"),
        (AT_LEAST, 0.80, (0.70, 0.89), "refuted"),
        (AT_LEAST, 0.80, (0.70, 0.90), "inconclusive"),
        (AT_LEAST, 0.95, None, "supported"),
        (AT_LEAST, 0.85, None, "refuted"),
        (AT_LEAST, None, None, "inconclusive"),
        (AT_LEAST, NAN, (0.91, 0.99), "inconclusive"),
        (AT_LEAST, 0.95, (NAN, NAN), "inconclusive"),
        (Threshold(">", 0.0), 0.1, (0.0, 0.2), "inconclusive"),
        (Threshold("<=", 0.05), 0.02, (0.0, 0.05), "supported"),
        (Threshold("<", 0.05), 0.02, (0.0, 0.05), "inconclusive"),
        (Threshold("<", 0.05), 0.08, (0.05, 0.1), "refuted"),
    ],
)
def test_verdict(threshold, value, interval, verdict):
    assert Claim("c", "it holds", threshold, value, interval).verdict == verdict


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        (Control(0.02, (-0.01, 0.05), Threshold("<", 0.1)), "supported"),
        (Control(0.02, (-0.01, 0.15), Threshold("<", 0.1)), "inconclusive"),
        (Control(0.30, None, Threshold("<", 0.1)), "inconclusive"),
        (Control(NAN, None, Threshold("<", 0.1)), "inconclusive"),
        (Control(0.30), "supported"),
        (Interval(0.3, 0.2, 0.4, 9), "supported"),
        (0.3, "supported"),
    ],
)
def test_a_control_against_its_expectation_takes_the_support_away(control, verdict):
    claim = Claim("c", "it holds", AT_LEAST, 0.95, (0.91, 0.99), controls={"random donor": control})
    assert claim.verdict == verdict
    if verdict == "inconclusive":
        assert "random donor should be < 0.1" in claim.reason


def test_a_good_control_does_not_rescue_a_missed_threshold():
    claim = Claim("c", "", AT_LEAST, 0.5, (0.4, 0.6), controls={"null": Control(0.0, None, Threshold("<", 0.1))})
    assert claim.verdict == "refuted"


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (Claim("c", "", AT_LEAST, 0.95, (0.91, 0.99)), "The whole 95% interval is at or above 0.9."),
        (Claim("c", "", AT_LEAST, 0.95, (0.8, 0.99)), "The 95% interval reaches to both sides of 0.9."),
        (Claim("c", "", AT_LEAST, 0.5), "The value 0.5 is below 0.9."),
        (Claim("c", "", AT_LEAST, None), "Nothing was measured, so nothing can be said."),
    ],
)
def test_reason(claim, reason):
    assert claim.reason == reason


def test_json_round_trip_recomputes_the_verdict():
    claim = Claim.of(
        "planted", "found", AT_LEAST, Interval(0.95, 0.91, 0.99, 60), {"null": Control(0.1, None, Threshold("<", 0.2))}
    )
    data = claim.to_json()
    assert data["verdict"] == "supported"
    assert Claim.from_json(data) == claim
    assert Claim.from_json({**data, "interval": [0.1, 0.2], "verdict": "supported"}).verdict == "refuted"
    assert math.isnan((Claim.from_json({**data, "interval": [None, None]}).interval or (0,))[0])


def test_foreign_json_is_refused_in_one_sentence():
    with pytest.raises(RunError, match="not a claim"):
        Claim.from_json({"id": "x"})


@pytest.mark.parametrize(("op", "bound"), [("==", 1.0), (">=", NAN)])
def test_impossible_thresholds(op, bound):
    with pytest.raises(ValueError, match="threshold"):
        Threshold(op, bound)
