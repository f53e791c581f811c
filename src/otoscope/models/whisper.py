"""Whisper: a convolutional frontend, a bidirectional encoder over 30 s, a causal decoder that attends to it.

Shapes for a model of width d with H heads, a 30-s window of F = 1500 frames (50 per second) and T tokens:
``frontend.0.conv_out`` [batch, 2F, d], ``frontend.1.conv_out`` [batch, F, d], ``encoder.*.resid_*`` [batch, F, d],
``decoder.*.resid_*`` [batch, T, d], ``*.z`` [batch, F or T, H, d/H], ``decoder.*.cross_pattern`` [batch, H, T, F],
``*.mlp_post`` [batch, F or T, 4d].
``resid_mid`` of the decoder is the stream after cross-attention, before the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models.adapter import Adapter, check_rate, linear_rows
from otoscope.models.block import Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.prompt import Asked
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import Tap
from otoscope.models.whisper_layers import WhisperLayers, frontend, mel_clock


class WhisperAdapter(Adapter):
    """Any ``WhisperForConditionalGeneration``."""

    family = "whisper"
    order = ("frontend", "encoder", "decoder")

    def _stacks(self) -> dict[str, StackSpec]:
        encoder = WhisperLayers(self.hf.model.encoder, "encoder", self.rate / self._hop / 2)
        decoder = WhisperLayers(self.hf.model.decoder, "decoder")
        self.layers = {"frontend": encoder, "encoder": encoder, "decoder": decoder}
        return {"frontend": frontend(encoder.spec), "encoder": encoder.spec, "decoder": decoder.spec}

    @property
    def _hop(self) -> int:
        return getattr(self.feature_extractor, "hop_length", 160)

    def tap(self, site: Site) -> Tap:
        return self.layers[site.stack].tap(site)

    def stack_module(self, stack: str) -> nn.Module:
        return self.hf.model.decoder if stack == "decoder" else self.hf.model.encoder

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        stride = 1 if (stack, layer) == ("frontend", 0) else 2
        return mel_clock(n_samples, self.rate, self._hop, 2 * self.hf.config.max_source_positions, stride)

    def features(self, clips: Sequence[Clip]) -> Inputs:
        clips = check_rate(clips, self.rate)
        sounds = [np.asarray(clip.samples) for clip in clips]
        mel = self.feature_extractor(sounds, sampling_rate=self.rate, return_tensors="pt").input_features
        # a configuration may declare a shorter window than the extractor's 30 s
        mel = mel[..., : 2 * self.hf.config.max_source_positions]
        return Inputs(mel.to(self.device, self.dtype), n_samples=tuple(len(s) for s in sounds))

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        tokens = inputs.tokens
        if tokens is None:
            tokens = torch.full((inputs.batch, 1), self.hf.config.decoder_start_token_id, device=self.device)
        return self.hf(input_features=inputs.features, decoder_input_ids=tokens, use_cache=False).logits

    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        return self.layers[stack].blocks()

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return getattr(self.hf.model, stack).layer_norm(x)

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        return linear_rows(self.hf.proj_out, x, vocab)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        decoder = self.hf.model.decoder
        return decoder.embed_tokens(tokens) + decoder.embed_positions.weight[: tokens.shape[1]]

    # -- prompts -----------------------------------------------------------------------------------------------------

    def prompt(self, language: str = "en") -> list[int]:
        """The tokens Whisper starts from: start of transcript, language and task if multilingual, no timestamps."""
        g = self.hf.generation_config
        start = [self.hf.config.decoder_start_token_id]
        if getattr(g, "is_multilingual", False):
            start += [g.lang_to_id[f"<|{language}|>"], g.task_to_id["transcribe"]]
        no_timestamps = getattr(g, "no_timestamps_token_id", None)
        return start if no_timestamps is None else [*start, no_timestamps]

    def ask(
        self, clip: Clip | None, question: str = "", context: str = "", answer: str = "", *, system: str | None = None
    ) -> Asked:
        """A sound with a text before it: ``<|startofprev|> context <|startoftranscript|> ...``, as Whisper was trained.

        Groups: ``context`` are the previous text's tokens, ``question`` those of the prompt after it but the last,
        ``answer`` the last one (and those of an answer); ``audio`` is empty, since the decoder attends to the sound.

        Args:
            clip: the sound.
            question: must be empty, since Whisper does nothing but transcribe.
            context: the preceding text; empty for none.
            answer: a transcript to be scored.
            system: must be None.

        Raises:
            ModelError: there is no sound or no tokenizer, something is asked, or the context is too long.
        """
        if clip is None or question or system:
            raise ModelError(
                f"{self.name} only transcribes: give it a sound and perhaps a context, but no question and no instructions."
            )
        before = self._previous(context.strip()) if context.strip() else []
        tokens, given = [*before, *self.prompt()], self.label_tokens(answer) if answer else ()
        last, most = len(tokens) - 1, self.hf.config.max_target_positions
        if len(tokens) + len(given) > most:
            raise ModelError(
                f"{len(tokens) + len(given)} tokens are more than the {most} that {self.name} reads: shorten the context."
            )
        found = {
            "audio": (),
            "context": tuple(range(1, len(before))),
            "question": tuple(range(len(before), last)),
            "answer": tuple(range(last, last + max(1, len(given)))),
        }
        inputs = self.features([clip]).with_tokens([*tokens, *given])
        return Asked(inputs, found, self._reader.decode([*tokens, *given]))

    def _previous(self, text: str) -> list[int]:
        """The tokens of a preceding text."""
        mark = self._reader.convert_tokens_to_ids("<|startofprev|>")
        if mark is None or mark == self._reader.unk_token_id:
            raise ModelError(f"{self.name} knows no preceding text: its tokenizer lacks <|startofprev|>.")
        return [mark, *self.label_tokens(text)]

    def preceding(self, inputs: Inputs) -> Int[Tensor, " previous"]:
        """The tokens of the preceding text that the first item has, its mark included; none where it has no such text."""
        tokens = inputs.tokens[0] if inputs.tokens is not None else torch.zeros(0, dtype=torch.long)
        starts = (tokens == self.hf.config.decoder_start_token_id).nonzero().flatten()
        return tokens[: int(starts[0])] if len(starts) else tokens[:0]

    def label_tokens(self, label: str) -> tuple[int, ...]:
        """Tokens of a label right after the prompt, where Whisper writes a space before every word."""
        return tuple(self._reader(" " + label.strip(), add_special_tokens=False).input_ids)
