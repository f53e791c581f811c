"""The naive loop: a forward hook on the Hugging Face model and one full forward pass per patch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from peers import Measured, load
from workloads import D_HEAD, WHISPER, Patch, Workload


class Naive:
    """Plain PyTorch hooks, the way a first script does it. Also the oracle that the others are checked against."""

    def __init__(self, folder: str, model: str) -> None:
        self.whisper = model == WHISPER
        self.model = load(folder, "whisper" if self.whisper else "language")

    def _module(self, patch: Patch) -> nn.Module:
        if not self.whisper:
            layer = self.model.model.layers[patch.layer]
            return layer.self_attn.o_proj if patch.point == "z" else layer
        layer = getattr(self.model.model, patch.stack).layers[patch.layer]
        return {
            "resid_post": layer,
            "attn_out": layer.self_attn,
            "cross_attn_out": getattr(layer, "encoder_attn", None),
            "mlp_out": layer.fc2,
        }[patch.point]

    def _hook(self, patch: Patch, edit):
        """Call ``edit(tensor)`` in place on the activation of ``patch`` (the input of ``o_proj`` for ``z``)."""
        module = self._module(patch)
        if patch.point == "z":
            return module.register_forward_pre_hook(lambda _, args: edit(args[0]))
        return module.register_forward_hook(lambda _, __, out: edit(out[0] if isinstance(out, tuple) else out))

    def _forward(self, workload: Workload, which: str) -> Tensor:
        inputs = torch.from_numpy(getattr(workload, which))
        if self.whisper:
            tokens = torch.from_numpy(workload.tokens)
            return self.model(inputs, decoder_input_ids=tokens, use_cache=False).logits
        return self.model(inputs, use_cache=False).logits

    @torch.no_grad()
    def run(self, workload: Workload, indices: list[int]) -> Measured:
        """Logits of (answer, foil) for the patches at ``indices``."""
        result, rows = Measured(), []
        patches = [workload.patches[i] for i in indices]
        donors: dict[tuple[int, str], Tensor] = {}
        with result.timing("fixed_s"):
            hooks = []
            for patch in {(p.layer, p.point): p for p in patches}.values():

                def keep(tensor: Tensor, key=(patch.layer, patch.point)) -> None:
                    donors[key] = tensor.clone()

                hooks.append(self._hook(patch, keep))
            self._forward(workload, "clean")
            for hook in hooks:
                hook.remove()
        with result.timing("patch_s"):
            for patch in patches:
                width = slice(None) if patch.head is None else slice(D_HEAD * patch.head, D_HEAD * (patch.head + 1))
                where = (slice(None), slice(patch.start, patch.stop), width)

                def replace(tensor: Tensor, where=where, donor=donors[patch.layer, patch.point]) -> None:
                    tensor[where] = donor[where]

                hook = self._hook(patch, replace)
                logits = self._forward(workload, "corrupt")
                hook.remove()
                rows.append(logits[0, -1, [workload.answer, workload.foil]])
        result.logits = torch.stack(rows).numpy().astype(np.float32)
        return result
