"""Minimal pairs: two spoken texts that share a frame, equally long, with the span in which they differ."""

from typing import NamedTuple

import numpy as np

from otoscope.audio.clip import Clip, Span
from otoscope.audio.synth.engine import bare
from otoscope.audio.synth.speech import say
from otoscope.errors import AudioError

#: Samples whose engine output is equal may differ by so much after resampling, which works block by block.
_RESAMPLING_NOISE = 1e-5
#: Cross-fade where the beginning of one recording is joined to the other, seconds.
_FADE = 0.005


class MinimalPair(NamedTuple):
    """Two clips of equal length and the span (seconds) from where their samples part to the end of what differs.

    Unpacks as ``first, second, span``. Both clips list in ``notices`` what was padded or shifted.
    """

    first: Clip
    second: Clip
    span: tuple[float, float]

    @property
    def identical_until(self) -> float:
        """Seconds from the start during which the two clips have the same samples, bit for bit."""
        different = np.flatnonzero(self.first.samples != self.second.samples)
        return (int(different[0]) if len(different) else len(self.first)) / self.first.rate


def minimal_pair(
    text_a: str,
    text_b: str,
    engine: str = "espeak",
    voice: str | None = None,
    rate: int = 16000,
    speed: float = 1.0,
    pitch: float = 50.0,
    join: bool = False,
) -> MinimalPair:
    """Two texts that differ in the middle ("please say bad again", "please say pad again"), spoken alike.

    The shorter clip is padded with silence at its end; nothing is stretched, so after the change one may run later than
    the other by a constant, which ``notices`` give. The span begins at the first sample that differs and ends with the
    last word that differs, in whichever clip that is later. A voice prepares for a sound during the one before it:
    flite's kal16 is bit-identical up to the middle of that phone; espeak shapes the whole phone before, at times more.

    ``join=True`` makes the second clip begin with the first one's own samples up to the first phone that differs, with
    a cross-fade of 5 ms before it, so the two are identical until then with any voice; what the voice did to the phones
    before the change in the second text is then lost.

    Raises ``AudioError`` when the texts have the same words, share none at either end, or cannot be spoken.
    """
    words_a, words_b = _tokens(text_a), _tokens(text_b)
    if words_a == words_b:
        raise AudioError(f"The texts {text_a!r} and {text_b!r} have the same words; a minimal pair needs a difference.")
    first, last = _frame(words_a, words_b)
    if first == 0 and last == 0:
        raise AudioError(
            f"The texts {text_a!r} and {text_b!r} share no word at their start or end; "
            "put the words to compare into one frame, such as 'please say ... again'."
        )
    a = say(text_a, voice, engine, rate, speed, pitch)
    b = say(text_b, voice, engine, rate, speed, pitch)
    if join:
        b = _joined(a, b)
    a, b = _equally_long(a, b)
    b = _same_start(a, b)
    start, end = MinimalPair(a, b, (0.0, 0.0)).identical_until, _end_of_change(a, b, first, last)
    notices = _notices(a, b, last, start)
    return MinimalPair(a.noticed(*notices), b.noticed(*notices), (start, end))


def _tokens(text: str) -> list[str]:
    return [word for word in (bare(token).casefold() for token in text.split()) if word]


def _frame(words_a: list[str], words_b: list[str]) -> tuple[int, int]:
    """How many words the two share at the start, and at the end (never counting a word twice)."""
    shorter = min(len(words_a), len(words_b))
    first = next((i for i in range(shorter) if words_a[i] != words_b[i]), shorter)
    rest = shorter - first
    last = next((i for i in range(rest) if words_a[-1 - i] != words_b[-1 - i]), rest)
    return first, last


def _end_of_change(a: Clip, b: Clip, first: int, last: int) -> float:
    """End (seconds) of the last word that differs, in the clip where that is later."""
    own = [words[first : len(words) - last] for words in (_as_written(a), _as_written(b))]
    # a clip that only lacks words has none of its own there
    return max(words[-1].end for words in own if words)


def _as_written(clip: Clip) -> list[Span]:
    words = [word for word in clip.words if word.text]
    if [word.text.casefold() for word in words] != _tokens(clip.text or ""):
        raise AudioError(f"The voice does not speak every word of {clip.text!r}; give words without symbols.")
    return words


def _equally_long(a: Clip, b: Clip) -> tuple[Clip, Clip]:
    length = max(len(a), len(b))

    def padded(clip: Clip) -> Clip:
        missing = length - len(clip)
        if not missing:
            return clip
        return clip.replace(samples=np.pad(clip.samples, (0, missing))).noticed(
            f"padded with {missing / clip.rate:.3f} s of silence at the end"
        )

    return padded(a), padded(b)


def _same_start(a: Clip, b: Clip) -> Clip:
    """``b`` with the exact samples of ``a`` where the two differ by the noise of resampling only."""
    different = np.flatnonzero(np.abs(a.samples - b.samples) > _RESAMPLING_NOISE)
    until = int(different[0]) if len(different) else len(a)
    samples = b.samples.copy()
    samples[:until] = a.samples[:until]
    return b.replace(samples=samples)


def _joined(a: Clip, b: Clip) -> Clip:
    """``b`` with its beginning replaced by that of ``a``, up to the first phone that differs; times moved along."""
    count = min(len(a.phones), len(b.phones))
    index = next((i for i in range(count) if a.phones[i].text != b.phones[i].text), count - 1)
    in_a, in_b = a.phones[index].start, b.phones[index].start
    cut_a, cut_b = round(in_a * a.rate), round(in_b * b.rate)
    fade = min(round(_FADE * a.rate), cut_a, cut_b)
    ramp = (np.arange(fade) + 0.5) / max(fade, 1)
    middle = (1 - ramp) * a.samples[cut_a - fade : cut_a] + ramp * b.samples[cut_b - fade : cut_b]
    samples = np.concatenate([a.samples[: cut_a - fade], middle.astype(np.float32), b.samples[cut_b:]])

    def moved(own: tuple[Span, ...], others: tuple[Span, ...]) -> tuple[Span, ...]:
        later = [span.shifted(in_a - in_b) for span in own if span.start >= in_b - 1e-9]
        across = [
            Span(o.start, s.end + in_a - in_b, s.text) for o, s in zip(others, own) if s.start < in_b - 1e-9 < s.end
        ]
        return (*others[: len(own) - len(later) - len(across)], *across, *later)

    notice = f"its first {(cut_a - fade) / a.rate:.3f} s are those of {a.name!r}"
    return b.replace(samples=samples, words=moved(b.words, a.words), phones=moved(b.phones, a.phones)).noticed(notice)


def _notices(a: Clip, b: Clip, last: int, identical_until: float) -> tuple[str, ...]:
    notices = [f"the pair is identical until {identical_until:.3f} s"]
    if last:
        later = _as_written(b)[-last].start - _as_written(a)[-last].start
        if abs(later) > 0.5 / a.rate:
            notices.append(
                f"after the change the second clip runs {abs(later):.3f} s {'later' if later > 0 else 'earlier'}"
            )
    return tuple(notices)
