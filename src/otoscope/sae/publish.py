"""A folder that can go to the Hugging Face Hub as it is: a dictionary in SAELens's layout, and a model card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from otoscope.errors import ModelError
from otoscope.runs.files import write_bytes
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import saelens

TAGS = ("saelens", "audio", "speech", "sparse-autoencoder", "interpretability")


def write_folder(dictionary: Dictionary, out: str | Path, name: str | None = None, repo: str | None = None) -> Path:
    """Write ``out/NAME/`` (what ``SAE.from_pretrained(repo, NAME)`` of SAELens loads) and ``out/README.md``.

    Args:
        dictionary: what to publish.
        out: folder, made where there is none.
        name: its name within the repository; default its site.
        repo: the repository's id, for the examples of the card.

    Returns:
        ``out``.

    Raises:
        RunError: it cannot be written.
    """
    out = Path(out)
    name = re.sub(r"[^\w.-]+", "-", name or str(dictionary.metadata.get("hook_name") or dictionary.architecture))
    saelens.write(dictionary, out / name)
    write_bytes(out / "README.md", card(dictionary, name, repo or "USER/REPOSITORY").encode())
    return out


def card(dictionary: Dictionary, name: str, repo: str) -> str:
    """The model card: what it is, where it comes from, how to load it. Only what its metadata says."""
    about: dict[str, Any] = dictionary.metadata
    model, site = about.get("model_name"), about.get("hook_name")
    what = f"the activations of {model} at `{site}`" if model and site else "activations of an audio model"
    rows = [
        ("architecture", dictionary.architecture),
        ("features", dictionary.config.n_features),
        ("width of the activations", dictionary.config.d),
        ("active features per frame (k)", getattr(dictionary.config, "k", None)),
        ("sampling rate (Hz)", about.get("sampling_rate")),
        ("frames per second", about.get("frame_rate")),
    ]
    trained = about.get("training") or {}
    words = {"step": "steps", "fvu": "FVU on the last training batches", "l0": "L0 there", "dead": "dead share there"}
    rows += [(label, f"{trained[key]:.4g}") for key, label in words.items() if key in trained]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows if value is not None)
    tags = "\n".join(f"- {tag}" for tag in TAGS)
    return f"""---
library_name: saelens
tags:
{tags}
---

# {name}

A sparse autoencoder of {what}, trained with otoscope.

| | |
|---|---|
{table}

`FVU = E|x - x^|^2 / (E|x|^2 - |E x|^2)`.

## Load it

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{repo}", "{name}")
```

```python
from huggingface_hub import snapshot_download
from otoscope.sae.formats import load

dictionary = load(snapshot_download("{repo}") + "/{name}")
codes = dictionary.encode_sparse(x)  # x: [frame, {dictionary.config.d}]
```

Feed it frames of sound, not padding: models that pad every recording to a fixed length give activations there as well.
"""


def upload(folder: Path, repo: str, private: bool = False) -> str:
    """Upload a folder to the Hub, making the repository where there is none; gives its address.

    Raises:
        ModelError: nobody is logged in, or the Hub refuses.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not get_token():
        raise ModelError(
            "nobody is logged in to the Hugging Face Hub: run `hf auth login`, or publish without --upload."
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="Upload a sparse autoencoder")
    except (HfHubHTTPError, OSError, ValueError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise ModelError(
            f"the Hub did not take {folder} as {repo} ({first}): check the name and your rights, and try again."
        ) from problem
    return f"https://huggingface.co/{repo}"
