"""Voxtral: Whisper's encoder over a fixed window, frames stacked by fours, a connector of two layers, a Llama decoder.

Shapes are those of :mod:`otoscope.models.audio_llm`, except that ``connector.0.resid_pre`` is [batch, F/4, 4 d_a]: four
frames side by side, after the tower's last norm. The tower hears the silence after the sound, and all of the window's
F/4 positions (375 in 30 s) are audio positions, whatever the sound's length; the frame clock says which are padding.
"""

from jaxtyping import Float
from torch import Tensor

from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.site import Site
from otoscope.models.taps import Batched, Tap


class VoxtralAdapter(AudioLLMAdapter):
    """Any ``VoxtralForConditionalGeneration``."""

    family = "voxtral"
    pool = 4
    stacked = True
    plain = ("[BEGIN_AUDIO]", "", "\n")

    def tap(self, site: Site) -> Tap:
        """The library lays the stacked frames of all items one after the other."""
        tap = super().tap(site)
        n = self.tower.config.max_source_positions // self.pool
        return Batched(tap, lambda rows: rows // n) if site.stack == "connector" else tap

    def audio_tokens(self, n_samples: int) -> int:
        return self.clock("connector", n_samples).n_frames

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        if stack == "decoder":
            return super().final(stack, x)
        return self.tower.layer_norm(x).unflatten(1, (-1, self.pool)).flatten(2)
