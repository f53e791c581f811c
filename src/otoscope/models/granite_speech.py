"""Granite Speech: a Conformer with blocks of local attention, a windowed Q-Former as connector, a Granite decoder.

Shapes for a tower of width d_a, F frames (50 per second) and N = 3 ceil(F/15) audio positions: ``frontend.0.conv_out``
[batch, F, d_a] (two stacked mel frames, projected), ``encoder.*.resid_*`` [batch, F, d_a], ``encoder.*.z`` [batch, F, H,
d_head], ``encoder.*.mlp_post`` [batch, F, d_mlp], ``connector.0.resid_post`` [batch, N, d].

A Conformer layer is feed-forward, attention, convolution, feed-forward, norm. Of these, ``attn_out`` and ``z`` are the
attention's, ``mlp_post`` and ``mlp_out`` those of the second feed-forward, half of which is added; ``resid_post`` is what
the next layer reads, the middle layer's feedback from its own CTC head included. The connector has no ``resid_pre``: it
reads the tower's end, on other positions than it writes. Each window of 15 frames (0.3 s) gives three positions, which
all see the whole window; their times are thirds of it. The tower hears padding, so sounds of a batch must be of equal
length. Where the checkpoint has a LoRA, it is in force when there is a sound, as in the library's ``generate``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.models import attention
from otoscope.models.adapter import check_lengths, check_rate
from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.block import Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.llama_layers import LlamaLayers
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, Tap

#: the family's spectrogram, in samples at 16 kHz
_HOP, _WINDOW, _FFT = 160, 400, 512


class GraniteSpeechAdapter(AudioLLMAdapter):
    """Any ``GraniteSpeechForConditionalGeneration``; its spectrogram is computed here, because the library's needs torchaudio."""

    family = "granite_speech"

    @property
    def tower(self) -> Any:
        return self.inner.encoder

    @property
    def projector(self) -> nn.Module:
        return self.inner.projector

    def _open_attention(self) -> None:
        self.trunk.set_attn_implementation(attention.NAME)  # the tower has an attention of its own

    def _stacks(self) -> dict[str, StackSpec]:
        self.text = LlamaLayers(self.trunk, self.hf.config.text_config, f"{self.name} is a {type(self.hf).__name__}")
        c, rate = self.tower.config, self.rate / _HOP / 2
        points = ("resid_pre", "z", "attn_out", "mlp_post", "mlp_out", "resid_post")
        wide = c.hidden_dim * c.feedforward_mult
        encoder = StackSpec("encoder", c.num_layers, c.hidden_dim, c.num_heads, c.dim_head, wide, False, points, rate)
        out = rate * self._per_window / self._frames
        connector = StackSpec("connector", 1, self.text.spec.d_model, 0, 0, 0, False, ("resid_post",), out)
        frontend = StackSpec("frontend", 1, c.hidden_dim, 0, 0, 0, False, ("conv_out",), rate)
        return {"frontend": frontend, "encoder": encoder, "connector": connector, "decoder": self.text.spec}

    @property
    def _frames(self) -> int:
        """Frames of the tower in one window of the connector."""
        return self.hf.config.window_size

    @property
    def _per_window(self) -> int:
        return self._frames // self.hf.config.downsample_rate

    def tap(self, site: Site) -> Tap:
        if site.stack == "decoder":
            return self.text.tap(site)
        if site.stack == "connector":
            return OutputTap(self.projector)
        if site.stack == "frontend":
            return OutputTap(self.tower.input_linear)
        layers = self.tower.layers
        layer = layers[site.layer]
        match site.point:
            case "resid_pre":
                return InputTap(layer)
            case "z":
                return InputTap(layer.attn.to_out, self.stacks["encoder"].n_heads)
            case "attn_out":
                return OutputTap(layer.attn)
            case "mlp_post":
                return InputTap(layer.ff2.down_proj)
            case "mlp_out":
                return OutputTap(layer.ff2)
            case _:  # the middle layer's output is changed in place before the next one reads it
                last = site.layer + 1 == len(layers)
                return OutputTap(layer) if last else InputTap(layers[site.layer + 1])

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        """A frame lies between its two mel frames."""
        rate, n = self.rate / _HOP / 2, (n_samples // _HOP + 1) // 2
        clock = FrameClock(rate, 0.5 * _HOP / self.rate, n, n)
        if stack != "connector":
            return clock
        each = self._per_window
        out, windows = rate * each / self._frames, math.ceil(n / self._frames)
        return FrameClock(out, 0.5 / out, windows * each, min(windows * each, math.ceil(n / rate * out)))

    def audio_tokens(self, n_samples: int) -> int:
        return self.clock("connector", n_samples).n_frames

    def features(self, clips: Sequence[Clip]) -> Inputs:
        """Log-mel spectrograms, two frames stacked: ``[batch, F, 2 mel]``.

        Raises:
            AudioError: a clip is too short, or lengths differ.
        """
        clips = check_rate(clips, self.rate)
        sounds = [np.asarray(clip.samples) for clip in clips]
        check_lengths(sounds, self.name, "tower")
        self._check_window(clips, (_FFT // 2 + 1) / self.rate, math.inf)
        mel = _log_mel(torch.from_numpy(np.stack(sounds)), self.tower.config.input_dim // 2)
        return Inputs(mel.to(self.device, self.dtype), n_samples=tuple(len(s) for s in sounds))

    def arguments(self, inputs: Inputs) -> dict[str, Tensor]:
        if getattr(self.hf, "_hf_peft_config_loaded", False):
            (self.hf.disable_adapters if inputs.features is None else self.hf.enable_adapters)()
        return super().arguments(inputs)

    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        return self.text.blocks() if stack == "decoder" else []

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return self.text.final(x) if stack == "decoder" else x


@cache
def _filters(n_mel: int) -> Float[Tensor, "freq mel"]:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(_FFT // 2 + 1, n_mel, 0.0, 8000.0, 16000, norm=None, mel_scale="htk")
    return torch.from_numpy(bank).float()


def _log_mel(sounds: Float[Tensor, "batch time"], n_mel: int) -> Float[Tensor, "batch frame stacked"]:
    """The spectrogram that Granite Speech was trained on: torchaudio's default mel scale, 80 dB below the loudest."""
    spectrum = torch.stft(
        sounds.float(), _FFT, _HOP, _WINDOW, torch.hann_window(_WINDOW), center=True, return_complex=True
    )
    mel = (spectrum.abs() ** 2).transpose(1, 2) @ _filters(n_mel)
    log = mel.clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) / 4 + 1
    return log[:, : log.shape[1] // 2 * 2].reshape(len(sounds), -1, 2 * n_mel)
