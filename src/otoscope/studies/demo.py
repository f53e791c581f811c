"""The demonstration: does an audio-LLM listen or guess, and where does Whisper tell spoken minimal pairs apart?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.engine.cost import Cost
from otoscope.models import mini
from otoscope.studies.listen import ListenConfig
from otoscope.studies.listen_run import Listened, listen
from otoscope.studies.patch import Notify, PatchConfig
from otoscope.studies.patch_run import Done, patch_study
from otoscope.tasks.minimal import spoken_pair
from otoscope.tasks.pair import Pair

#: frame and the two words that fill it; the second sound begins with the first one's own samples
SENTENCES = (
    ("I want to buy a {} today", "cat", "dog"),
    ("I want to buy a {} today", "table", "cable"),
    ("We will meet again on {} morning", "Monday", "Sunday"),
    ("We will meet again on {} morning", "Friday", "Tuesday"),
    ("She has a very big {} at home", "house", "mouse"),
    ("She has a very big {} at home", "garden", "table"),
)
#: conflict items of the listening part
ITEMS = 10


@dataclass(frozen=True)
class Demonstrated:
    """Both parts of the demonstration, and the results object that holds the numbers of both."""

    listened: Listened
    patched: Done
    results: dict[str, Any]


def demo_pairs() -> list[Pair]:
    """The pairs, spoken by espeak-ng.

    Raises:
        AudioError: the speech extra is not installed.
    """
    return [
        spoken_pair(frame.format(a), frame.format(b), engine="espeak", join=True).replace(name=f"{a} / {b}")
        for frame, a, b in SENTENCES
    ]


def demo(
    out: Path | None = None,
    model: str = "whisper-tiny.en",
    *,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[Cost], None] | None = None,
    notify: Notify = lambda _: None,
) -> Demonstrated:
    """Measure the embedded audio-LLM, its listener and its guesser; then localise the minimal pairs in ``model``.

    With ``out``, the reports are ``out/listen/report.html`` and ``out/patch/report.html``.
    """
    folders = (None, None) if out is None else (out / "listen", out / "patch")
    listened = listen(mini.NAME, config=ListenConfig.quick(ITEMS), out=folders[0], progress=progress, notify=notify)
    config = PatchConfig(width=0.4, encoder_parts=False)
    patched = patch_study(
        demo_pairs(), model, config, out=folders[1], progress=progress, announce=announce, notify=notify
    )
    parts = (listened.results, patched.results)
    results = {
        **parts[0], "command": "demo", "run": [part["run"] for part in parts],
        "metrics": {**parts[0]["metrics"], **parts[1]["metrics"]},
        "intervals": {**parts[0]["intervals"], **parts[1]["intervals"]},
        "claims": [*parts[0]["claims"], *parts[1]["claims"]],
    }  # fmt: skip
    return Demonstrated(listened, patched, results)
