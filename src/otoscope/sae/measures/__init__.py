"""Measures of a dictionary, one file each, on plain arrays: codes ``[frame, feature]``, the recording and the phone of a frame.

Intervals are over recordings. What a measure is worth is itself measured: see ``trust``.
"""
