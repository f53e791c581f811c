"""Conflict: what a sound says against what the text around it says, and a question about the sound.

Each item has a sound in four conditions and a context in three:

==================  ==================================================  ===================================
sound               what it is                                          what it says
==================  ==================================================  ===================================
``clean``           a recording                                         the sound label, A
``counterfactual``  another recording, equally long                     the text label, B
``silent``          digital silence, equally long                       nothing
``noise``           white noise of the clean sound's level              nothing
``neutral``         no context                                          nothing
``agreeing``        a context that names A                              A
``conflicting``     the same context with B in the place of A           B
==================  ==================================================  ===================================

A model that listens answers A to the clean sound in a conflicting context, and one that guesses answers B.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from otoscope.audio.clip import Clip
from otoscope.audio.synth import say
from otoscope.engine.model import Model
from otoscope.errors import TaskError
from otoscope.models.prompt import Asked
from otoscope.tasks.conflict_pairing import pair_up
from otoscope.tasks.conflict_sounds import SOUNDS, Sound, with_others
from otoscope.tasks.framings import FRAMINGS, TOPIC, render, wordings

Context = Literal["neutral", "agreeing", "conflicting"]

CONTEXTS: tuple[Context, ...] = get_args(Context)
#: raise it when the same arguments give other items than before
VERSION = "1"


@dataclass(frozen=True, eq=False)
class ConflictItem:
    """One question about one sound, with every sound and context that it is asked in.

    Attributes:
        id: its name in tables, unique within a task.
        question: what is asked, the same in all conditions.
        labels: the options, the sound's and the text's among them.
        sound_label: what the clean sound says, A.
        text_label: what the conflicting context and the counterfactual sound say, B.
        clips: sound condition -> clip, all of one rate and length; ``clean`` is there always.
        contexts: context condition -> text.
        framing: name of the framing, or ``own`` where the contexts were given as they are.
        task: name of the task it belongs to.
        speaker: of the clean sound, where known.
        source: where the clean sound comes from.
        match: what the clean and the counterfactual sound share: ``speaker``, ``sex`` or nothing.

    Raises ``TaskError`` when labels are missing, equal or not among the options, when clips differ in rate or length, or
    when a context is missing.
    """

    id: str
    question: str
    labels: tuple[str, ...]
    sound_label: str
    text_label: str
    clips: Mapping[Sound, Clip]
    contexts: Mapping[Context, str]
    framing: str = "own"
    task: str = ""
    speaker: str | None = None
    source: str = ""
    match: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "clips", {s: self.clips[s] for s in SOUNDS if s in self.clips})
        object.__setattr__(self, "contexts", {"neutral": "", **self.contexts})
        self._check_labels()
        clean = self.clips.get("clean")
        if clean is None:
            raise TaskError(f"Item '{self.id}' has no clean sound; give at least that one.")
        for condition, clip in self.clips.items():
            if (clip.rate, len(clip)) != (clean.rate, len(clean)):
                raise TaskError(
                    f"In item '{self.id}' the clean sound has {len(clean)} samples at {clean.rate} Hz and the {condition} "
                    f"one {len(clip)} at {clip.rate} Hz; make them equal with clip.resample and "
                    "otoscope.tasks.pair.pad_to_equal."
                )
        missing = [c for c in ("agreeing", "conflicting") if not self.contexts.get(c, "").strip()]
        if missing:
            raise TaskError(f"Item '{self.id}' has no {missing[0]} context; give a text that names the label.")

    def _check_labels(self) -> None:
        who = f"Item '{self.id}'"
        if not self.question.strip():
            raise TaskError(f"{who} has no question; ask for one of its labels, such as 'What word was said?'.")
        bare = [plain(label) for label in self.labels]
        if len(bare) < 2 or "" in bare:
            raise TaskError(f"{who} has the labels {list(self.labels)}; give at least two, none of them empty.")
        if twice := next((a for i, a in enumerate(self.labels) if bare[i] in bare[:i]), None):
            raise TaskError(f"{who} has the label '{twice}' twice (case and punctuation aside); give each once.")
        for kind, label in (("sound", self.sound_label), ("text", self.text_label)):
            if label not in self.labels:
                raise TaskError(
                    f"{who} has the {kind} label '{label}', which is not among its labels {', '.join(self.labels)}; "
                    "spell it as it stands there."
                )
        if self.sound_label == self.text_label:
            raise TaskError(
                f"{who} says '{self.sound_label}' in sound and in text; choose two labels, or there is no conflict."
            )

    def clip(self, sound: Sound) -> Clip:
        """The sound in a condition. Raises ``TaskError`` where the item lacks it (a counterfactual may be missing)."""
        if sound not in self.clips:
            raise TaskError(
                f"Item '{self.id}' has no {sound} sound; it has {', '.join(self.clips)}, so leave out what needs it."
            )
        return self.clips[sound]

    def context(self, context: Context) -> str:
        """The text in a condition; empty for a plain neutral one."""
        if context not in self.contexts:
            raise TaskError(f"There is no context '{context}'; choose one of {', '.join(CONTEXTS)}.")
        return self.contexts[context]

    def said(self, sound: Sound) -> str | None:
        """The label that the sound says in a condition; None where it says nothing."""
        return {"clean": self.sound_label, "counterfactual": self.text_label}.get(sound)

    def ask(self, model: Model, sound: Sound = "clean", context: Context = "conflicting") -> Asked:
        """The question about this sound in this context, as the model's prompt with its position groups.

        A model that only transcribes hears the same sound after the same context, and is asked nothing.
        """
        question = self.question if model.listens_and_reads else ""
        return model.ask(self.clip(sound), question, self.context(context))

    def replace(self, **fields: Any) -> ConflictItem:
        """A copy with some fields changed, checked again."""
        return replace(self, **fields)

    def digest(self) -> str:
        """SHA-256 (hex) of everything a model is given: equal items ask the same, word by word and sample by sample."""
        parts = [self.id, self.question, *self.labels, self.sound_label, self.text_label]
        parts += [f"{k}={v}" for k, v in self.contexts.items()]
        parts += [f"{k}={clip.digest()}" for k, clip in self.clips.items()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ConflictTask:
    """A named, versioned, seeded list of items with its licence.

    The items stand in rounds: one per label, then the next, so that any beginning of the list is as balanced over labels
    as its length allows (built tasks; a manifest keeps its order).

    Raises ``TaskError`` when there are no items or two share an id.
    """

    name: str
    items: tuple[ConflictItem, ...]
    licence: str
    seed: int = 0
    version: str = VERSION

    def __post_init__(self) -> None:
        items = tuple(item if item.task == self.name else item.replace(task=self.name) for item in self.items)
        object.__setattr__(self, "items", items)
        if not items:
            raise TaskError(f"The task '{self.name}' has no items; give at least one.")
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise TaskError(f"Two items of the task '{self.name}' have the id '{item.id}'; give each its own.")
            seen.add(item.id)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[ConflictItem]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"ConflictTask({self.name!r} v{self.version}, {len(self)} items, {len(self.labels)} labels)"

    @property
    def labels(self) -> tuple[str, ...]:
        """Every option of any item, in order of appearance."""
        return tuple(dict.fromkeys(label for item in self.items for label in item.labels))

    def first(self, n: int) -> ConflictTask:
        """The first ``n`` items (all of them where there are fewer)."""
        return replace(self, items=self.items[:n])

    def digest(self) -> str:
        """SHA-256 (hex) of name, version, seed and every item."""
        parts = [self.name, self.version, str(self.seed), *(item.digest() for item in self.items)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    # -- builders --------------------------------------------------------------------------------------------------

    @classmethod
    def from_clips(
        cls,
        clips: Sequence[Clip],
        question: str | Sequence[str],
        *,
        labels: Sequence[str] | None = None,
        label: str | Callable[[Clip], str | None] = "label",
        topic: str = TOPIC,
        framings: Sequence[str] = tuple(FRAMINGS),
        wording: int | None = None,
        n: int | None = None,
        seconds: float | None = None,
        rate: int = 16000,
        seed: int = 0,
        name: str = "clips",
        licence: str = "unknown",
    ) -> ConflictTask:
        """A task of labelled recordings: each is set against a recording of another label.

        The counterfactual is one of the same speaker where there is one, else of the same sex, else of anyone; the
        shorter of the two gets silence at its end. Every label is what the sound says, and what the text says, equally
        often; framings and wordings take turns. The same arguments give the same task.

        Args:
            clips: recordings with their label in ``clip.labels`` (and ``sex`` there, and ``clip.speaker``, where known).
            question: what is asked; several take turns.
            labels: the options, in this order; clips with other labels are left out. None: every label there is, sorted.
            label: key of the label in ``clip.labels`` (``text`` takes what the clip says), or a function of the clip that
                gives its label, or None to leave it out.
            topic: what the contexts call it: "the word", "the sound", "the speaker".
            framings: names in ``FRAMINGS``, or wordings of your own.
            wording: only this one of every framing, such as one that was kept out of training; None for all in turn.
            n: so many items; None for as many as can be balanced without using a clean recording twice.
            seconds: length that all clips are brought to with silence, so that they can share a batch; None keeps each
                pair's own.
            rate: sampling rate of the items, Hz.
            seed: draws recordings, pairs and wordings.
            name, licence: of the task.

        Raises:
            TaskError: fewer than two labels, too few recordings of one, or a recording longer than ``seconds``.
        """
        questions = (question,) if isinstance(question, str) else tuple(question)
        labelled = [(_label_of(clip, label), clip) for clip in clips]
        options = tuple(labels) if labels is not None else tuple(sorted({a for a, _ in labelled if a}))
        pairs = pair_up(labelled, options, n, seed)
        ways = _ways(framings, wording, questions)
        if not ways:
            raise TaskError(f"The task '{name}' has no framing or no question; give at least one of each.")
        items = []
        for number, pair in enumerate(pairs):
            # a label moves on by one way per round, so that none keeps a wording for itself
            framing, which, asked = ways[(pair.place + pair.round) % len(ways)]
            sounds = with_others(pair.clean, pair.counterfactual, rate, seconds, seed * 1_000_003 + number)
            items.append(
                ConflictItem(
                    id=f"{number:04d}-{pair.sound_label}-{pair.text_label}".replace(" ", "_"),
                    question=asked,
                    labels=options,
                    sound_label=pair.sound_label,
                    text_label=pair.text_label,
                    clips=sounds,
                    contexts={
                        "agreeing": render(framing, pair.sound_label, wording=which, topic=topic),
                        "conflicting": render(framing, pair.text_label, wording=which, topic=topic),
                    },
                    framing=framing if framing in FRAMINGS else "own",
                    task=name,
                    speaker=pair.clean.speaker,
                    source=pair.clean.name,
                    match=pair.match,
                )
            )
        return cls(name, tuple(items), licence, seed)

    @classmethod
    def spoken(
        cls,
        words: Sequence[str],
        voices: Sequence[str] = ("en-us", "en-us+f4"),
        *,
        engine: str = "espeak",
        question: str | Sequence[str] = "What word was said?",
        seconds: float = 1.0,
        rate: int = 16000,
        name: str = "spoken",
        **options: Any,
    ) -> ConflictTask:
        """A task of synthetic speech, one word per clip, which needs no data: every voice says every word.

        Args:
            words: the labels.
            voices: voices of the engine; each is a speaker, and the counterfactual is of the same voice. Breathy variants
                of espeak (``+f2``, ``+f3``, ``+f5``) draw their breath anew at every call, so they give another task.
            engine: see ``otoscope.audio.synth.say``.
            question, seconds, rate, name, options: as for :meth:`from_clips`.

        Raises:
            AudioError: the engine is not installed, or has no such voice.
            TaskError: as for :meth:`from_clips`.
        """
        clips = [
            clip.replace(labels={**clip.labels, "label": word}, name=f"{engine}:{voice} {word}")
            for voice in voices
            for word in words
            for clip in [say(word, voice, engine, rate)]
        ]
        options = {"topic": "the word", "licence": f"synthetic speech ({engine}), free of rights", **options}
        return cls.from_clips(clips, question, labels=tuple(words), seconds=seconds, rate=rate, name=name, **options)

    @classmethod
    def from_manifest(
        cls, path: str | Path, *, n: int | None = None, rate: int = 16000, seed: int = 0, name: str | None = None
    ) -> ConflictTask:
        """A task of your own, read from a JSONL manifest: see :mod:`otoscope.tasks.conflict_manifest`.

        Args:
            path: the manifest.
            n: at most so many items, drawn at random; None for all of them.
            rate: sampling rate of the items, Hz.
            seed: of the draw.
            name: of the task; None for the manifest's.

        Raises:
            TaskError: the manifest is missing or a line of it cannot be used; the sentence names the line.
        """
        from otoscope.tasks.conflict_manifest import read_items

        items, licence = read_items(Path(path), rate, n, seed)
        return cls(name or Path(path).stem, items, licence, seed)


def plain(text: str) -> str:
    """A label as it is compared: case, punctuation and superfluous spaces gone ("Sea-waves." is "sea waves")."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _ways(framings: Sequence[str], wording: int | None, questions: Sequence[str]) -> list[tuple[str, int, str]]:
    """Every framing, wording and question crossed; framings change fastest, so a short list has all of them."""
    most = max((len(wordings(framing)) for framing in framings), default=0)
    return [
        (framing, which, question)
        for which in (range(most) if wording is None else [wording])
        for question in questions
        for framing in framings
        if which < len(wordings(framing)) or wording is not None
    ]


def _label_of(clip: Clip, key: str | Callable[[Clip], str | None]) -> str | None:
    if callable(key):
        return key(clip)
    return clip.labels.get(key) or (clip.text if key == "text" else None)
