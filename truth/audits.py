"""Rows of the ledger about the audit of corruptions: which isolates what it is used for."""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "audio/corruptions", "audio/fit.py", "methods/yardsticks", "methods/isolation.py", "stats/equivalence.py",
    "studies/corruptions.py", "studies/corruption_checks.py", "studies/corruption_sounds.py", "studies/corruption_ways.py",
)  # fmt: skip
COMMAND = "otoscope bench corruptions --data ../shared/data --n 8 --words-model whisper-tiny.en"
#: id -> what it says, bar, name of the metric
STATEMENTS = {
    "ways": ("ways of corrupting that were audited", None, "n_ways"),
    "isolating": ("of them, those that change what they are used for and nothing else", None, "n_isolating"),
    "not_isolating": ("of them, those shown not to isolate what they are used for", ">= 1", "n_not_isolating"),
    "white_noise": ("isolation of words by white noise (1: only words change)", None, "isolation.white_noise.words"),
    "reverse": ("isolation of words by reversing a word", None, "isolation.reverse.words"),
    "minimal_pair": ("isolation of words by minimal pairs of synthetic speech", None, "isolation.minimal_pair.words"),
}
README = ("ways", "isolating", "not_isolating")


def command() -> tuple[str, ...]:
    """The audit on real recordings; a run that was stopped goes on."""
    asked = COMMAND.replace("shared/data", "shared/data/")
    return (*asked.split(), "--json", "--out", f"runs/truth-corruptions-{digest(PARTS)}")
