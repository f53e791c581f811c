"""List the models that can be loaded here and now, and what is missing for the others.

Example: otoscope models
"""

from __future__ import annotations

from otoscope.cli.common import JsonOption, OutOption, print_json, print_lines, print_table


def command(out: OutOption = None, json: JsonOption = False) -> None:
    from dataclasses import asdict

    from otoscope.models.load import FAMILIES, adapter_class
    from otoscope.models.sources import available
    from otoscope.studies.outcome import outcome

    found = available(tuple(FAMILIES))
    rows = [{"name": row.name, "family": adapter_class(row.model_type).family, **asdict(row)} for row in found]
    metrics = {"models": len(rows), "ready": sum(row.ready for row in found)}
    results = outcome("models", metrics, {}, out, {"models": rows})
    if json:
        print_json({**results, "models": rows})
        return
    columns = ("name", "family", "model type", "ready", "size", "licence")
    shown = [
        (row.name, listed["family"], row.model_type, "yes" if row.ready else "no", f"{row.size_bytes / 1e6:.0f} MB", row.licence)
        for row, listed in zip(found, rows)
    ]  # fmt: skip
    print_table(columns, shown)
    if missing := [f"  {row.how}" for row in found if not row.ready]:
        print_lines(["\nNot here yet:", *missing])
    print_lines([f"\nAlso: any Hugging Face id or local folder (CTranslate2 too) of {', '.join(FAMILIES)}."])
