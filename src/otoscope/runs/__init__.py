"""Run directories that resume, and Claims whose verdict is computed; knows nothing of audio."""

from otoscope.runs.claim import Claim, Control, Threshold, Verdict
from otoscope.runs.files import csv_text
from otoscope.runs.run import Run, config_hash, versions

__all__ = ["Claim", "Control", "Run", "Threshold", "Verdict", "config_hash", "csv_text", "versions"]
