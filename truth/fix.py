"""Rows of the ledger about words where nobody speaks: what the fix leaves of them, and what it costs."""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "engine/fix.py", "engine/intervene.py", "models/transcribe.py", "models/wer.py", "models/whisper.py",
    "models/whisper_layers.py", "tasks/no_speech.py", "methods/invention.py", "methods/invention_edits.py",
    "methods/whisper_writing.py", "studies/fix.py", "studies/fix_trial.py",
)  # fmt: skip
COMMAND = "otoscope fix ../shared/data/librispeech --sounds ../shared/data/esc10"
#: id -> what it says, bar, name of the metric, unit factor
STATEMENTS = {
    "before": (
        "Whisper tiny.en writes words where nobody speaks (held-out sounds, made noise, silence)", None, "hallucination.before",
    ),
    "after": ("the same with the fix that otoscope found, no fine-tuning", "<= 0.10", "hallucination.after"),
    "before_rule": (
        "words left by Whisper's no-speech rule, without the fix", None, "hallucination.before.rule",
    ),
    "after_rule": ("words left by Whisper's no-speech rule, with the fix", "<= 0.10", "hallucination.after.rule"),
    "wer_rise": ("what the fix adds to the WER of held-out speakers", "<= 0.003", "wer.rise"),
    "noisy_rise": ("WER of their speech in noise, with the fix", None, "wer.noisy.after"),
    "silenced": ("short pieces of speech that the fix silences", None, "silenced"),
    "control": ("words with a neuron that reads shuffled labels (control)", None, "hallucination.neuron.control"),
    "heads": ("words with the responsible heads damped instead", None, "hallucination.heads"),
    "direction": ("words with a steering direction instead", None, "hallucination.direction"),
    "probe": (
        "AUC of a probe of the decoder's last state at the start, speech or not", None, "auc.probe.decoder.3.resid_post",
    ),
    "padding": ("AUC of the cross-attention spent behind the end of the sound", None, "auc.padding_attention"),
    "no_speech": ("AUC of Whisper's own no-speech probability", None, "auc.no_speech_prob"),
}  # fmt: skip
README = ("before", "after", "after_rule", "wer_rise", "heads", "direction", "control")


def run() -> str:
    """The run of the ledger; other code does not resume it."""
    return f"runs/truth-fix-{digest(PARTS)}"


def command() -> tuple[str, ...]:
    """The study on real recordings; a run that was stopped goes on."""
    return (*COMMAND.split(), "--json", "--out", run())
