"""Rows of the ledger about probes: what Whisper's encoder tells of recordings it has not trained on, beside every null."""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "audio/align.py", "audio/corruptions", "engine/capture.py", "methods/controls.py", "methods/frames.py", "methods/probes",
    "models/whisper.py", "models/whisper_layers.py", "studies/probe.py", "studies/probe_labels.py",
)  # fmt: skip
#: label -> what it is, and what an accuracy of shuffled labels may be: chance, or the most frequent label, plus a tenth
LABELS: dict[str, tuple[str, str | None]] = {
    "phone": ("the phone", "<= 0.2"),
    "word": ("the spoken command", "<= 0.2"),
    "speaker": ("who speaks", "<= 0.2"),
    "sex": ("male or female", "<= 0.65"),
    "noise": ("noise behind the speech", "<= 0.6"),
}
#: part of an id -> what it says, metric, whether the label's bar holds for it
MEASURES: dict[str, tuple[str, str, bool]] = {
    "accuracy": ("read from the best layer of Whisper tiny.en, recordings held out by speaker", "accuracy", False),
    "mel": ("the same from the mel spectrogram", "accuracy.mel", False),
    "untrained": ("the same from the best layer of fresh weights", "accuracy.untrained", False),
    "shuffled": ("the same with shuffled labels (null)", "accuracy.shuffled", True),
    "selectivity": ("its accuracy minus that of the control task", "selectivity", False),
    "layer": ("the layer that is best", "best_layer", False),
}


def shown(label: str) -> str:
    """The command as a reader would type it."""
    return f"otoscope probe --label {label} --data ../shared/data --quick"


def command(label: str) -> tuple[str, ...]:
    """Probes for a label in real recordings; a run that was stopped goes on."""
    return (*shown(label).split(), "--json", "--out", f"runs/truth-probe-{label}-{digest(PARTS)}")
