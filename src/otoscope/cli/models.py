"""List the models that can be loaded here and now, and what is missing for the others.

Example: otoscope models
"""

from __future__ import annotations

from otoscope.cli.common import JsonOption, envelope, print_json, stdout


def command(json: JsonOption = False) -> None:
    from dataclasses import asdict

    from otoscope.models.load import FAMILIES
    from otoscope.models.sources import available

    rows = available(tuple(FAMILIES))
    if json:
        print_json(envelope("models", {"ready": sum(r.ready for r in rows)}, models=[asdict(r) for r in rows]))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "family", "ready", "size", "licence", "where / how"):
        table.add_column(column, overflow="fold")
    for row in rows:
        ready = "yes" if row.ready else "no"
        table.add_row(row.name, row.model_type, ready, f"{row.size_bytes / 1e6:.0f} MB", row.licence or "", row.how)
    stdout.print(table)
    families = ", ".join(FAMILIES)
    stdout.print(f"\nAlso: any Hugging Face id or local folder (CTranslate2 too) of {families}.", soft_wrap=True)
