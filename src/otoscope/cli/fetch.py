"""Download embedded weights ahead of time, check them and convert them once.

Example: otoscope fetch whisper-tiny.en
"""

from __future__ import annotations

from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, OutOption, print_json, print_lines, progress


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Embedded models; all of them by default.")] = None,
    force: Annotated[bool, typer.Option(help="Fetch again even if the model is in the cache.")] = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.models.embedded import EMBEDDED, fetch
    from otoscope.studies.outcome import outcome

    wanted = names or list(EMBEDDED)
    with progress("fetching") as bar:
        paths = {name: str(fetch(name, force=force, progress=bar.say)) for name in wanted}
    rows = [{"name": name, "path": path} for name, path in paths.items()]
    results = outcome("fetch", {"fetched": len(paths)}, {"names": wanted}, out, {"models": rows})
    if json:
        print_json({**results, "paths": paths})
        return
    print_lines(f"{name}: {path}" for name, path in paths.items())
