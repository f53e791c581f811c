"""Rows of the ledger about dictionaries of sound: does a temporal loss help, and is it more than overlap?"""

from __future__ import annotations

from depends import digest

#: what the numbers depend on
PARTS = (
    "sae/trainer.py", "sae/temporal.py", "sae/matryoshka.py", "sae/batchtopk.py", "sae/topk.py", "sae/mixing.py",
    "sae/harvest.py", "sae/measures/compare.py", "sae/measures/probing.py", "sae/measures/smoothness.py",
    "studies/sae_paper_material.py",
)  # fmt: skip
COMMAND = "otoscope sae paper --data ../shared/data"
LAYERS = ("encoder.2", "encoder.3")
#: id -> what it says, bar, name of the metric
STATEMENTS: dict[str, tuple[str, str | None, str]] = {
    "trainings": ("dictionaries trained to compare kinds", None, "trainings")
}
for _layer in LAYERS:
    _at = _layer.replace("encoder.", "")
    for _kind, _label in (
        ("topk", "TopK"), ("batchtopk", "BatchTopK"), ("matryoshka", "Matryoshka"), ("temporal", "temporal"),
        ("alpha0", "temporal without its loss"), ("shuffled", "temporal, shuffled time"),
        ("alpha0-smoothed", "without the loss, averaged over 3 frames"), ("topk-smoothed", "TopK, averaged over 3 frames"),
    ):  # fmt: skip
        STATEMENTS[f"phones_{_kind}_{_at}"] = (
            f"{_label}, {_layer}: balanced accuracy of one feature per phone, held-out speakers", None,
            f"phone_k1.{_kind}.{_layer}",
        )  # fmt: skip
        STATEMENTS[f"fvu_{_kind}_{_at}"] = (f"{_label}, {_layer}: FVU", None, f"fvu.{_kind}.{_layer}")
    for _over, _label in (
        ("others", "the best of TopK, BatchTopK and Matryoshka"), ("alpha0", "the same without the loss"),
        ("shuffled", "partners drawn at random"), ("overlap", "averaging codes over neighbouring frames"),
    ):  # fmt: skip
        STATEMENTS[f"gain_{_over}_{_at}"] = (
            f"what a temporal loss adds to one feature's phones at {_layer}, against {_label}", None, f"gain.{_over}.{_layer}",
        )  # fmt: skip
    STATEMENTS[f"null_{_at}"] = (
        f"the same probe of shuffled phones at {_layer} (null)",
        "<= 0.53",
        f"phone_k1.labels_shuffled.{_layer}",
    )
STATEMENTS["fresh"] = (
    "one feature per phone, temporal dictionary of fresh weights (null)",
    None,
    "phone_k1.temporal.fresh",
)
README = tuple(name for name in STATEMENTS if name.startswith(("gain_alpha0_", "gain_overlap_")))


def run() -> str:
    """The run of the ledger; other code does not resume it."""
    return f"runs/truth-sae-paper-{digest(PARTS)}"


def command() -> tuple[str, ...]:
    """The recipe on real recordings; a run that was stopped goes on."""
    return (*COMMAND.replace("shared/data", "shared/data/").split(), "--json", "--out", run())
