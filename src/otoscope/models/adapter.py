"""What otoscope must know of a model family. One file per family derives from :class:`Adapter`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError, ModelError
from otoscope.models import attention
from otoscope.models.block import Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.lora import unwrap
from otoscope.models.prompt import Asked
from otoscope.models.site import Site, StackSpec, check
from otoscope.models.taps import Tap


class Adapter(ABC):
    """A loaded model and the knowledge of where its parts are.

    Attributes:
        hf: the transformers model itself, in eval mode; nothing of it is copied. Of a ``peft.PeftModel`` it is the model
            inside, whose LoRA layers stay in force.
        name: the name it was loaded by.
        tokenizer: its tokenizer, or None.
        feature_extractor: what turns samples into features, or None for text models.
        stacks: its stacks by name.
    """

    family: ClassVar[str]
    #: stacks in the order of computing; the last one feeds the head
    order: ClassVar[tuple[str, ...]]
    #: whether sound and text are positions of one decoder: an audio-LLM
    listens_and_reads: ClassVar[bool] = False
    stacks: dict[str, StackSpec]

    def __init__(self, hf: nn.Module, name: str = "", tokenizer: Any = None, feature_extractor: Any = None):
        self.hf: Any = unwrap(hf).eval()
        self.name = name or type(self.hf).__name__
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self._open_attention()
        self.stacks = self._stacks()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.hf.parameters()).dtype

    @property
    def rate(self) -> int:
        """Sampling rate the model listens at, in Hz."""
        return getattr(self.feature_extractor, "sampling_rate", 16000)

    @property
    def n_outputs(self) -> int:
        """Width of the output: tokens of the vocabulary, or the width of the final states of a headless encoder."""
        head = self.hf.get_output_embeddings() if hasattr(self.hf, "get_output_embeddings") else None
        head = head if head is not None else getattr(self.hf, "lm_head", None)
        return head.weight.shape[0] if head is not None else self.hf.config.hidden_size

    # -- structure -------------------------------------------------------------------------------------------------

    def _open_attention(self) -> None:
        """Let the attention show its weights where they are tapped."""
        if hasattr(self.hf, "set_attn_implementation"):
            self.hf.set_attn_implementation(attention.NAME)

    @abstractmethod
    def _stacks(self) -> dict[str, StackSpec]:
        """Describe the stacks, in the order of computing."""

    @abstractmethod
    def tap(self, site: Site) -> Tap:
        """The tap of a whole site (index ignored)."""

    @abstractmethod
    def stack_module(self, stack: str) -> nn.Module:
        """The module whose forward runs a stack; its keyword ``past_key_values`` tells where generation stands."""

    def clock(self, stack: str, n_samples: int, layer: int | None = None) -> FrameClock:
        """Frame time of a stack for a recording of ``n_samples`` at the model's rate.

        Args:
            stack: its name.
            n_samples: length of the recording.
            layer: whose frames; the convolutions of a frontend differ in rate and centre. None for the last layer.

        Raises:
            SiteError: there is no such stack or layer.
            ModelError: the positions of this stack are tokens, not time.
        """
        points = self.stacks[stack].points if stack in self.stacks else ("",)
        check(Site(stack, layer or 0, points[0]), self.stacks, self.name)
        if not self.stacks[stack].frame_rate:
            raise ModelError(
                f"the {stack} of {self.name} has no frame time: its positions are tokens, so name positions=."
            )
        return self._clock(stack, n_samples, self.stacks[stack].n_layers - 1 if layer is None else layer)

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        """The clock of a layer that exists and whose positions are time."""
        raise NotImplementedError

    def frame_rate(self, site: Site) -> float | None:
        """Frames per second at ``site``; None where positions are tokens."""
        if not self.stacks[site.stack].frame_rate:
            return None
        return self.clock(site.stack, self.rate, site.layer).rate

    # -- running ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def features(self, clips: Sequence[Clip]) -> Inputs:
        """The model's input for these sounds (mono, resampled to :attr:`rate`); no tokens yet."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        """Logits at every output position, by the transformers model itself (final states for a headless encoder)."""

    # -- replay: the same computing, enterable anywhere --------------------------------------------------------------

    @abstractmethod
    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        """The layers of a stack as arithmetic steps; an empty list where they are built otherwise.

        Args:
            stack: its name.
            inputs: one item, whose padding the attention of an audio tower must not see; None where nothing is padded.
        """

    @abstractmethod
    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What follows the last layer of a stack: its final norm, or nothing."""

    @abstractmethod
    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        """Logits from the final states, for all tokens or only those in ``vocab``."""

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """What the first decoder layer reads for these tokens.

        Raises:
            ModelError: the model has no decoder.
        """
        raise ModelError(f"{self.name} has no decoder, so it takes no tokens.")

    # -- prompts ---------------------------------------------------------------------------------------------------

    def ask(
        self, clip: Clip | None, question: str = "", context: str = "", answer: str = "", *, system: str | None = None
    ) -> Asked:
        """A question about a sound, after a context in words.

        Raises:
            ModelError: the model cannot be asked.
        """
        raise ModelError(f"{self.name} cannot be asked: expected an audio-LLM or a Whisper.")

    @property
    def _reader(self) -> Any:
        """The tokenizer.

        Raises:
            ModelError: there is none.
        """
        if self.tokenizer is None:
            raise ModelError(f"{self.name} has no tokenizer beside its weights, so it cannot be asked: give tokens.")
        return self.tokenizer

    def label_tokens(self, label: str) -> tuple[int, ...]:
        """Tokens of a label as the answer right after the prompt.

        Raises:
            ModelError: the model cannot be asked.
        """
        raise ModelError(f"{self.name} cannot be asked: expected an audio-LLM or a Whisper.")


def linear_rows(head: nn.Module, x: Tensor, vocab: Tensor | None) -> Tensor:
    """Apply a linear head, or only the rows of its weight that ``vocab`` names."""
    if vocab is None:
        return head(x)
    if type(head) is not nn.Linear:  # a LoRA layer is more than its weight
        return head(x)[..., vocab]
    weight = head.weight[vocab]
    bias = head.bias[vocab] if head.bias is not None else None
    return nn.functional.linear(x, weight, bias)


def check_lengths(sounds: Sequence[np.ndarray], name: str, part: str) -> None:
    """Refuse sounds of unequal length where padding would change the answer.

    Args:
        sounds: samples.
        name: the model.
        part: what of it would hear the padding.

    Raises:
        AudioError: lengths differ.
    """
    lengths = {len(sound) for sound in sounds}
    if len(lengths) > 1:
        raise AudioError(
            f"clips of {min(lengths)} and {max(lengths)} samples cannot share a batch of {name}, whose {part} "
            "would hear the padding: give them one at a time, or of equal length."
        )


def check_rate(clips: Sequence[Clip], rate: int) -> list[Clip]:
    """The clips at the model's rate."""
    return [clip if clip.rate == rate else clip.resample(rate) for clip in clips]
