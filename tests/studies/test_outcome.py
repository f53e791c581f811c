"""Claims as a person reads them in the terminal."""

import pytest

from otoscope.runs import Claim
from otoscope.runs.claim import Threshold
from otoscope.stats import Interval
from otoscope.studies.outcome import claim_line


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Interval(0.93751, 0.912, 0.961, 40), "SUPPORTED: it holds (0.938 [0.91, 0.96], bar >= 0.9)"),
        (Interval(0.5, float("nan"), float("nan"), 1), "INCONCLUSIVE: it holds (0.5, bar >= 0.9)"),
        (None, "INCONCLUSIVE: it holds (none, bar >= 0.9)"),
    ],
)
def test_a_claim_is_one_line(value, line):
    assert claim_line(Claim.of("held", "it holds", Threshold(">=", 0.9), value)) == line


def test_formats_and_the_count():
    claim = Claim.of("held", "it holds", Threshold(">=", 0.9), Interval(0.93751, 0.912, 0.961, 40))
    assert claim_line(claim, ".2f", ".3f", count=True).endswith("(0.94 [0.912, 0.961], bar >= 0.9, n=40)")
