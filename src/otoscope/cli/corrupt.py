"""Corrupt a recording in one named way; the length stays exactly the same.

Example: otoscope corrupt in.wav out.wav --with white_noise --span 1.0 1.6 --set snr_db=0
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, envelope, notice, print_json, stdout


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
    json: JsonOption = False,
) -> None:
    from otoscope.audio.corruptions import apply, describe
    from otoscope.audio.files import read, write
    from otoscope.errors import AudioError
    from otoscope.studies.corrupt import parameters

    if list_all:
        _list(describe(), json)
        return
    if source is None or target is None or kind is None:
        raise AudioError("corrupt needs a recording, a target and --with NAME: see `otoscope corrupt --list`.")
    clip = read(source)
    done = apply(kind, clip, span, seed, **parameters(kind, settings or []))
    write(target, done.clip)
    for remark in done.clip.notices:
        notice(remark)
    where = f"{done.span[0]:.3f}-{done.span[1]:.3f} s"
    if json:
        more = {"kind": kind, "keeps": list(done.keeps), "breaks": list(done.breaks), "params": done.params}
        print_json(
            envelope("corrupt", {"start": done.span[0], "end": done.span[1], "seed": seed}, path=str(target), **more)
        )
        return
    stdout.print(
        f"{target}: {done.change} at {where}; keeps {', '.join(done.keeps)}; breaks {', '.join(done.breaks)}",
        soft_wrap=True,
    )


def _list(rows: list[dict], json: bool) -> None:
    if json:
        print_json(envelope("corrupt", {"corruptions": len(rows)}, corruptions=rows))
        return
    for row in rows:
        params = ", ".join(f"{k}={v.get('default', v['type'])}" for k, v in row["params"].items()) or "no parameters"
        stdout.print(f"[bold]{row['name']}[/bold]  {row['summary']}", soft_wrap=True)
        stdout.print(
            f"    {params}\n    keeps {', '.join(row['keeps'])}; breaks {', '.join(row['breaks'])}", soft_wrap=True
        )
