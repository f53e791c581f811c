"""Download embedded weights ahead of time, check them and convert them once.

Example: otoscope fetch whisper-tiny.en
"""

from __future__ import annotations

from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, envelope, print_json, stderr, stdout


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Embedded models; all of them by default.")] = None,
    force: Annotated[bool, typer.Option(help="Fetch again even if the model is in the cache.")] = False,
    json: JsonOption = False,
) -> None:
    from otoscope.models.embedded import EMBEDDED, fetch

    fetched = {}
    for name in names or list(EMBEDDED):
        fetched[name] = str(fetch(name, force=force, progress=lambda line: stderr.print(line, soft_wrap=True)))
        if not json:
            stdout.print(f"{name}: {fetched[name]}", soft_wrap=True)
    if json:
        print_json(envelope("fetch", {"fetched": len(fetched)}, paths=fetched))
