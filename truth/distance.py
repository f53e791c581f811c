"""Rows of the ledger about the out-of-distribution study: does distance from natural states predict false places?"""

from __future__ import annotations

import json
from typing import Any

from depends import SRC, digest

#: what the maps depend on
PARTS = (
    "audio", "engine", "models/whisper.py", "models/whisper_layers.py", "models/transcribe.py", "tasks/minimal.py",
    "tasks/planted.py", "methods/natural.py", "methods/false_localisation.py", "methods/controls.py", "studies/distance.py",
    "studies/distance_grid.py", "studies/distance_pairs.py",
)  # fmt: skip
COMMAND = "otoscope bench distance --data ../shared/data"
#: id -> what it says, bar, name of the metric
STATEMENTS: dict[str, tuple[str, str | None, str]] = {
    "maps": ("maps of changes whose place is known", None, "maps"),
    "silent": ("of them, those that name no place", None, "silent"),
    "false": ("of those that name one, false ones: elsewhere, or with a false alarm far away", None, "false"),
    "wrong": ("the same, elsewhere alone", None, "wrong"),
    "reference": ("false maps where the clean states are put in at the input", "<= 0.15", "false.input-0.2s-denoise-donor"),
    "identical": ("maps that name a place when both sounds are equal (null)", "<= 0.05", "named.identical"),
    "inaudible": ("the same for noise 60 dB below the word (null)", "<= 0.05", "named.inaudible"),
    "untrained": ("the same on fresh weights (null)", "<= 0.05", "named.untrained"),
    "within": ("distance predicts a false map, within corruption and kind of patch (concordance; chance 0.5)", None,
               "auc.within"),
    "windows": ("distance predicts an effect of a control window, likewise", None, "auc.windows"),
    "across": ("over corruptions and kinds: distance and share of false maps (rank correlation)", None, "rho.cells"),
    "flag": ("share of false maps where the named window is flagged unnatural, less that where not", None, "flagged.gain"),
}  # fmt: skip
#: the sentence that `otoscope bench causal` prints with its protocol
KEPT = SRC / "studies" / "distance_recommendation.json"
README = ("false", "within", "across")


def command() -> tuple[str, ...]:
    """The study on real recordings; a run that was stopped goes on."""
    asked = COMMAND.replace("shared/data", "shared/data/")
    return (*asked.split(), "--json", "--out", f"runs/truth-distance-{digest(PARTS)}")


def keep(results: dict[str, Any]) -> dict[str, Any]:
    """Write the recommendation into the package, with its source; returns its claim.

    Raises:
        TaskError: the study could not recommend anything.
    """
    from otoscope.studies.distance_run import recommendation

    kept = {
        "recommendation": recommendation(results), "command": COMMAND, "model": "whisper-tiny.en",
        "sentences": results["metrics"]["sentences"],
    }  # fmt: skip
    KEPT.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return next(c for c in results["claims"] if c["id"] == "recommendation")
