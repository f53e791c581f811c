"""List the places inside a model, with their shapes, frame rates and head counts.

Example: otoscope sites whisper-tiny.en "encoder.*.resid_post"
"""

from __future__ import annotations

from typing import Annotated

import typer

from otoscope.cli.common import (
    DeviceOption,
    JsonOption,
    OfflineOption,
    RevisionOption,
    envelope,
    print_json,
    stdout,
)


def command(
    model: Annotated[str, typer.Argument(help="Embedded name, Hugging Face id, or local folder.")],
    pattern: Annotated[
        str, typer.Argument(help="Which sites: globs such as 'decoder.0-1.*' or 'encoder.*.z.3'.")
    ] = "*",
    device: DeviceOption = "cpu",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    import otoscope

    loaded = otoscope.load(model, device=device, revision=revision, offline=offline)
    sites = loaded.sites(pattern)
    rows = [(str(site), loaded.stacks[site.stack]) for site in sites]
    if json:
        listed = [
            {
                "site": str(site), "shape": loaded.stacks[site.stack].shape(site.point, site.index is not None),
                "frame_rate": loaded.adapter.frame_rate(site),
                "n_heads": loaded.stacks[site.stack].width(site.point) if "z" in site.point or "pattern" in site.point else 0,
            }
            for site in sites
        ]  # fmt: skip
        print_json(envelope("sites", {"sites": len(rows)}, sites=listed))
        return
    from rich.table import Table

    stacks = Table(box=None, pad_edge=False)
    for column in ("stack", "layers", "width", "heads", "per head", "neurons", "frames per second", "causal"):
        stacks.add_column(column)
    for spec in loaded.stacks.values():
        rate = f"{spec.frame_rate:g}" if spec.frame_rate else "tokens"
        heads = f"{spec.n_heads}" + (f" ({spec.n_kv_heads} kv)" if spec.n_kv_heads not in (0, spec.n_heads) else "")
        stacks.add_row(
            spec.name, str(spec.n_layers), str(spec.d_model), heads if spec.n_heads else "-", str(spec.d_head or "-"),
            str(spec.d_mlp or "-"), rate, "yes" if spec.causal else "no",
        )  # fmt: skip
    stdout.print(stacks)
    stdout.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("site")
    table.add_column("shape")
    table.add_column("frames per second")
    for site in sites:
        shape = loaded.stacks[site.stack].shape(site.point, site.index is not None)
        rate = loaded.adapter.frame_rate(site)
        table.add_row(str(site), shape.replace("[", r"\["), f"{rate:g}" if rate else "tokens")
    stdout.print(table)
