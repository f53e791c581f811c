"""Write a folder for the Hugging Face Hub: the dictionary as SAELens loads it, and a model card with its tags.

Nothing is sent anywhere unless --upload names a repository and you are logged in.

Example: otoscope sae publish runs/sae --out hub/sae
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, print_json, print_lines


def command(
    source: Annotated[Path, typer.Argument(help="Folder of the dictionary (a training's --out).")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    name: Annotated[str | None, typer.Option(help="Its name in the repository; default its site.")] = None,
    upload: Annotated[str | None, typer.Option(help="Repository to upload to, USER/NAME.")] = None,
    private: Annotated[bool, typer.Option(help="Make that repository a private one.")] = False,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.sae_files import publish_dictionary

    done = publish_dictionary(source, out, name=name, repo=upload, private=private)
    if json:
        print_json(done.results)
        return
    print_lines(done.lines)
