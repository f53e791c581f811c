"""Corrupt a recording in one named way; the length stays exactly the same.

Example: otoscope corrupt in.wav out.wav --with white_noise --span 1.0 1.6 --set snr_db=0
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from otoscope.cli.common import JsonOption, OutOption, notice, print_json, print_lines


def command(
    source: Annotated[Path | None, typer.Argument(help="The recording.")] = None,
    target: Annotated[Path | None, typer.Argument(help="Where to write the corrupted one (.wav or .flac).")] = None,
    kind: Annotated[str | None, typer.Option("--with", help="Which corruption; --list shows all.")] = None,
    span: Annotated[
        tuple[float, float] | None, typer.Option(help="Start and end in seconds; all of it by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter, NAME=VALUE; for a sound, the path of a file.")
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the corruptions with what each keeps and breaks.")
    ] = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.audio.corruptions import apply, describe
    from otoscope.audio.files import read, write
    from otoscope.errors import AudioError
    from otoscope.studies.corrupt import parameters
    from otoscope.studies.outcome import outcome

    if list_all:
        known = describe()
        listed = [{key: _flat(value) for key, value in row.items()} for row in known]
        results = outcome("corrupt", {"corruptions": len(known)}, {"list": True}, out, {"corruptions": listed})
        if json:
            print_json({**results, "corruptions": known})
        else:
            print_lines(line for row in known for line in _described(row))
        return
    if source is None or target is None or kind is None:
        raise AudioError("corrupt needs a recording, a target and --with NAME: see `otoscope corrupt --list`.")
    clip = read(source)
    done = apply(kind, clip, span, seed, **parameters(kind, settings or []))
    write(target, done.clip)
    for remark in done.clip.notices:
        notice(remark)
    asked = {
        "clip": clip.digest()[:16], "kind": kind, "span": list(done.span), "seed": seed, "settings": sorted(settings or []),
    }  # fmt: skip
    metrics = {"start": done.span[0], "end": done.span[1], "seed": seed}
    results = outcome("corrupt", metrics, asked, out)
    if json:
        more = {"kind": kind, "keeps": list(done.keeps), "breaks": list(done.breaks), "params": done.params}
        print_json({**results, "path": str(target), **more})
        return
    where = f"{done.span[0]:.3f}-{done.span[1]:.3f} s"
    print_lines([f"{target}: {done.change} at {where}; keeps {', '.join(done.keeps)}; breaks {', '.join(done.breaks)}"])


def _described(row: dict[str, Any]) -> list[str]:
    params = ", ".join(f"{k}={v.get('default', v['type'])}" for k, v in row["params"].items()) or "no parameters"
    keeps, breaks = ", ".join(row["keeps"]), ", ".join(row["breaks"])
    return [f"{row['name']}  {row['summary']}", f"    {params}", f"    keeps {keeps}; breaks {breaks}"]


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))
