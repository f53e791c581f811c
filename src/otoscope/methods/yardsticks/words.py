"""Words: the share of the words that a recogniser hears differently.

``moved = (substitutions + deletions + insertions) / words``, between what Whisper writes of the clean and of the corrupt clip,
both normalised (``otoscope.models.wer``), at most 1. The recogniser is another one than the model under study. Its own errors
on the clean clips, against their texts, are its reliability.

To be quick, it hears windows shorter than 30 s: the rows of its table of positions beyond the window are left out. It then
writes a little worse than at full length, on clean and corrupt clips alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model, load
from otoscope.errors import ModelError
from otoscope.methods.yardsticks.base import Seconds, Yardstick
from otoscope.models.transcribe import transcribe
from otoscope.models.wer import normaliser, score

#: The window that the recogniser hears, seconds.
WINDOW = 10.0
_BATCH = 8


class Words(Yardstick):
    """Words that are heard differently.

    Args:
        model: the recogniser, a Whisper: a name or path, or a loaded model that nothing else uses (it is shortened).
        window: seconds that it hears at once; None leaves it as it is.
    """

    factor = "words"
    unit = "errors per word"
    summary = "word errors between what a recogniser writes of the clean and of the corrupt clip, per word of the span"

    def __init__(self, model: str | Model = "whisper-base", window: float | None = WINDOW) -> None:
        self._model: str | Model = model
        self._window = window
        self._heard: WeakKeyDictionary[Clip, str] = WeakKeyDictionary()

    @property
    def model(self) -> Model:
        """The recogniser, loaded on first use."""
        if isinstance(self._model, str):
            self._model = load(self._model)
        if self._window is not None:
            shorten(self._model, self._window)
            self._window = None
        return self._model

    def prepare(self, clips: Sequence[Clip]) -> None:
        """Transcribe the clips that are not known yet, in batches."""
        new = [clip for clip in dict.fromkeys(clips) if clip not in self._heard]
        if new:
            language = "en" if self.model.hf.config.vocab_size > 51864 else None  # the English-only models take none
            for clip, found in zip(new, transcribe(self.model, new, _BATCH, language)):
                self._heard[clip] = normaliser()(found.text)

    def remember(self, clip: Clip, text: str) -> None:
        """Take a normalised transcript from an earlier run instead of listening again."""
        self._heard[clip] = text

    def heard(self, clip: Clip) -> str:
        """What the recogniser writes of a clip, normalised."""
        self.prepare([clip])
        return self._heard[clip]

    def moved(
        self, clean: Clip, corrupt: Clip, span: Seconds | None = None, corrupt_span: Seconds | None = None
    ) -> float:
        """Errors per word of the span (per word of the clip without one), at most 1; NaN where nothing is heard in the clean."""
        self.prepare([clean, corrupt])
        item = score([self._heard[corrupt]], [self._heard[clean]]).items[0]
        n_words = item.words if span is None else words_inside(clean, span, item.words)
        return min(1.0, item.errors / n_words) if n_words else float("nan")


def words_inside(clip: Clip, span: Seconds, n_words: int) -> float:
    """Words whose middle lies in a span; from its share of the duration of ``n_words`` where word times are not known."""
    if clip.words:
        return max(1, sum(span[0] <= (word.start + word.end) / 2 <= span[1] for word in clip.words))
    return max(1.0, n_words * (span[1] - span[0]) / clip.duration)


def shorten(model: Model, seconds: float) -> None:
    """Let a Whisper hear ``seconds`` at once instead of 30: it computes less, and hears the rest in further windows.

    Raises:
        ModelError: the model is no Whisper.
    """
    import torch

    if model.family != "whisper":
        raise ModelError(f"{model.name} is no Whisper: give one as the recogniser, such as whisper-base.")
    encoder, config = model.hf.model.encoder, model.hf.config
    positions = min(round(seconds * 50), config.max_source_positions)
    table = encoder.embed_positions.weight.data[:positions].clone()
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(table)
    encoder.max_source_positions = config.max_source_positions = positions
