"""Rows of the ledger about the atlas: how many units learned what, how many of fresh weights would pass, and what replicates."""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "audio/align.py", "audio/pitch.py", "engine/capture.py", "methods/controls.py", "methods/frames.py",
    "methods/unit_selectivity.py", "methods/units.py", "models/whisper.py", "models/whisper_layers.py", "studies/atlas.py",
    "studies/atlas_heads.py", "studies/atlas_material.py", "studies/atlas_run.py", "studies/atlas_writing.py",
)  # fmt: skip
COMMAND = "otoscope atlas --model whisper-tiny.en --data ../shared/data --n 32"
#: part of an id -> stack, family, what its labels are
FAMILIES = {
    "phones": ("encoder", "phones", "phones and manners"),
    "pitch": ("encoder", "pitch", "pitch"),
    "onset": ("encoder", "word_onset", "word onsets"),
    "silence": ("encoder", "silence", "pauses"),
    "padding": ("encoder", "padding", "padding"),
    "noise": ("encoder", "noise", "noise behind speech"),
    "sound": ("encoder", "sound", "sounds without speech"),
    "writes_onset": ("decoder", "word_onset", "that a word begins next"),
    "writes_end": ("decoder", "end_of_speech", "that the end comes next"),
    "writes_times": ("decoder", "timestamps", "that a timestamp comes next"),
    "writes_again": ("decoder", "repetition", "that the same was written before"),
    "writes_sound": ("decoder", "sound", "that nobody speaks"),
}
#: id -> what it says, bar, name of the metric
STATEMENTS: dict[str, tuple[str, str | None, str]] = {
    "learned_encoder": (
        "share of Whisper tiny.en's encoder neurons and heads that follow a label beyond shuffled labels and fresh weights",
        ">= 0.05", "learned.encoder",
    ),
    "fresh_encoder": ("the same for other fresh weights (null)", "<= 0.01", "fresh.encoder"),
    "learned_decoder": ("share of its decoder's neurons and heads that do", ">= 0.05", "learned.decoder"),
    "fresh_decoder": ("the same for other fresh weights (null)", "<= 0.01", "fresh.decoder"),
    "held_out": (
        "mean AUC, on the half of the speakers that did not choose it, of each label's best unit", ">= 0.6", "held_out_auc",
    ),
    "alignment": (
        "attention of one head, chosen on other recordings, to the word being written, beyond chance", ">= 0",
        "alignment_head",
    ),
    "alignment_fresh": ("the same for fresh weights (null)", "<= 0.05", "alignment_head.fresh"),
}  # fmt: skip
for _name, (_stack, _family, _labels) in FAMILIES.items():
    STATEMENTS[_name] = (f"{_stack} units that follow {_labels}", None, f"learned.{_stack}.{_family}")
    STATEMENTS[f"{_name}_fresh"] = (f"fresh {_stack} units that do (null)", "<= 0.01", f"fresh.{_stack}.{_family}")
README = ("learned_encoder", "fresh_encoder", "learned_decoder", "fresh_decoder", "held_out")


def command() -> tuple[str, ...]:
    """The atlas of real recordings; a run that was stopped goes on."""
    asked = COMMAND.replace("shared/data", "shared/data/")
    return (*asked.split(), "--json", "--out", f"runs/truth-atlas-{digest(PARTS)}")
