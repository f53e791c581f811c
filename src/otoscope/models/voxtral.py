"""Voxtral: Whisper's encoder over a fixed window, frames stacked by fours, a connector of two layers, a Llama decoder.

Shapes are those of :mod:`otoscope.models.audio_llm`, except that ``connector.0.resid_pre`` is [batch, F/4, 4 d_a]: four
frames side by side, after the tower's last norm. The tower hears the silence after the sound, and all of the window's
F/4 positions (375 in 30 s) are audio positions, whatever the sound's length; the frame clock says which are padding.

The published checkpoints have Mistral's own tokenizer, read by the package ``mistral-common``. It has no template: it
writes the prompt's tokens itself, and takes the sound for that as a file.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import soundfile
from jaxtyping import Float
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models import prompt
from otoscope.models.adapter import check_rate
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

    @property
    def _mistral(self) -> bool:
        return type(self._reader).__name__ == "MistralCommonBackend"

    def _prompted(
        self, clip: Clip | None, body: str, n_audio: int, system: str | None
    ) -> tuple[list[int], list[tuple[int, int]], str]:
        if not self._mistral:
            return super()._prompted(clip, body, n_audio, system)
        content: list[dict[str, Any]] = [{"type": "text", "text": body}]
        if clip is not None:
            content.insert(0, {"type": "audio", "base64": _as_file(check_rate([clip], self.rate)[0])})
        turns = [{"role": "system", "content": system}] if system else []
        try:
            tokens = list(
                self._reader.apply_chat_template([*turns, {"role": "user", "content": content}], return_dict=False)
            )
        except Exception as error:  # mistral-common checks prompts by rules that differ between its versions
            raise ModelError(f"mistral-common refuses this prompt for {self.name}: {error}") from error
        return tokens, prompt.spelled(self._reader, tokens), self._reader.decode(tokens)

    def label_tokens(self, label: str) -> tuple[int, ...]:
        if self._mistral:  # the prompt ends in a special token, with which nothing merges
            return tuple(self._reader(label, add_special_tokens=False)["input_ids"])
        return super().label_tokens(label)


def _as_file(clip: Clip) -> str:
    """The sound as a wav file in base64."""
    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()
