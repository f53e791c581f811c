"""Audio-LLMs: an audio tower, a connector, and a language model that reads the connected frames among its tokens.

Stacks: ``frontend`` (convolutions), ``encoder`` (the tower, open), ``connector`` (frames to the width of the language
model), ``decoder`` (the language model; positions are text tokens and, where the placeholder stands, audio). Points of
``encoder`` and ``decoder`` are those of Whisper's encoder and of Llama's layers. Shapes, for a tower of width d_a with F
frames, pooled to N = F/2 audio positions, and a language model of width d with T positions: ``encoder.*.resid_*``
[batch, F, d_a], ``connector.0.resid_pre`` [batch, N, d_a], ``connector.0.resid_post`` [batch, N, d],
``decoder.*.resid_*`` [batch, T, d]. Families differ in what is said in their own files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError, ModelError, TaskError
from otoscope.models import prompt
from otoscope.models.adapter import Adapter, check_rate, linear_rows
from otoscope.models.block import Bias, Block
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.llama_layers import LlamaLayers
from otoscope.models.prompt import Asked
from otoscope.models.site import Site, StackSpec
from otoscope.models.taps import InputTap, OutputTap, Tap
from otoscope.models.whisper_layers import WhisperLayers, frontend, frontend_tap, mel_clock


class AudioLLMAdapter(Adapter):
    """Base of the audio-LLMs whose tower is built like Whisper's encoder and pools its frames by twos.

    Attributes:
        processor: the family's own processor, which writes the prompts, or None.
    """

    order = ("frontend", "encoder", "connector", "decoder")
    listens_and_reads = True
    #: the forward's argument that says which mel frames are real; None where the tower hears its padding
    mask_argument: ClassVar[str | None] = None
    #: a prompt without chat template: before and after the placeholder, and at the end
    plain: ClassVar[tuple[str, str, str]] = ("", "", "\n")
    #: frames of the tower that become one audio position: averaged, or stacked side by side
    pool: ClassVar[int] = 2
    stacked: ClassVar[bool] = False

    def __init__(
        self, hf: nn.Module, name: str = "", tokenizer: Any = None, feature_extractor: Any = None, processor: Any = None
    ):
        self.processor = processor
        super().__init__(hf, name, tokenizer, feature_extractor)

    # -- where the parts are -----------------------------------------------------------------------------------------

    @property
    def inner(self) -> Any:
        """The model under the language-model head: tower, connector, language model."""
        return self.hf.model

    @property
    def tower(self) -> Any:
        """The audio tower."""
        return self.inner.audio_tower

    @property
    def projector(self) -> Any:
        """What takes the tower's frames to the language model's width."""
        return self.inner.multi_modal_projector

    @property
    def trunk(self) -> Any:
        """The language model without its head."""
        return self.inner.language_model

    @property
    def audio_token(self) -> int:
        """The token whose embedding is replaced by a frame of sound."""
        return self.hf.config.audio_token_id

    def _stacks(self) -> dict[str, StackSpec]:
        self.audio = self._tower_layers(self.rate / self._hop / 2)
        self.text = LlamaLayers(
            self.trunk, self.hf.config.get_text_config(), f"{self.name} is a {type(self.hf).__name__}"
        )
        encoder = self.audio.spec
        connector = StackSpec(
            "connector", 1, self.text.spec.d_model, 0, 0, 0, False, ("resid_pre", "resid_post"),
            self.rate / self._hop / 2 / self.pool, d_in=encoder.d_model * (self.pool if self.stacked else 1),
        )  # fmt: skip
        return {"frontend": frontend(encoder), "encoder": encoder, "connector": connector, "decoder": self.text.spec}

    def _tower_layers(self, frame_rate: float) -> WhisperLayers | LlamaLayers:
        return WhisperLayers(self.tower, "encoder", frame_rate)

    @property
    def _hop(self) -> int:
        return getattr(self.feature_extractor, "hop_length", 160)

    @property
    def _n_mel(self) -> int:
        """Mel frames of the window that the tower computes, whatever the sound's length."""
        return 2 * self.tower.config.max_source_positions

    def tap(self, site: Site) -> Tap:
        if site.stack == "decoder":
            return self.text.tap(site)
        if site.stack == "connector":
            return InputTap(self.projector) if site.point == "resid_pre" else OutputTap(self.projector)
        return frontend_tap(self.tower, site.layer) if site.stack == "frontend" else self.audio.tap(site)

    def stack_module(self, stack: str) -> nn.Module:
        return {"decoder": self.trunk, "connector": self.projector}.get(stack, self.tower)

    def _clock(self, stack: str, n_samples: int, layer: int) -> FrameClock:
        """Layers of the tower have half the rate of the mel frames; a pooled frame lies amid those that it averages."""
        clock = mel_clock(n_samples, self.rate, self._hop, self._n_mel, 1 if (stack, layer) == ("frontend", 0) else 2)
        if stack != "connector":
            return clock
        first = (self.pool - 1) / 2 / clock.rate
        return FrameClock(clock.rate / self.pool, first, clock.n_frames // self.pool, clock.n_valid // self.pool)

    def audio_tokens(self, n_samples: int) -> int:
        """How many audio positions, and so placeholders, a sound of ``n_samples`` takes: those that are not padding."""
        return self.clock("connector", n_samples).n_valid

    # -- running -----------------------------------------------------------------------------------------------------

    def features(self, clips: Sequence[Clip]) -> Inputs:
        """Log-mel spectrograms over the whole window.

        Raises:
            AudioError: a clip is longer than the window, or too short for one audio position.
        """
        clips = check_rate(clips, self.rate)
        sounds = [np.asarray(clip.samples) for clip in clips]
        self._check_window(clips, 2 * self.pool * self._hop / self.rate, self._n_mel * self._hop / self.rate)
        # a configuration may declare a shorter window than the extractor's
        mel, mask = (t[..., : self._n_mel] for t in self._mel(sounds))
        return Inputs(mel, mask if self.mask_argument else None, n_samples=tuple(len(s) for s in sounds))

    def _check_window(self, clips: Sequence[Clip], shortest: float, longest: float) -> None:
        for clip in clips:
            if not shortest <= clip.duration <= longest:
                raise AudioError(
                    f"{clip.name or 'the clip'} lasts {clip.duration:.3f} s and {self.name} hears from {shortest:g} to "
                    f"{longest:g} s at once: pad it with silence, or cut it."
                )

    def _mel(
        self, sounds: Sequence[np.ndarray], max_length: int | None = None
    ) -> tuple[Float[Tensor, "batch mel time"], Int[Tensor, "batch time"]]:
        """Log-mel spectrograms padded with silence to ``max_length`` samples (None: the extractor's window), and the mask."""
        made = self.feature_extractor(
            sounds, sampling_rate=self.rate, padding="max_length", max_length=max_length, return_attention_mask=True,
            return_tensors="pt",
        )  # fmt: skip
        return made.input_features.to(self.device, self.dtype), made.attention_mask.to(self.device)

    def arguments(self, inputs: Inputs) -> dict[str, Tensor]:
        """What the transformers model is called with, in a forward and in generation.

        Raises:
            ModelError: there are no tokens.
            TaskError: the placeholders among the tokens are not as many as the sound has audio positions.
        """
        tokens = inputs.tokens
        if tokens is None:
            raise ModelError(f"{self.name} answers a question about a sound: give text= or tokens=, or use ask().")
        found = (tokens == self.audio_token).sum(1).tolist()
        expected = [self.audio_tokens(n) for n in inputs.n_samples] or [0] * len(found)
        if found != expected:
            raise TaskError(
                f"the tokens hold {found[0]} audio placeholders where the sound has {expected[0]} positions in "
                f"{self.name}: write them with ask(), or repeat token {self.audio_token} as often."
            )
        given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **inputs.extra}
        if inputs.features is None:
            return given
        mask = {self.mask_argument: inputs.feature_mask} if self.mask_argument else {}
        return {**given, "input_features": inputs.features, **mask}  # type: ignore[dict-item]

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch pos vocab"]:
        return self.hf(**self.arguments(inputs), use_cache=False).logits

    # -- replay ------------------------------------------------------------------------------------------------------

    def blocks(self, stack: str, inputs: Inputs | None = None) -> list[Block]:
        if stack == "decoder":
            return self.text.blocks()
        if stack != "encoder":
            return []
        return (
            self.audio.blocks(self._padding(inputs)) if isinstance(self.audio, WhisperLayers) else self.audio.blocks()
        )

    def _padding(self, inputs: Inputs | None) -> Bias | None:
        """Hides the frames after the sound from the tower's attention, as the library's mask does."""
        if inputs is None or inputs.feature_mask is None:
            return None
        n_valid = (int(inputs.feature_mask[0].sum()) - 1) // 2 + 1

        def bias(h: Tensor, positions: Tensor, n_keys: int) -> Float[Tensor, "1 1 1 key"]:
            return h.new_zeros(1, 1, 1, n_keys).index_fill(
                3, torch.arange(n_valid, n_keys, device=h.device), -torch.inf
            )

        return bias

    def final(self, stack: str, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """The decoder's norm; the tower's pooling and norm, which give what the connector reads."""
        if stack == "decoder":
            return self.text.final(x)
        return self.tower.layer_norm(self.tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2))

    def connect(self, frames: Float[Tensor, "row audio d_audio"]) -> Float[Tensor, "row audio d_model"]:
        """``connector.0.resid_post`` from its ``resid_pre``."""
        return self.projector(frames)

    def unembed(
        self, x: Float[Tensor, "row pos d_model"], vocab: Int[Tensor, " vocab"] | None = None
    ) -> Float[Tensor, "row pos vocab"]:
        return linear_rows(self.hf.lm_head, x, vocab)

    def embed(
        self, tokens: Int[Tensor, "batch pos"], audio: Float[Tensor, "batch audio d_model"] | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the first decoder layer reads; ``audio`` (connected frames) stands where the placeholders are."""
        here = tokens == self.audio_token
        x = self.text.embed(tokens.masked_fill(here, 0))  # a placeholder may lie outside the vocabulary
        if audio is not None:
            x = torch.stack([row.masked_scatter(at[:, None], a) for row, at, a in zip(x, here, audio.to(x))])
        return self.text.enter(x)

    # -- prompts -----------------------------------------------------------------------------------------------------

    def ask(
        self, clip: Clip | None, question: str = "", context: str = "", answer: str = "", *, system: str | None = None
    ) -> Asked:
        """A question about a sound, with what was said before it.

        Args:
            clip: the sound; None asks without any.
            question: what is asked, the last that the user says.
            context: words before it, after the sound.
            answer: the model's answer, to be scored.
            system: instructions before all; None for the template's own.

        Raises:
            ModelError: there is no tokenizer, or the template leaves a part out.
        """
        context, question = context.strip(), question.strip()
        made = self.features([clip]) if clip is not None else Inputs()
        n_audio = self.audio_tokens(made.n_samples[0]) if clip is not None else 0
        tokens, offsets, text = self._prompted(clip, prompt.words(context, question), n_audio, system)
        found = prompt.groups(offsets, prompt.spans(text, context, question))
        given = self.label_tokens(answer) if answer else ()
        last = len(tokens) - 1
        found["audio"] = tuple(i for i, token in enumerate(tokens) if token == self.audio_token)
        found["answer"] = tuple(range(last, last + max(1, len(given))))
        return Asked(made.with_tokens([*tokens, *given]), found, text + answer)

    def _prompted(
        self, clip: Clip | None, body: str, n_audio: int, system: str | None
    ) -> tuple[list[int], list[tuple[int, int]], str]:
        """Tokens of the prompt, the characters of each, and the prompt as text."""
        written = self._written(body, clip is not None, system)
        text = written.replace(self._sign, self.expanded(self._sign, n_audio)) if clip is not None else written
        tokens, offsets = prompt.encode(self._reader, text)
        if clip is not None:
            self._compare(clip, written, tokens)
        return tokens, offsets, text

    def label_tokens(self, label: str) -> tuple[int, ...]:
        """Tokens of a label as the answer right after the prompt."""
        return prompt.continuation(self._reader, self._written("?", False, None), label)

    @property
    def _sign(self) -> str:
        """The placeholder as text."""
        return self._reader.convert_ids_to_tokens(self.audio_token)

    def expanded(self, sign: str, n_audio: int) -> str:
        """What a processor makes of the placeholder: one for each audio position."""
        return sign * n_audio

    def _written(self, body: str, sound: bool, system: str | None) -> str:
        """The prompt as the template writes it, with one placeholder for the whole sound."""
        reader = self._reader
        template = getattr(self.processor, "chat_template", None) or getattr(reader, "chat_template", None)
        parts = {"body": body} | ({"audio": self._sign} if sound else {}) | ({"system": system} if system else {})
        if self._sign in body:
            raise ModelError(f"the context or question holds {self._sign}, which stands for the sound: leave it out.")
        before, after, end = self.plain
        return prompt.render(template, reader, parts, (self._known(before), self._known(after), end))

    def _known(self, mark: str) -> str:
        """A special token that the tokenizer has, or nothing."""
        found = self._reader.convert_tokens_to_ids(mark) if mark else None
        return "" if found is None or found == self._reader.unk_token_id else mark

    def _compare(self, clip: Clip, written: str, tokens: list[int]) -> None:
        """Have the family's own processor make the tokens too, so that we never use others than it would."""
        theirs = self._processed(clip, written)
        if theirs is not None and theirs != tokens:
            raise ModelError(
                f"the processor of {self.name} makes {len(theirs)} tokens of this prompt, which are not the "
                f"{len(tokens)} of its tokenizer: the two do not belong together; fetch the model again."
            )

    def _processed(self, clip: Clip, written: str) -> list[int] | None:
        """The tokens that the family's own processor makes of the prompt; None without one."""
        if self.processor is None:
            return None
        sound = np.asarray(check_rate([clip], self.rate)[0].samples)
        made = self.processor(text=[written], audio=[sound], sampling_rate=self.rate, return_tensors="pt")
        return made.input_ids[0].tolist()
