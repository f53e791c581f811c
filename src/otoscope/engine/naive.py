"""The plain path: one whole forward of the Hugging Face model with hooks per patch. The oracle of the sweep's tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.engine.base_run import BaseRun
from otoscope.engine.intervene import intervening
from otoscope.engine.patch import Patch
from otoscope.models.site import Site


def naive_logits(run: BaseRun, patches: Sequence[Patch]) -> Float[Tensor, "patch pos vocab"]:
    """Logits at the read positions and tokens of every patched run, by a full forward each."""
    base = run.inputs.item(0)
    rows = []
    for patch in patches:
        donor = run.cache[Site.parse(patch.site).whole][patch.donor + 1 :][:1]
        with torch.no_grad(), intervening(run.adapter, base, [patch.intervention(donor)]):
            logits = run.adapter.forward(base)[:, list(run.reading.positions)]
        rows.append(logits if run.reading.vocab is None else logits[..., list(run.reading.vocab)])
    return torch.cat(rows)
