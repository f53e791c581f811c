"""What an atlas is made from: sentences with their phones, the same in noise, sounds, and what is known of each frame.

A *family* is a set of labels with the rows on which they are compared, and the null that fits them: labels of moments are
shifted within a recording, labels of whole recordings change places among recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from otoscope.audio.align import align
from otoscope.audio.clip import Clip
from otoscope.audio.corruptions.registry import apply
from otoscope.audio.pitch import pitch
from otoscope.engine.model import Model
from otoscope.errors import AudioError, TaskError
from otoscope.methods.frames import NONE, labels_of, within_window
from otoscope.methods.unit_selectivity import Null
from otoscope.models.clock import FrameClock
from otoscope.tasks.corpora import esc50, librispeech
from otoscope.tasks.recordings import Recording

#: ARPAbet by manner
CLASSES = {
    "vowel": "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "stop": "P B T D K G",
    "fricative": "F V TH DH S Z SH ZH HH CH JH",
    "nasal": "M N NG",
    "approximant": "L R W Y",
}
#: labels on fewer rows than this are left out
FEWEST = 25
#: a frame is at a word's onset up to so long after it, seconds
_ONSET = 0.06
_PADDING_FRAMES = 12


@dataclass(frozen=True)
class Piece:
    """One recording of the atlas: ``speech``, ``noisy`` or ``sound``."""

    kind: str
    clip: Clip
    unit: str


@dataclass(frozen=True, eq=False)
class Family:
    """Labels that are compared on the same rows.

    Attributes:
        name: of the family.
        null: how its labels are made to say nothing.
        rows: indices of the rows.
        labels: name -> 0/1 or values, one per row of ``rows``.
    """

    name: str
    null: Null
    rows: Int[np.ndarray, " row"]
    labels: Mapping[str, Float[np.ndarray, " row"]]


@dataclass(frozen=True, eq=False)
class FrameRows:
    """Frames of all pieces, in order, and what is known of each.

    Attributes:
        piece: number of the recording.
        frame: position in the encoder.
        time: of its centre, seconds.
        phone, word: that is said; empty for none.
        onset: whether a word has just begun.
        pitch: Hz; NaN where there is none.
        padding: whether it lies after the recording.
    """

    piece: Int[np.ndarray, " row"]
    frame: Int[np.ndarray, " row"]
    time: Float[np.ndarray, " row"]
    phone: Shaped[np.ndarray, " row"]
    word: Shaped[np.ndarray, " row"]
    onset: Bool[np.ndarray, " row"]
    pitch: Float[np.ndarray, " row"]
    padding: Bool[np.ndarray, " row"]


def pieces(
    data: Path,
    n_speech: int,
    n_noisy: int,
    n_sounds: int,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Piece]:
    """Sentences (aligned), some of them again in noise, and sounds that are no speech.

    Args:
        data: folder with ``librispeech`` and ``esc10``.
        n_speech: sentences, drawn evenly over speakers.
        n_noisy: so many of them again, in pink noise at 5 dB.
        n_sounds: sounds, drawn evenly over their classes.
        seed: of the draw and the noise.
        notify: told what is being done.

    Raises:
        TaskError: a corpus is not there, or nothing could be aligned.
    """
    data = Path(data)
    for name, found in (("LibriSpeech", librispeech.FOLDERS), ("ESC-10", esc50.FOLDERS)):
        if not any((data / folder).is_dir() for folder in found):
            raise TaskError(
                f"the folder '{data}' holds no {name}: give --data a folder with {found[0]} and the others."
            )
    spoken = _drawn(librispeech.recordings(data), lambda r: r.unit, n_speech, seed)
    notify(f"aligning {len(spoken)} sentences")
    made: list[Piece] = []
    for recording in spoken:
        try:
            made.append(Piece("speech", align(recording.clip()), recording.unit))
        except AudioError as error:
            if "pocketsphinx" in str(error):
                raise
    if not made:
        raise TaskError(f"no sentence below '{data}' could be aligned with its text: check the transcripts.")
    for i, piece in enumerate(made[:n_noisy]):
        noisy = apply("pink_noise", piece.clip, seed=seed + i, snr_db=5.0).clip
        level = piece.clip.rms / noisy.rms
        made.append(Piece("noisy", noisy.replace(samples=(noisy.samples * level).astype(np.float32)), piece.unit))
    sounds = _drawn(esc50.recordings(data), lambda r: r.label, n_sounds, seed)
    return [*made, *(Piece("sound", r.clip().replace(labels={"sound": r.label}), r.unit) for r in sounds)]


def _drawn(recordings: list[Recording], key: Callable[[Recording], str], n: int, seed: int) -> list[Recording]:
    """At most ``n``, evenly over keys."""
    rng = np.random.default_rng(seed)
    seen: dict[str, int] = {}
    ranked = []
    for i in rng.permutation(len(recordings)):
        kind = key(recordings[i])
        seen[kind] = seen.get(kind, -1) + 1
        ranked.append((seen[kind], recordings[i]))
    return [recording for _, recording in sorted(ranked, key=lambda pair: pair[0])[:n]]


def frame_rows(model: Model, found: list[Piece], per_piece: int) -> FrameRows:
    """Frames of each piece, evenly spread over it, and a few of the padding after it."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in FrameRows.__annotations__}
    for i, piece in enumerate(found):
        clip = within_window(model, piece.clip)
        clock = model.clock("encoder", len(clip))
        step = max(1, clock.n_valid // per_piece)
        kept = np.arange(0, clock.n_valid, step)[:per_piece]
        spare = np.arange(clock.n_valid + 2, clock.n_frames)
        extra = (
            spare[np.linspace(0, len(spare) - 1, min(_PADDING_FRAMES, len(spare))).astype(int)] if len(spare) else spare
        )
        blank = np.full(len(extra), NONE, dtype=object)
        times = np.array([clock.time(int(k)) for k in (*kept, *extra)])
        columns["piece"].append(np.full(len(times), i))
        columns["frame"].append(np.concatenate([kept, extra]))
        columns["time"].append(times)
        columns["phone"].append(np.concatenate([labels_of(clip.phones, clock)[kept], blank]))
        columns["word"].append(np.concatenate([labels_of(clip.words, clock)[kept], blank]))
        columns["onset"].append(_onsets(clip, times))
        columns["pitch"].append(
            np.concatenate([_pitches(piece, clip, times[: len(kept)]), np.full(len(extra), np.nan)])
        )
        columns["padding"].append(np.concatenate([np.zeros(len(kept), bool), np.ones(len(extra), bool)]))
    return FrameRows(**{name: np.concatenate(values) for name, values in columns.items()})


def _onsets(clip: Clip, times: Float[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
    starts = np.array([word.start for word in clip.words])
    if not len(starts):
        return np.zeros(len(times), bool)
    since = times[:, None] - starts[None, :]
    return np.asarray(((since >= 0) & (since < _ONSET)).any(axis=1))


def _pitches(piece: Piece, clip: Clip, times: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    return pitch(clip, times) if piece.kind == "speech" else np.full(len(times), np.nan)


def frame_families(found: list[Piece], rows: FrameRows) -> list[Family]:
    """The families of labels of an encoder's frames."""
    kind = np.array([piece.kind for piece in found])[rows.piece]
    speech, inside = kind == "speech", ~rows.padding
    said = speech & (rows.phone != NONE)
    by_class = {phone: name for name, phones in CLASSES.items() for phone in phones.split()}
    phones = rows.phone[said]
    labels = {f"phone {p}": (phones == p).astype(float) for p in sorted(set(phones))}
    manner = np.array([by_class.get(p, "other") for p in phones])
    labels |= {name: (manner == name).astype(float) for name in CLASSES}
    voiced = speech & inside & ~np.isnan(rows.pitch)
    in_word = speech & (rows.word != NONE)
    twice = np.isin(rows.piece, _with_copies(found)) & (rows.phone != NONE)
    made = [
        _family("phones", "shift", said, labels),
        _family("pitch", "shift", voiced, {"pitch": np.log2(rows.pitch[voiced])}),
        _family("word onset", "shift", in_word, {"word onset": rows.onset[in_word].astype(float)}),
        _family("silence", "shift", speech & inside, {"silence": (rows.phone[speech & inside] == NONE).astype(float)}),
        _family("padding", "shift", speech, {"padding": rows.padding[speech].astype(float)}),
        _family("noise", "exchange", twice, {"noise": (kind[twice] == "noisy").astype(float)}),
        _family(
            "sound", "exchange", inside & (kind != "noisy"),
            {"no speech": (kind[inside & (kind != "noisy")] == "sound").astype(float)},
        ),
    ]  # fmt: skip
    return [family for family in made if family.labels]


def _with_copies(found: list[Piece]) -> list[int]:
    """Numbers of the noisy pieces and of the sentences they are copies of."""
    noisy = [i for i, piece in enumerate(found) if piece.kind == "noisy"]
    names = {found[i].clip.name for i in noisy}
    return noisy + [i for i, piece in enumerate(found) if piece.kind == "speech" and piece.clip.name in names]


def _family(name: str, null: Null, where: Bool[np.ndarray, " row"], labels: Mapping[str, np.ndarray]) -> Family:
    """A family without the labels that are too rare to be told from chance."""

    def frequent(value: np.ndarray) -> bool:
        if not np.isin(value, (0.0, 1.0)).all():
            return len(value) >= FEWEST
        return min(value.sum(), len(value) - value.sum()) >= FEWEST

    return Family(name, null, np.flatnonzero(where), {k: v for k, v in labels.items() if frequent(v)})


def silences(clip: Clip, clock: FrameClock) -> Bool[np.ndarray, " valid"]:
    """Frames inside the recording in which no phone is said."""
    return labels_of(clip.phones, clock) == NONE
