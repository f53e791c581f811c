"""Read a dictionary that another library trained, and write it in SAELens's layout, which otoscope uses.

Reads SAELens, sparsify (cfg.json, sae.safetensors) and dictionary_learning / AudioSAE (ae.pt, config.json). Nothing is
unpickled: a file that holds more than weights is refused.

Example: otoscope sae import downloaded/ae_folder --out runs/imported
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import JsonOption, print_json, print_lines


def command(
    source: Annotated[Path, typer.Argument(help="Folder of the dictionary.")],
    out: Annotated[Path, typer.Option(help="Folder to write it to.")],
    model: Annotated[str | None, typer.Option(help="Model whose activations it reads, to be noted with it.")] = None,
    site: Annotated[str | None, typer.Option(help="Site of that model, such as encoder.2.resid_post.")] = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.sae_files import import_dictionary

    done = import_dictionary(source, out, model=model, site=site)
    if json:
        print_json(done.results)
        return
    print_lines(done.lines)
