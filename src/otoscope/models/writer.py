"""A Whisper decoder that attends to one sound and keeps what it has read: many questions about one sound cost little.

The keys and values of the sound, and those of the longest beginning that two questions share, are computed once. Greedy
decoding may be given a draft of the text: one pass reads the whole draft, as many of its tokens as greedy decoding would
have written are kept, and the first other token is the decoder's own (speculative decoding at temperature 0; Leviathan et
al. 2023, section 2.3). What is written is the same as without a draft; only the number of passes differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.models.transcribe import suppressed_tokens

#: tokens of a draft that are read at once after it was left
_CHUNK = 8
#: how far ahead in a draft the written token is looked for
_AHEAD = 6


class Writer:
    """The decoder of a Whisper in front of one sound.

    The model's own weights are used as they are at each call; where they, or interventions, change anything before the
    unembedding, what was read before is no longer true, and a new writer is needed.

    Args:
        hf: the transformers model.
        states: the encoder's output ``[1, frame, d_model]``.
    """

    def __init__(self, hf: Any, states: Float[Tensor, "1 frame d_model"]) -> None:
        self.hf, self.states = hf, states
        self._read: list[int] = []
        self._final = states.new_zeros((0, states.shape[-1]))
        self._cache: Any = None

    @torch.no_grad()
    def logits(self, tokens: Sequence[int], start: int = 0) -> Float[Tensor, "pos vocab"]:
        """Logits after each of ``tokens`` (prompt included) from position ``start`` on."""
        return self.hf.proj_out(self.final_states(tokens)[start:]).float()

    @torch.no_grad()
    def write(self, prompt: Sequence[int], draft: Sequence[int] = (), most: int | None = None) -> list[int]:
        """Greedy text tokens after ``prompt``, without the end; suppressed tokens as transformers' ``generate``.

        Args:
            prompt: tokens that come first.
            draft: text tokens that are likely to be written.
            most: tokens at most; by default as many as the decoder has room for.
        """
        room = int(self.hf.config.max_target_positions) - len(prompt)
        longest = room if most is None else min(most, room)
        end = int(self.hf.generation_config.eos_token_id)
        text: list[int] = []
        ahead, chunk = [*draft, end], len(draft) + 1
        while len(text) < longest:
            offered = ahead[: min(chunk, longest - len(text))]
            at = len(prompt) + len(text) - 1
            # the last token offered is only checked, not read
            rows = self.logits([*prompt, *text, *offered[:-1]], at)
            best = self._barred(rows, not text).argmax(-1).tolist()
            same = next((i for i, (a, b) in enumerate(zip(best, offered)) if a != b), len(offered))
            own = best[: same + 1]
            text += own[: own.index(end)] if end in own else own
            if end in own:
                break
            chunk = 2 * chunk if same == len(offered) else _CHUNK
            ahead = ahead[same:]
            # the draft goes on behind the written token, where it has it
            if same < len(offered) and own[-1] in ahead[:_AHEAD]:
                ahead = ahead[ahead.index(own[-1]) + 1 :]
            ahead = ahead or [end]
        return text[:longest]

    def _barred(self, rows: Float[Tensor, "pos vocab"], first: bool) -> Float[Tensor, "pos vocab"]:
        """Logits with minus infinity where a token may not be written; ``first``: row 0 is that of the first word."""
        rows = rows.clone()
        rows[:, suppressed_tokens(self.hf) or []] = -torch.inf
        if first:
            rows[0, list(self.hf.generation_config.begin_suppress_tokens or ())] = -torch.inf
        return rows

    @torch.no_grad()
    def final_states(self, tokens: Sequence[int]) -> Float[Tensor, "pos d_model"]:
        """The decoder's states that the unembedding reads; only what no earlier call has read is computed."""
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        tokens = list(tokens)
        same = [a == b for a, b in zip(tokens, self._read)]
        shared = same.index(False) if False in same else len(same)
        if self._cache is None:
            self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if shared < len(self._read):
            for layer in self._cache.self_attention_cache.layers:
                layer.keys, layer.values = layer.keys[:, :, :shared], layer.values[:, :, :shared]
            self._read, self._final = self._read[:shared], self._final[:shared]
        if shared < len(tokens):
            fresh = torch.tensor([tokens[shared:]], device=self.states.device)
            out = self.hf.model.decoder(
                input_ids=fresh, encoder_hidden_states=self.states, past_key_values=self._cache, use_cache=True
            )
            self._read, self._final = tokens, torch.cat([self._final, out.last_hidden_state[0]])
        return self._final
