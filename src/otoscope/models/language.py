"""Decoder-only language models built like Llama: Llama, SmolLM2, Mistral, Qwen2, Qwen3, Granite.

One stack, ``decoder``; its points and shapes are those of :mod:`otoscope.models.llama_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models.adapter import Adapter, linear_rows
from otoscope.models.block import Block
from otoscope.models.inputs import Inputs
from otoscope.models.llama_layers import LlamaLayers
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import Tap


class LanguageAdapter(Adapter):
    """Any ``...ForCausalLM`` whose layers have Llama's parts.

    Raises:
        ModelError: the layers are built otherwise.
    """

    family = "language"
    order = ("decoder",)

    def _stacks(self) -> dict[str, StackSpec]:
        self.layers = LlamaLayers(self.hf.model, self.hf.config, f"{self.name} is a {type(self.hf).__name__}")
        return {"decoder": self.layers.spec}

    def tap(self, site: Site) -> Tap:
        return self.layers.tap(site)

    def stack_module(self, stack: str) -> nn.Module:
        return self.hf.model

    def features(self, clips: Sequence[Clip]) -> Inputs:
        raise ModelError(f"{self.name} is a language model and takes text, not sound: give tokens or text.")

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        return self.hf(input_ids=inputs.tokens, use_cache=False).logits

    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        return self.layers.blocks()

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return self.layers.final(x)

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        logits, divisor = linear_rows(self.hf.lm_head, x, vocab), getattr(self.hf.config, "logits_scaling", 1.0)
        return logits if divisor == 1.0 else logits / divisor

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return self.layers.enter(self.layers.embed(tokens))
