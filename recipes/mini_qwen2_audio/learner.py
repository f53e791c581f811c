"""Train the small parts of the model (projector, LoRA adapters) on encoder outputs, a seeded batch per step, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from features import Features


@dataclass(frozen=True)
class Example:
    """One question about one sound: index of its features, the text around it, and the answer.

    ``part`` is a stretch of the sound's audio tokens (first, end); None for all of them.
    """

    sound: int
    question: str
    context: str
    answer: str
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes:
        steps: optimiser steps.
        batch: examples per step.
        lr: peak learning rate of the adapters; the projector's is four times that.
        warmup: steps until the peak; a cosine leads from there to a tenth.
        seed: of everything that is drawn.
        stop: end before the schedule does; None for all of it.
    """

    steps: int
    batch: int = 24
    lr: float = 5e-4
    warmup: int = 30
    seed: int = 0
    stop: int | None = None


class Learner:
    """Feeds sounds and text to the language model and scores the answer's tokens.

    Args:
        model: the Qwen2-Audio model, whose ``language_model`` may carry LoRA layers.
        tokenizer: its tokenizer.
        features: encoder outputs.
    """

    def __init__(self, model: Any, tokenizer: Any, features: Features):
        self.model, self.tokenizer, self.features = model, tokenizer, features
        self.embed = model.get_input_embeddings()
        self.head = model.lm_head
        self.projector = model.model.multi_modal_projector
        self._text: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self._answers: dict[str, list[int]] = {}

    def around(self, question: str, context: str) -> tuple[list[int], list[int]]:
        """Tokens before and after the audio tokens."""
        if (question, context) not in self._text:
            said = f"{context} {question}" if context else question
            turn = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": said}]}]
            text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            before, after = text.split("<|AUDIO|>")
            self._text[question, context] = (
                self.tokenizer(before, add_special_tokens=False).input_ids,
                self.tokenizer(after, add_special_tokens=False).input_ids,
            )
        return self._text[question, context]

    def answer(self, label: str) -> list[int]:
        """Tokens of an answer, with the end of the turn."""
        if label not in self._answers:
            tokens = self.tokenizer(label, add_special_tokens=False).input_ids
            self._answers[label] = [*tokens, self.tokenizer.eos_token_id]
        return self._answers[label]

    def hidden(self, examples: Sequence[Example]) -> tuple[Tensor, list[int], list[list[int]]]:
        """Last states ``[example, pos, d_model]``, where each answer begins to be predicted, and the answers' tokens."""
        rows, starts, answers = [], [], []
        for e in examples:
            before, after = self.around(e.question, e.context)
            answer = self.answer(e.answer)
            sound = self.projector(self.features[e.sound][slice(*(e.part or (None,)))])
            text = self.embed(torch.tensor([*before, *after, *answer[:-1]]))
            rows.append(torch.cat((text[: len(before)], sound, text[len(before) :])))
            starts.append(len(before) + len(sound) + len(after) - 1)
            answers.append(answer)
        batch = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # causal: what follows a row does not reach it
        with torch.autocast("cpu", torch.bfloat16):
            states = self.model.model.language_model(inputs_embeds=batch, use_cache=False).last_hidden_state
        return states.float(), starts, answers

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """Mean cross-entropy of the answers' tokens, in nats."""
        states, starts, answers = self.hidden(examples)
        picked = torch.cat([states[i, s : s + len(a)] for i, (s, a) in enumerate(zip(starts, answers))])
        weight = torch.cat([torch.full((len(a),), 1 / len(a)) for a in answers])
        losses = nn.functional.cross_entropy(
            self.head(picked), torch.tensor([t for a in answers for t in a]), reduction="none"
        )
        return (losses * weight).sum() / len(answers)

    @torch.no_grad()
    def choices(self, examples: Sequence[Example], options: Sequence[str], batch: int = 32) -> list[str]:
        """The option whose first token is most likely after each prompt; options must differ in it."""
        first = [self.answer(o)[0] for o in options]
        assert len(set(first)) == len(first), "options share their first token"
        order = sorted(range(len(examples)), key=lambda i: self.features.length(examples[i].sound))
        chosen = [""] * len(examples)
        for a in range(0, len(order), batch):
            part = order[a : a + batch]
            states, starts, _ = self.hidden([examples[i] for i in part])
            last = states[torch.arange(len(part)), torch.tensor(starts)]
            best = (last @ self.head.weight[first].T).argmax(-1)
            for i, b in zip(part, best.tolist()):
                chosen[i] = options[b]
        return chosen

    def train(
        self,
        draw: Callable[[np.random.Generator], Example],
        plan: Plan,
        folder: Path,
        say: Callable[[str], None],
        probe: Callable[[], str] | None = None,
    ) -> None:
        """Run the plan; a killed run goes on from its last checkpoint in ``folder``."""
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for n, p in trained.items() if "projector" not in n], "lr": plan.lr, "peak": plan.lr},
            {"params": [p for n, p in trained.items() if "projector" in n], "lr": plan.lr, "peak": 4 * plan.lr},
        ]
        optimiser = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=0.01, betas=(0.9, 0.98))
        file = folder / "checkpoint.pt"
        begin = 0
        if file.exists():
            kept = torch.load(file, weights_only=True)
            if kept["plan"] == repr(plan):
                with torch.no_grad():
                    for name, p in trained.items():
                        p.copy_(kept["weights"][name])
                optimiser.load_state_dict(kept["optimiser"])
                begin = kept["step"]
        start, mean, end = time.monotonic(), 0.0, plan.stop or plan.steps
        for step in range(begin, end):
            rng = np.random.default_rng([plan.seed, step])
            examples = [draw(rng) for _ in range(plan.batch)]
            scale = min(1.0, (step + 1) / plan.warmup)
            scale *= 0.1 + 0.45 * (1 + math.cos(math.pi * step / plan.steps))
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * scale
            total = 0.0
            optimiser.zero_grad(set_to_none=True)
            # long sounds apart from short ones, so that little is padded
            examples.sort(key=lambda e: e.part[1] - e.part[0] if e.part else self.features.length(e.sound))
            parts = [examples[: plan.batch * 2 // 3], examples[plan.batch * 2 // 3 :]]
            for part in parts:
                loss = self.loss(part) * (len(part) / plan.batch)
                loss.backward()
                total += float(loss.detach())
            nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
            optimiser.step()
            mean = total if step == begin else 0.95 * mean + 0.05 * total
            if (step + 1) % 25 == 0 or step + 1 == end:
                left = (time.monotonic() - start) / (step + 1 - begin) * (end - step - 1)
                say(f"step {step + 1} of {end}, loss {mean:.3f}, {left / 60:.0f} min left")
                folder.mkdir(parents=True, exist_ok=True)
                weights = {n: p.detach() for n, p in trained.items()}
                state = {"plan": repr(plan), "step": step + 1, "weights": weights, "optimiser": optimiser.state_dict()}
                torch.save(state, file.with_suffix(".partial"))
                file.with_suffix(".partial").replace(file)
            if probe and ((step + 1) % 100 == 0 or step + 1 == end):
                say(probe())
