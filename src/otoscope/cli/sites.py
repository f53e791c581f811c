"""List the places inside a model, with their shapes, frame rates and head counts.

Example: otoscope sites whisper-tiny.en "encoder.*.resid_post"
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from otoscope.cli.common import (
    DeviceOption,
    JsonOption,
    OfflineOption,
    OutOption,
    RevisionOption,
    notice,
    print_json,
    print_table,
    stdout,
)


def command(
    model: Annotated[str, typer.Argument(help="Embedded name, Hugging Face id, or local folder.")],
    pattern: Annotated[
        str, typer.Argument(help="Which sites: 'encoder.2', globs such as 'decoder.0-1.*' or 'encoder.*.z.3'.")
    ] = "*",
    device: DeviceOption = "cpu",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    import otoscope
    from otoscope.models.site import HEAD_POINTS
    from otoscope.studies.outcome import outcome

    loaded = otoscope.load(model, device=device, revision=revision, offline=offline, progress=notice)
    rows: list[dict[str, Any]] = []
    for site in loaded.sites(_completed(pattern)):
        spec = loaded.stacks[site.stack]
        rows.append(
            {
                "site": str(site), "shape": spec.shape(site.point, site.index is not None),
                "frame_rate": loaded.adapter.frame_rate(site),
                "n_heads": spec.n_heads if site.point in HEAD_POINTS else 0,
            }
        )  # fmt: skip
    asked = {"model": loaded.name, "revision": revision, "pattern": pattern}
    results = outcome("sites", {"sites": len(rows)}, asked, out, {"sites": rows})
    if json:
        print_json({**results, "sites": rows})
        return
    stacks = []
    for spec in loaded.stacks.values():
        heads = f"{spec.n_heads or '-'}" + (
            f" ({spec.n_kv_heads} kv)" if spec.n_kv_heads not in (0, spec.n_heads) else ""
        )
        stacks.append(
            (spec.name, spec.n_layers, spec.d_model, heads, spec.d_head or "-", spec.d_mlp or "-", _rate(spec.frame_rate),
             "yes" if spec.causal else "no")
        )  # fmt: skip
    columns = ("stack", "layers", "width", "heads", "per head", "neurons", "frames per second", "causal")
    print_table(columns, stacks)
    stdout.print()
    shown = [(row["site"], row["shape"], row["n_heads"] or "-", _rate(row["frame_rate"])) for row in rows]
    print_table(("site", "shape", "heads", "frames per second"), shown)


def _completed(pattern: str) -> str:
    """A stack with a layer stands for all that is in it: ``encoder.2`` for ``encoder.2.*``."""
    parts = [part.strip() for part in pattern.split(",")]
    return ",".join(f"{part}.*" if part.count(".") == 1 else part for part in parts)


def _rate(frames_per_second: float | None) -> str:
    return f"{frames_per_second:g}" if frames_per_second else "tokens"
