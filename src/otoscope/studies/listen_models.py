"""Which models a listening study compares: one, or the plain mini-qwen2-audio and its two twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.engine.model import Model, load
from otoscope.errors import ModelError
from otoscope.models import mini
from otoscope.models.dial import Dial, twins

#: mixtures of (listener, guesser) whose behaviour is the planted truth, from all guesser to all listener; denser in the
#: middle, where the answers change from one label to the other
DIAL = (0.0, 0.25, 0.42, 0.46, 0.5, 0.54, 0.58, 0.62, 0.66, 0.7, 0.85, 1.0)
TWINS: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "listener": {"listener": 1.0},
    "guesser": {"guesser": 1.0},
}


@dataclass(frozen=True)
class Compared:
    """A loaded model and the settings of it that are compared.

    Attributes:
        model: the model; its weights are those of the setting that was chosen last.
        settings: name -> shares of the dial's adapters; one setting without shares where there is no dial.
        dial: moves between settings; None for models without twins.
    """

    model: Model
    settings: Mapping[str, Mapping[str, float]]
    dial: Dial | None

    def choose(self, **shares: float) -> None:
        """Set the dial. Raises ``ModelError`` where there is none."""
        if self.dial is not None:
            self.dial.set(**shares)
        elif shares:
            raise ModelError(f"{self.model.name} has no dial: only {mini.NAME} comes with a listener and a guesser.")

    def each(self) -> Iterator[str]:
        """The settings in turn, each in force while it is current; afterwards the model is as it was."""
        try:
            for name, shares in self.settings.items():
                self.choose(**shares)
                yield name
        finally:
            self.choose()


def compared(
    model: str | Model = mini.NAME,
    adapter: str | Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
    **loading: Any,
) -> Compared:
    """Load a model for the study.

    Args:
        model: name, path, or a loaded model. ``mini-qwen2-audio`` alone stands for the plain model and both twins.
        adapter: a LoRA adapter to load on top: a folder, or ``listener`` / ``guesser`` of mini-qwen2-audio.
        notify: told what is being loaded.
        loading: device, dtype, revision, offline.

    Raises:
        ModelError: no such model or adapter, or a model that does not listen and read.
    """
    loaded = model if isinstance(model, Model) else load(model, progress=notify, **loading)
    if not (loaded.listens_and_reads or loaded.family == "whisper"):
        raise ModelError(
            f"{loaded.name} cannot be asked about a sound: expected an audio-LLM such as {mini.NAME}, or a Whisper."
        )
    if loaded.name != mini.NAME:
        if adapter is None:
            return Compared(loaded, {Path(loaded.name).name: {}}, None)
        dial = Dial(loaded, {"adapter": adapter})
        return Compared(loaded, {Path(loaded.name).name: {}, Path(adapter).name: {"adapter": 1.0}}, dial)
    if adapter is None:
        return Compared(loaded, TWINS, twins(loaded))
    if str(adapter) in TWINS:
        return Compared(loaded, {str(adapter): TWINS[str(adapter)]}, twins(loaded))
    return Compared(loaded, {Path(adapter).name: {"adapter": 1.0}}, Dial(loaded, {"adapter": adapter}))
