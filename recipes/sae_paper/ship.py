"""Put the best dictionary of each layer of a finished `otoscope sae paper` run into the package, with a card and its hash.

    python recipes/sae_paper/ship.py runs/sae-paper

Which one is the best is decided in `studies/sae_paper.py`: of the kinds whose FVU is near the least, the one whose single
features tell phones best; its first training is taken. Prints the lines for `otoscope/sae/builtin.py`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from pathlib import Path

from otoscope.runs.files import write_bytes
from otoscope.sae.builtin import SHIPPED
from otoscope.sae.formats import load, saelens
from otoscope.sae.publish import card

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "otoscope"
#: rows of the run's table that the card shows
SHOWN = ("FVU", "FVU of speech", "FVU of sounds", "L0", "phone, 1 feature", "phone, 5", "speaker, 1", "stability")

ATTRIBUTION = """## Trained on

Activations of read English sentences (LibriSpeech dev-clean and test-other, CC BY 4.0), spoken commands (Speech Commands 0.02,
CC BY 4.0), spoken digits (Free Spoken Digit Dataset, CC BY-SA 4.0) and environmental sounds (ESC-10, CC BY 3.0; credits in that
corpus's README), some of them in noise. The model's own licence is MIT.

## Held out

Speakers and sounds that the training never heard; means over trainings with different seeds, of which this is the first.

"""


def ship(run: Path) -> list[str]:
    """Copy, write cards; returns the registry's lines."""
    chosen = json.loads((run / "best.json").read_text("utf-8"))
    with (run / "tables" / "dictionaries.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = []
    for layer, (kind, label) in chosen.items():
        made = load(run / "dictionaries" / layer / f"{kind}-0")
        model = made.metadata["model_name"]
        short = ".".join(layer.split(".")[:2])
        name = f"{Path(model).name}-{short}"
        out = PACKAGE / SHIPPED / name
        saelens.write(made, out)
        (row,) = [r for r in rows if r["layer"] == short and r["dictionary"] == label]
        table = "\n".join(f"| {key} | {float(row[key]):.3f} |" for key in SHOWN)
        digest = hashlib.sha256((out / "sae_weights.safetensors").read_bytes()).hexdigest()
        head = card(made, name, "USER/REPOSITORY").partition("## Load it")[0]
        use = f'## Load it\n\n```python\nimport otoscope.sae\n\nsae = otoscope.sae.load("{name}")\n```\n\n'
        text = f"{head}{use}{ATTRIBUTION}| | |\n|---|---|\n{table}\n\nSHA-256 of the weights: `{digest}`.\n"
        write_bytes(out / "MODEL_CARD.md", text.encode())
        lines.append(f'Builtin("{name}", "{model}", "{layer}", "{digest}"),')
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    print("\n".join(ship(parser.parse_args().run)))
