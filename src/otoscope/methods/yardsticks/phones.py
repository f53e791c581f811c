"""Phones: how much worse the phones of the clean text fit the sound, by the phone models of an HMM recogniser.

The text of the clean clip is aligned with each of the two sounds (Viterbi, pocketsphinx's speaker-independent English
models). A frame's score is the log-likelihood of the state that the text asks for, minus that of the best state of any phone:
0 where no other phone fits better. The mean over the frames of the words in question is the "goodness of pronunciation" (Witt
and Young 2000, equation 3), which a change of voice hardly touches: ``moved = goodness(clean) - goodness(corrupt)``.

The recogniser is another one than that of ``words``, has no language model, and is told the text, so it cannot guess a word
from its neighbours. Where the text does not fit the sound at all there is no alignment, and goodness is ``NO_FIT``.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from otoscope.audio.clip import Clip
from otoscope.audio.fit import WordFit, word_fits
from otoscope.errors import AudioError
from otoscope.methods.yardsticks.base import Seconds, Yardstick

#: Goodness where there is no alignment, nats per frame: about that of the wrong sentence where one is forced.
NO_FIT = -10.0


class Phones(Yardstick):
    """Loss of goodness of pronunciation."""

    factor = "phones"
    unit = "nats per frame"
    summary = "how much worse the clean text's phones fit the sound (goodness of pronunciation by an HMM), clean minus corrupt"

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Clip, dict[str, tuple[WordFit, ...] | None]] = WeakKeyDictionary()

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """Goodness of the clean text in the clean sound minus that in the corrupt one, over the words whose middle is in the
        span; NaN where the text is not known, does not fit its own sound, or has no word there."""
        if not clean.text:
            return float("nan")
        before, after = (self._fits(clip, clean.text) for clip in (clean, corrupt))
        if before is None:
            return float("nan")
        chosen = [
            i for i, word in enumerate(before) if span is None or span[0] <= (word.start + word.end) / 2 <= span[1]
        ]
        if not chosen:
            return float("nan")
        return _goodness(before, chosen) - (NO_FIT if after is None else _goodness(after, chosen))

    def _fits(self, clip: Clip, text: str) -> tuple[WordFit, ...] | None:
        known = self._known.setdefault(clip, {})
        if text not in known:
            try:
                known[text] = word_fits(clip, text)
            except AudioError as error:
                if "pip install" in str(error):
                    raise
                known[text] = None
        return known[text]


def _goodness(words: tuple[WordFit, ...], chosen: list[int]) -> float:
    total = sum(words[i].score for i in chosen) / sum(words[i].frames for i in chosen)
    return max(NO_FIT, total)
