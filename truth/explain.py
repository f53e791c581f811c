"""Rows of the ledger about explained errors: is the verdict right where the reason of an error is known?"""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "audio/align.py", "audio/clip.py", "audio/corruptions", "audio/pronounce.py", "audio/stretch.py", "audio/synth",
    "engine/capture.py", "engine/hearing.py", "stats/bootstrap.py", "models/asr_errors.py", "models/attention.py",
    "models/transcribe.py", "models/wer.py", "models/whisper.py", "models/whisper_layers.py", "models/writer.py",
    "methods/error_evidence.py", "methods/error_verdict.py", "methods/parting.py", "methods/timing.py",
    "methods/dtw.py", "tasks/planted_errors.py", "tasks/faults.py", "tasks/speakers.py",
    "tasks/corpora/librispeech.py", "studies/explain.py", "studies/explain_planted.py",
)  # fmt: skip


def command() -> tuple[str, ...]:
    """Planted errors in sentences of the test half of the speakers; a run that was stopped goes on."""
    return (
        "otoscope", "explain", "--planted", "--data", "../shared/data/librispeech", "--n", "150", "--seed", "1", "--workers", "2",
        "--json", "--out", f"runs/truth-explain-{digest(PARTS)}",
    )  # fmt: skip
