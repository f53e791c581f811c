"""Speech synthesis with known word and phone times, and minimal pairs made with it."""

from otoscope.audio.synth.minimal import MinimalPair, minimal_pair
from otoscope.audio.synth.speech import ENGINES, say

__all__ = ["ENGINES", "MinimalPair", "minimal_pair", "say"]
