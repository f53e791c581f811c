"""What a model holds at the frames of recordings, with what is said there: padding is never counted.

Whisper computes 30 s however short the recording is, so most of its frames are padding. Everything here keeps the frames whose
centre lies inside the recording, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from otoscope.audio.clip import Clip, Span
from otoscope.engine.capture import capture_until
from otoscope.engine.model import Model
from otoscope.errors import ModelError
from otoscope.models.adapter import check_rate
from otoscope.models.clock import FrameClock
from otoscope.models.site import Site

#: name under which the log-mel spectrogram stands among the sites
MEL = "mel"
#: label of a frame in which nothing of that kind is said
NONE = ""
#: (recording, its frames) -> the frames to keep
Choose = Callable[[int, FrameClock], Int[np.ndarray, " kept"]]


@dataclass(frozen=True, eq=False)
class Frames:
    """Rows of a representation: frames, or one mean per recording or word.

    Attributes:
        values: site name (or ``mel``) -> ``[row, d]``.
        clip: which recording each row is of.
        time: of each row's centre in its recording, seconds.
    """

    values: dict[str, Float[np.ndarray, "row d"]]
    clip: Int[np.ndarray, " row"]
    time: Float[np.ndarray, " row"]


def states(
    model: Model, clips: Sequence[Clip], sites: Sequence[Site], progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[int, FrameClock, dict[Site, Float[np.ndarray, "frame ..."]]]]:
    """Per recording: its number, its clock, and the values at ``sites`` of its valid frames.

    The forward ends at the last of the sites, so an encoder's states do not cost a decoder.

    Args:
        model: it listens.
        clips: each no longer than the model's window; a longer one is cut to it.
        sites: whole sites of stacks whose positions are time.
        progress: called with (done, total) recordings.

    Raises:
        ModelError: the positions of a site are tokens.
    """
    for i, clip in enumerate(clips):
        clip = within_window(model, clip)
        inputs = model.inputs(clip, text="" if model.listens_and_reads else None)
        found = capture_until(model.adapter, inputs, sites)
        n = inputs.n_samples[0]
        clocks = {site: model.clock(site.stack, n, site.layer) for site in sites}
        valid = {site: found[site][0, : clocks[site].n_valid].float().cpu().numpy() for site in sites}
        yield i, clocks[sites[-1]], valid
        if progress is not None:
            progress(i + 1, len(clips))


def within_window(model: Model, clip: Clip) -> Clip:
    """The clip at the model's rate, cut to what it hears at once."""
    clip = check_rate([clip], model.adapter.rate)[0]
    window = getattr(model.feature_extractor, "n_samples", None)
    if window is None or len(clip) <= window:
        return clip
    return clip.slice(0.0, window / clip.rate).noticed(f"cut to the {window / clip.rate:g} s that the model hears")


def frames(
    model: Model,
    clips: Sequence[Clip],
    sites: Sequence[Site],
    choose: Choose,
    *,
    mel: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Frames:
    """Single frames.

    Args:
        model: it listens.
        clips: recordings.
        sites: of one frame rate.
        choose: which of the valid frames of a recording are kept.
        mel: also the log-mel spectrogram at those frames.
        progress: called with (done, total) recordings.
    """
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ([MEL] if mel else []) + [str(s) for s in sites]}
    which, times = [], []
    for i, clock, found in states(model, clips, sites, progress):
        kept = choose(i, clock)
        for site, value in found.items():
            rows[str(site)].append(value[kept])
        if mel:
            rows[MEL].append(mel_frames(within_window(model, clips[i]), clock)[kept])
        which.append(np.full(len(kept), i))
        times.append(np.array([clock.time(int(k)) for k in kept]))
    return Frames({k: np.concatenate(v) for k, v in rows.items()}, np.concatenate(which), np.concatenate(times))


def pooled(
    model: Model,
    clips: Sequence[Clip],
    sites: Sequence[Site],
    *,
    mel: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Frames:
    """One row per recording: the mean over its valid frames.

    Args:
        model: it listens.
        clips: recordings.
        sites: of stacks whose positions are time.
        mel: also the mean of the log-mel spectrogram.
        progress: called with (done, total) recordings.
    """
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ([MEL] if mel else []) + [str(s) for s in sites]}
    for i, clock, found in states(model, clips, sites, progress):
        for site, value in found.items():
            rows[str(site)].append(value.mean(axis=0))
        if mel:
            rows[MEL].append(mel_frames(within_window(model, clips[i]), clock).mean(axis=0))
    middle = np.array([clip.duration / 2 for clip in clips])
    return Frames({k: np.stack(v) for k, v in rows.items()}, np.arange(len(clips)), middle)


def labels_of(spans: Sequence[Span], clock: FrameClock) -> Shaped[np.ndarray, " valid"]:
    """Name of the span in which the centre of each valid frame lies; empty where none does."""
    times = np.array([clock.time(k) for k in range(clock.n_valid)])
    labels = np.full(clock.n_valid, NONE, dtype=object)
    for span in spans:
        labels[(times >= span.start) & (times < span.end)] = span.text
    return labels


def mel_frames(clip: Clip, clock: FrameClock) -> Float[np.ndarray, "valid 80"]:
    """The 80-band log-mel spectrogram (Whisper's, 10-ms hop) around each valid frame's centre, as its baseline.

    Each frame is the mean of the mel frames nearer to its centre than to the next one's. The spectrogram's own
    normalisation, which looks at the loudest moment of the whole window, is part of what the model hears.
    """
    from transformers import WhisperFeatureExtractor

    rate = 16000
    extractor = WhisperFeatureExtractor(feature_size=80)
    mel = extractor(
        np.asarray(clip.resample(rate).samples), sampling_rate=rate, return_tensors="np", padding="longest"
    ).input_features[0].T  # fmt: skip
    half = max(1, round(0.5 * 100 / clock.rate))
    out = np.empty((clock.n_valid, mel.shape[1]), np.float32)
    for k in range(clock.n_valid):
        centre = min(round(clock.time(k) * 100), len(mel) - 1)
        out[k] = mel[max(0, centre - half + 1) : centre + half].mean(axis=0)
    return out


def stack_that_hears(model: Model) -> str:
    """The stack whose positions are time and whose layers are probed: the encoder.

    Raises:
        ModelError: the model does not listen.
    """
    spec = model.stacks.get("encoder")
    if spec is None or not spec.frame_rate:
        raise ModelError(f"{model.name} has no encoder of sound: choose a speech encoder, a Whisper or an audio-LLM.")
    return "encoder"
