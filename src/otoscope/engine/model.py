"""The object a user holds: a loaded model that can be run, traced, changed and swept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from otoscope.audio.clip import Clip
from otoscope.engine.capture import Cache, Output, capture
from otoscope.engine.intervene import Intervention, intervening
from otoscope.engine.sweep import SweepResult, sweep
from otoscope.errors import ModelError
from otoscope.models.adapter import Adapter
from otoscope.models.audio_llm import AudioLLMAdapter
from otoscope.models.clock import FrameClock
from otoscope.models.inputs import Inputs
from otoscope.models.load import load_adapter
from otoscope.models.prompt import Asked
from otoscope.models.quiet import quiet
from otoscope.models.site import Site, StackSpec, expand
from otoscope.models.transcribe import suppressed_tokens


class Model:
    """A model that listens (or reads), with names for its inside.

    Build one with :func:`load`, or around a transformers model that is already in memory through its family's adapter.
    """

    def __init__(self, adapter: Adapter):
        self.adapter = adapter

    def __repr__(self) -> str:
        inside = ", ".join(f"{s.name} {s.n_layers}x{s.d_model}" for s in self.stacks.values())
        return f"Model({self.name!r}, {self.family}: {inside})"

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.adapter.name

    @property
    def family(self) -> str:
        """``whisper``, ``wav2vec2``, ``hubert``, ``wavlm``, ``language``, or an audio-LLM's such as ``qwen2_audio``."""
        return self.adapter.family

    @property
    def listens_and_reads(self) -> bool:
        """Whether sound and text are positions of one decoder: an audio-LLM."""
        return self.adapter.listens_and_reads

    @property
    def hf(self) -> Any:
        """The transformers model itself."""
        return self.adapter.hf

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, or None."""
        return self.adapter.tokenizer

    @property
    def feature_extractor(self) -> Any:
        """What turns samples into its input, or None."""
        return self.adapter.feature_extractor

    @property
    def stacks(self) -> dict[str, StackSpec]:
        """Its stacks by name, in the order of computing."""
        return self.adapter.stacks

    def sites(self, pattern: str = "*") -> list[Site]:
        """Sites that a pattern names, in the order of computing.

        Raises:
            SiteError: it names none.
        """
        return expand(pattern, self.stacks, self.name)

    def clock(self, stack: str, n_samples: int, layer: int | None = None) -> FrameClock:
        """Frame time of a stack for a recording of ``n_samples`` at the model's rate, after ``layer`` (None: the last).

        Raises:
            SiteError: there is no such stack or layer.
            ModelError: the positions of this stack are tokens, not time.
        """
        return self.adapter.clock(stack, n_samples, layer)

    def weights_hash(self) -> str:
        """SHA-256 over names, shapes and bytes of all weights (first 16 hex digits)."""
        h = hashlib.sha256()
        for name, tensor in sorted(self.hf.state_dict().items()):
            h.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            h.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return h.hexdigest()[:16]

    # -- running ---------------------------------------------------------------------------------------------------

    def inputs(
        self,
        clips: Clip | Sequence[Clip] | None = None,
        *,
        text: str | None = None,
        tokens: Sequence[int] | Int[Tensor, "batch pos"] | None = None,
    ) -> Inputs:
        """Make the model's inputs.

        Args:
            clips: one sound or several.
            text: for Whisper, what the decoder has already written after its prompt; for a language model, the text; for
                an audio-LLM, the question about each of the clips.
            tokens: the decoder tokens instead, prompt included.

        Raises:
            ModelError: sound for a model that takes none, or text for one that takes none.
        """
        if isinstance(clips, Clip):
            clips = [clips]
        if self.listens_and_reads and text is not None and tokens is None:
            return Inputs.stack([self.ask(clip, text).inputs for clip in clips or [None]])
        made = self.adapter.features(clips) if clips else Inputs()
        if tokens is None and self.tokenizer is not None and (text is not None or self.family == "whisper"):
            tokens = self.encode(text or "")
        if tokens is None:
            return made
        if "decoder" not in self.stacks:
            raise ModelError(f"{self.name} has no decoder, so it takes no text and no tokens.")
        return made.with_tokens(tokens if isinstance(tokens, Tensor) else list(tokens))

    def ask(
        self, clip: Clip | None, question: str = "", context: str = "", answer: str = "", *, system: str | None = None
    ) -> Asked:
        """One question about a sound, and which decoder positions hold its audio, context, question and answer.

        Args:
            clip: the sound; None for a run without any (audio-LLMs).
            question: what is asked (nothing, for Whisper, which only transcribes).
            context: words before it: after the sound in an audio-LLM, the preceding text in Whisper.
            answer: an answer to be scored after the prompt.
            system: instructions before all (audio-LLMs); None for the template's own.

        Raises:
            ModelError: the model cannot be asked, or has no tokenizer.
        """
        return self.adapter.ask(clip, question, context, answer, system=system)

    def label_tokens(self, label: str) -> tuple[int, ...]:
        """Tokens of a label as the answer right after the prompt of :meth:`ask`."""
        return self.adapter.label_tokens(label)

    def encode(self, text: str) -> list[int]:
        """Decoder tokens of a text, with Whisper's prompt before it."""
        if self.tokenizer is None:
            raise ModelError(f"{self.name} has no tokenizer beside its weights: give tokens instead of text.")
        if self.family != "whisper":
            return list(self.tokenizer(text).input_ids)
        spaced = text if not text or text.startswith(" ") else " " + text
        return [*self.prompt(), *self.tokenizer(spaced, add_special_tokens=False).input_ids]

    def prompt(self) -> list[int]:
        """Tokens the decoder starts from (empty for a language model)."""
        return self.adapter.prompt() if hasattr(self.adapter, "prompt") else []  # type: ignore[attr-defined]

    def run(
        self,
        inputs: Inputs,
        interventions: Sequence[Intervention] = (),
        capture_sites: str | Site | Iterable[str | Site] = (),
        *,
        grad: bool = False,
    ) -> Output:
        """One forward with ``interventions`` in force; logits, and the values at ``capture_sites``."""
        return capture(self.adapter, inputs, capture_sites, interventions, grad=grad)

    def capture(self, inputs: Inputs, sites: str | Site | Iterable[str | Site]) -> Cache:
        """One plain forward; the values at ``sites`` (names, patterns such as ``encoder.*.resid_post``, or several)."""
        return capture(self.adapter, inputs, sites).cache

    def intervene(self, *interventions: Intervention, inputs: Inputs | None = None) -> AbstractContextManager[None]:
        """Keep interventions in force inside a ``with`` block, for every forward and for ``generate``.

        ``inputs`` is needed only where a window is given in seconds.
        """
        return intervening(self.adapter, inputs, interventions)

    def sweep(
        self, base: Inputs, donor: Inputs | Sequence[Inputs], patches: Any, metrics: Any, **options: Any
    ) -> SweepResult:
        """Many patches of one pair of runs, exactly and fast: see :func:`otoscope.engine.sweep.sweep`."""
        return sweep(self, base, donor, patches, metrics, **options)

    @torch.no_grad()
    def generate(
        self, inputs: Inputs, interventions: Sequence[Intervention] = (), *, max_new_tokens: int = 128, **options: Any
    ) -> list[list[int]]:
        """Greedy decoding with ``interventions`` in force at every step; token ids per item, specials removed by nobody.

        Language models and audio-LLMs give the prompt's tokens and the new ones, Whisper its text alone.

        Options go to transformers' ``generate``. Whisper writes no timestamps unless ``return_timestamps`` asks for them.
        """
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": max_new_tokens, **options}
        with quiet(), intervening(self.adapter, inputs, interventions):
            if self.family == "whisper":
                if not options.get("return_timestamps"):
                    options.setdefault("suppress_tokens", suppressed_tokens(self.hf))
                if len(before := self.adapter.preceding(inputs)):  # type: ignore[attr-defined]
                    options.setdefault("prompt_ids", before)
                out = self.hf.generate(input_features=inputs.features, **options)
            elif isinstance(self.adapter, AudioLLMAdapter):
                out = self.hf.generate(**self.adapter.arguments(inputs), **options)
            elif self.family == "language":
                mask = torch.ones_like(inputs.tokens)  # type: ignore[arg-type]
                out = self.hf.generate(input_ids=inputs.tokens, attention_mask=mask, **options)
            else:
                raise ModelError(f"{self.name} does not generate: transcribe with it, or read its logits.")
        return [list(map(int, row)) for row in out]


def load(
    name_or_path: str,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    device_map: Any = None,
    adapter: str | Path | None = None,
) -> Model:
    """Load a model: see :func:`otoscope.models.load.load_adapter` for the arguments and errors."""
    return Model(
        load_adapter(
            name_or_path, device=device, dtype=dtype, revision=revision, offline=offline, progress=progress,
            device_map=device_map, adapter=adapter,
        )
    )  # fmt: skip
