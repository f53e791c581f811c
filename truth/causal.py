"""Rows of the ledger about the causal benchmark: does it hold of itself, and what does each method truly get?"""

from __future__ import annotations

from depends import digest

#: what the benchmark's numbers depend on
PARTS = (
    "audio", "engine", "models", "tasks", "stats", "methods/localise", "methods/pose.py", "methods/contrast.py",
    "methods/faithfulness.py", "methods/similarity.py", "studies/causal.py", "studies/causal_cells.py",
    "studies/causal_scores.py", "studies/causal_protocol.yaml",
)  # fmt: skip
#: entrants, and what the tables call them
ENTRANTS = {
    "exact-repair": "exact patching from the healthy run",
    "attribution-repair": "attribution patching from the healthy run",
    "integrated-gradients": "integrated gradients from the healthy run",
    "activation-difference-repair": "activation difference from the healthy run",
    "cka-difference-repair": "CKA difference from the healthy run",
    "lens-divergence-repair": "lens divergence from the healthy run",
    "gradient-activation-repair": "gradient x activation, faulty run alone",
    "exact-pairs": "exact patching, clean / corrupt pairs alone",
    "attribution-pairs": "attribution patching, pairs alone",
    "random": "random guessing",
}


def command() -> tuple[str, ...]:
    """The benchmark on the embedded Whisper with real recordings; a run that was stopped goes on."""
    return (
        "otoscope",
        "bench",
        "causal",
        "--data",
        "../shared/data/",
        "--json",
        "--out",
        f"runs/truth-causal-{digest(PARTS)}",
    )
