"""A language model whose weights are written by hand, so that its grounding is known in closed form.

The stream has one direction per sound (S), per context word (C) and per answer (O), and some that mean nothing. Layer
``moves`` attends evenly to all positions, and copies ``listen`` times S and ``guess`` times C into O; every other layer
does nothing. The last token is so much larger than what is copied that the final norm is a constant. With the sound at a
share ``r`` of the audio positions, in units of the same constant,

    m(A, B) = listen * r - guess,    m(B, B) = -listen * r - guess,    m(A, A) = listen * r + guess,

so gc(k) = listen * r / (listen * r + guess) for k <= moves, and nothing to measure after it.
"""

from __future__ import annotations

import numpy as np
import torch
import transformers as tf

from otoscope.engine.model import Model
from otoscope.methods.grounding import Corners
from otoscope.models.language import LanguageAdapter
from otoscope.models.prompt import Asked

N_WORDS, N_NOISE = 4, 6
D = 3 * N_WORDS + N_NOISE + 2
N_AUDIO, N_CONTEXT, N_QUESTION = 5, 2, 3
#: tokens: system, sounds, context words, question, answers, noises
SYSTEM, SOUND, WORD, ASK, ANSWER, NOISE = 0, 1, 1 + N_WORDS, 1 + 2 * N_WORDS, 2 + 2 * N_WORDS, 2 + 3 * N_WORDS
VOCAB = 2 + 3 * N_WORDS + 16
LAYERS = 4


def planted(listen: float = 1.0, guess: float = 0.5, moves: int = 1) -> Model:
    """The model, in float64."""
    config = tf.LlamaConfig(
        vocab_size=VOCAB, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=1, num_key_value_heads=1,
        head_dim=D, intermediate_size=8, max_position_embeddings=64,
    )  # fmt: skip
    hf = tf.LlamaForCausalLM(config).to(torch.float64)
    sounds, words, answers = (slice(i * N_WORDS, (i + 1) * N_WORDS) for i in range(3))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, p in hf.named_parameters():
            p.fill_(1.0) if "norm" in name else p.zero_()
        embed = hf.model.embed_tokens.weight
        embed[SOUND : SOUND + N_WORDS, sounds] = torch.eye(N_WORDS, dtype=torch.float64)
        embed[WORD : WORD + N_WORDS, words] = torch.eye(N_WORDS, dtype=torch.float64)
        embed[SYSTEM, -2] = 1.0
        embed[ASK, -1] = 1e4
        # sounds that say nothing, and differ from one another far more than those that do
        meaningless = rng.standard_normal((VOCAB - NOISE, N_NOISE))
        embed[NOISE:, 3 * N_WORDS : -2] = torch.from_numpy(
            3 * meaningless / np.linalg.norm(meaningless, axis=1)[:, None]
        )
        attention = hf.model.layers[moves].self_attn
        for source, gain in ((sounds, listen / N_AUDIO), (words, guess / N_CONTEXT)):
            attention.v_proj.weight[answers, source] = gain * torch.eye(N_WORDS, dtype=torch.float64)
        attention.o_proj.weight.copy_(torch.eye(D, dtype=torch.float64))
        hf.lm_head.weight[ANSWER : ANSWER + N_WORDS, answers] = 1e4 * torch.eye(N_WORDS, dtype=torch.float64)
    return Model(LanguageAdapter(hf, "planted"))


def asked(model: Model, audio: list[int], context: list[int]) -> Asked:
    """A prompt of one system token, the sound, the context and the question."""
    tokens = [SYSTEM, *audio, *context, *[ASK] * N_QUESTION]
    ends = np.cumsum([1, len(audio), len(context), N_QUESTION])
    spans = {name: tuple(range(a, b)) for name, a, b in zip(("audio", "context", "question"), ends, ends[1:])}
    return Asked(model.inputs(tokens=tokens), {**spans, "answer": (len(tokens) - 1,)}, "")


def share(index: int) -> float:
    """Share of the audio positions that carry the sound of an item."""
    return (3 + index % 3) / N_AUDIO


def item(model: Model, index: int, same_sound: bool = False, noises: bool = False) -> Corners:
    """An item: its labels go round, and so does the share of its audio positions that carry the sound."""
    a, b = index % N_WORDS, (index + 1 + index // N_WORDS % (N_WORDS - 1)) % N_WORDS
    rng = np.random.default_rng(index)
    carrying = round(share(index) * N_AUDIO)

    def sound(word: int) -> list[int]:
        drawn = rng.integers(NOISE, VOCAB, N_AUDIO - carrying).tolist()
        rest = drawn if noises else [SYSTEM] * (N_AUDIO - carrying)
        return [*[SOUND + word] * carrying, *rest]

    sounds = {"a": sound(a), "b": sound(b)}
    if same_sound:
        sounds["b"] = sounds["a"]
    words = {"a": [WORD + a] * N_CONTEXT, "b": [WORD + b] * N_CONTEXT}
    made = {s + c: asked(model, sounds[s], words[c]) for s in "ab" for c in "ab"}
    others = tuple((ANSWER + w,) for w in range(N_WORDS) if w not in (a, b))
    return Corners(**made, audio_label=(ANSWER + a,), text_label=(ANSWER + b,), unit=f"item {index}", others=others)


def items(model: Model, n: int = 12, **options: bool) -> list[Corners]:
    """So many items."""
    return [item(model, i, **options) for i in range(n)]
