"""Does mini-qwen2-audio hear? Exact match on recordings of people (and of folds) that it was never trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.files import read
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.methods.label_scoring import answers, match
from otoscope.methods.resume import fingerprint
from otoscope.models import mini_labels as labels
from otoscope.stats import Interval, bootstrap
from otoscope.studies.outcome import Step, compute_now
from otoscope.tasks.spoken_words import rows

#: what is asked of which corpora
TESTS = {
    "commands": ("word", ("speech_commands",)),
    "digits": ("word", ("fsdd",)),
    "sounds": ("sound", ("esc10",)),
    "sex": ("sex", ("librispeech", "librispeech_speakers")),
}
#: set before training; the share of exact answers that each test must reach
BARS = {"commands": 0.9, "digits": 0.9, "sounds": 0.8, "sex": 0.9}
#: a longer recording is cut to what the model's window holds
SECONDS = 4.0
#: a shorter recording of a word gets silence around it: the model was taught words of at least about a second
WORD_SECONDS = 1.0


@dataclass(frozen=True)
class Tested:
    """One recording: its path below the data folder, who speaks (or its fold), the answer and what the model wrote."""

    test: str
    path: str
    unit: str
    label: str
    written: str
    right: bool


def check(
    model: Model, data: Path, *, step: Step = compute_now, notify: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Interval], list[Tested]]:
    """Ask the neutral question about every held-out recording and compare the written answer with its label.

    Args:
        model: mini-qwen2-audio, plain or with an adapter.
        data: folder with the corpora that are there; at least one must be.
        step: keeps finished tests.
        notify: told what is being asked.

    Returns:
        ``accuracy.<test>`` with 95% intervals over speakers (over recordings for sounds, which have none), and every answer.

    Raises:
        TaskError: none of the corpora is there.
    """
    found: dict[str, Interval] = {}
    tested: list[Tested] = []
    for test, (kind, corpora) in TESTS.items():
        here = [corpus for corpus in corpora if (data / corpus / "manifest.tsv").is_file()]
        items = [item for corpus in here for item in _heldout(data, corpus)]
        if not items:
            continue
        notify(f"asking about {len(items)} recordings: {test}")

        def ask(items: list[tuple[str, str, str]] = items, kind: str = kind) -> list[str]:
            prompts = [(_clip(data / path, kind), labels.QUESTIONS[kind][0], "") for path, _, _ in items]
            return answers(model, prompts, max_new_tokens=6)

        written = step(f"check-{test}-{fingerprint(str(data), items)}", ask)
        options = (*labels.OPTIONS[kind], labels.NOTHING)
        for (path, unit, label), text in zip(items, written):
            tested.append(Tested(test, path, unit, label, text, match(text, options) == label))
        right = [float(t.right) for t in tested if t.test == test]
        units = [t.unit for t in tested if t.test == test]
        found[f"accuracy.{test}"] = bootstrap(right, groups=units)
    if not found:
        raise TaskError(
            f"'{data}' holds none of the corpora that the check needs: expected "
            f"{', '.join(c for _, corpora in TESTS.values() for c in corpora)}, each with its manifest.tsv."
        )
    return found, tested


def _heldout(data: Path, corpus: str) -> Iterator[tuple[str, str, str]]:
    """(path below the data folder, unit, label) of every recording that was kept out of training."""
    for row in rows(data, corpus):
        speaker = row["fold"] if corpus == "esc10" else row["speaker"]
        label = labels.label_of(corpus, row)
        if label and labels.is_heldout(corpus, speaker):
            yield f"{corpus}/{row['path']}", row["path"] if corpus == "esc10" else speaker, label


def _clip(path: Path, kind: str) -> Clip:
    clip = read(path, rate=16000)
    if kind == "word" and clip.duration < WORD_SECONDS:
        missing = round(WORD_SECONDS * clip.rate) - len(clip)
        return clip.replace(samples=np.pad(clip.samples, (missing // 2, missing - missing // 2)), words=(), phones=())
    if clip.duration <= SECONDS:
        return clip
    return clip.replace(samples=clip.samples[: round(SECONDS * clip.rate)], words=(), phones=())
