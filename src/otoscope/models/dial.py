"""The dial between two LoRA adapters of one model: their weights' changes, added in any mixture, in place.

Between a ``listener`` and a ``guesser`` of mini-qwen2-audio it gives models whose behaviour is known beforehand. The
model stays a plain transformers model, so every site, replay and generation works as without adapters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from otoscope.errors import ModelError

#: what peft puts before the path of a module
_PREFIX = "base_model.model."


class Dial:
    """Holds a model's own weights and the changes of its adapters.

    Args:
        model: a Model, its adapter, or the transformers model.
        adapters: name -> folder in peft's format (LoRA on linear layers).

    Raises:
        ModelError: a folder holds no LoRA adapter, or one for another model.
    """

    def __init__(self, model: Any, adapters: Mapping[str, str | Path]):
        hf = getattr(getattr(model, "adapter", model), "hf", model)
        self._changes = {name: lora_changes(hf, Path(folder)) for name, folder in adapters.items()}
        layers = {path for change in self._changes.values() for path in change}
        self._layers: dict[str, nn.Linear] = {path: hf.get_submodule(path) for path in sorted(layers)}
        self._own = {path: layer.weight.detach().clone() for path, layer in self._layers.items()}

    @torch.no_grad()
    def set(self, **shares: float) -> None:
        """Add each named adapter's change times its share to the model's own weights; adapters not named count 0.

        ``dial.set(listener=0.25, guesser=0.75)``. Without shares the model is as it was.

        Raises:
            ModelError: there is no such adapter.
        """
        for name in shares:
            if name not in self._changes:
                raise ModelError(f"the dial has no adapter '{name}': it has {', '.join(self._changes)}.")
        for path, layer in self._layers.items():
            weight = self._own[path].clone()
            for name, share in shares.items():
                if share and path in self._changes[name]:
                    a, b = self._changes[name][path]
                    weight += share * (b @ a).to(weight)
            layer.weight.copy_(weight)

    def off(self) -> None:
        """Bring the model's own weights back."""
        self.set()


def twins(model: Any) -> Dial:
    """The dial between the shipped ``listener`` and ``guesser`` of mini-qwen2-audio."""
    from otoscope.models.mini import shipped

    return Dial(model, {name: shipped() / name for name in ("listener", "guesser")})


def lora_changes(hf: nn.Module, folder: Path) -> dict[str, tuple[Float[Tensor, "r d_in"], Float[Tensor, "d_out r"]]]:
    """Path of each changed linear layer -> (A, B scaled), whose product ``B A`` is the change of its weight.

    Raises:
        ModelError: the folder holds no LoRA adapter, or one for another model.
    """
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        stored = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"'{folder}' holds no adapter that can be read: expected adapter_config.json and adapter_model.safetensors, "
            "as peft writes them."
        ) from error
    if settings.get("peft_type") != "LORA" or settings.get("use_dora"):
        raise ModelError(f"'{folder}' is no plain LoRA adapter ({settings.get('peft_type')}): a dial needs one.")
    scaling = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings.get("use_rslora") else settings["r"])
    changes = {}
    for key, a in stored.items():
        if not key.endswith(".lora_A.weight"):
            continue
        path = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        b = stored[key.replace("lora_A", "lora_B")].float() * scaling
        try:
            weight = hf.get_submodule(path).weight
        except AttributeError:
            weight = None
        if not isinstance(weight, Tensor) or weight.shape != (b.shape[0], a.shape[1]):
            raise ModelError(
                f"the adapter in '{folder}' is for another model: this one has no linear layer '{path}' of its shape."
            )
        changes[path] = (a.float(), b)
    return changes
