"""Figures over the time of a sound, charts with intervals and controls, and one self-contained report.html."""
