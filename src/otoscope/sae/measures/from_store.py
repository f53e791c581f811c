"""Labelled frames from a store of activations, for the measures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from otoscope.errors import RunError
from otoscope.models.mini_labels import SEX_OF
from otoscope.sae.measures.frames import Frames, Label
from otoscope.sae.store import Store, Utterance

#: a label of recordings with more values than this names the recordings, and is not probed for
MOST_VALUES, MOST_SPEAKERS = 12, 60
#: so many of the words that are said most are probed for, each in at least so many frames
WORDS, WORD_FRAMES = 8, 60


def frames_of(store: Store, most: int | None = None) -> tuple[Frames, list[Utterance]]:
    """The first recordings of a store (they lie there in random order), up to ``most`` frames.

    Labels are the speaker, the sex of LibriSpeech's readers where it is known, the words that are said most, and every label
    of the manifests that has a few values.

    Raises:
        RunError: fewer than two recordings are there: nothing can be held out.
    """
    chosen, total = [], 0
    for utterance in store.utterances:
        if chosen and most is not None and total + utterance.n_frames > most:
            break
        chosen.append(utterance)
        total += utterance.n_frames
    if len(chosen) < 2:
        raise RunError(f"{store.path} gives {len(chosen)} recording to measure on: two or more are needed.")
    part = store.subset([u.number for u in chosen])
    lengths = [u.n_frames for u in chosen]
    x = np.concatenate([part.frames(u.number).x.numpy() for u in chosen])
    utterance = np.repeat([u.number for u in chosen], lengths)
    speakers = _of_recordings([u.speaker for u in chosen], lengths)
    labels = {"speaker": speakers} if _probed(speakers, lengths, MOST_SPEAKERS) else {}
    sexes = [
        u.labels.get("sex") or (SEX_OF.get(u.speaker or "") if "librispeech" in u.corpus else None) for u in chosen
    ]
    for name in sorted({key for u in chosen for key in u.labels} | {"sex"}):
        values = sexes if name == "sex" else [u.labels.get(name) for u in chosen]
        label = _of_recordings(values, lengths)
        if _probed(label, lengths, MOST_VALUES):
            labels[name] = label
    words = _timed(part, "word")
    if (often := _often(words)).names:
        labels["word"] = often
    known = speakers.codes if (speakers.codes >= 0).all() and speakers.names else None
    return Frames(x, utterance, _timed(part, "phone"), part.silent(), labels, known), chosen


def _timed(store: Store, name: str) -> Label:
    """Phone or word of each frame; no names where none are known."""
    nothing = Label(np.full(store.n_frames, -1), ())
    kind = "has_phones" if name == "phone" else "has_words"
    if not any(getattr(u, kind) for u in store.utterances):
        return nothing
    found = store.labels(name)
    return Label(found.codes, tuple(found.names))


def _of_recordings(values: list[str | None], lengths: list[int]) -> Label:
    names = sorted({v for v in values if v})
    codes = np.array([names.index(v) if v else -1 for v in values], np.int64)
    return Label(np.repeat(codes, lengths), tuple(names), of_recordings=True)


def _probed(label: Label, lengths: list[int], most: int) -> bool:
    """Whether a label has few values, and two of them two recordings each, so that one can be held out."""
    first = np.cumsum([0, *lengths[:-1]])
    counts = np.bincount(label.codes[first][label.codes[first] >= 0], minlength=2)
    return len(label.names) <= most and int((counts >= 2).sum()) >= 2


def _often(words: Label) -> Label:
    counts = np.bincount(words.codes[words.codes >= 0], minlength=len(words.names))
    first: Int[np.ndarray, " word"] = np.argsort(-counts, kind="stable")[:WORDS]
    kept = [int(i) for i in first if counts[i] >= WORD_FRAMES]
    codes = np.full(len(words.codes), -1)
    for new, old in enumerate(kept):
        codes[words.codes == old] = new
    return Label(codes, tuple(words.names[i] for i in kept))
