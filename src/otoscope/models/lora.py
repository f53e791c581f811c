"""Models with LoRA layers: the layers stay in force inside the model, and otoscope reads the model around them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from otoscope.errors import ModelError


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model in a ``peft.PeftModel``, its LoRA layers in place; any other model as it is.

    Raises:
        ModelError: what peft adds are no layers but a prompt, whose tokens would shift every position.
    """
    if not hasattr(model, "get_base_model"):
        return model
    inner = model.get_base_model()  # type: ignore[operator]
    if inner is model.base_model:
        raise ModelError(
            f"the adapter on {type(inner).__name__} is a learned prompt, which otoscope cannot read: expected LoRA layers."
        )
    return inner


def find(adapter: str | Path, beside: Path) -> str:
    """Where the files of a LoRA are: a folder, or one of those in the folder ``beside``, or a hub id.

    Raises:
        ModelError: the folder holds no adapter, or the name is neither a folder nor a hub id.
    """
    for folder in (Path(adapter).expanduser(), beside / str(adapter)):
        if (folder / "adapter_config.json").is_file():
            return str(folder)
        if folder.is_dir():
            raise ModelError(f"'{folder}' has no adapter_config.json, so it is not a LoRA that peft has saved.")
    if str(adapter).count("/") == 1 and not str(adapter).startswith((".", "~", "/")):
        return str(adapter)
    names = sorted(path.parent.name for path in beside.glob("*/adapter_config.json"))
    known = f"; this model comes with {', '.join(names)}" if names else ""
    raise ModelError(f"there is no adapter '{adapter}': expected a folder that peft has saved, or a hub id{known}.")


def wrap(hf: Any, adapter: str | Path, beside: Path, *, offline: bool = False) -> Any:
    """``hf`` with the LoRA layers of ``adapter`` (found as :func:`find` does), as a ``peft.PeftModel`` for inference.

    Raises:
        ModelError: there is no such adapter, or it does not fit the model.
    """
    from peft import PeftModel

    where = find(adapter, beside)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's calls of names that transformers is about to change
            return PeftModel.from_pretrained(hf, where, local_files_only=offline)
    except Exception as error:
        raise ModelError(
            f"the adapter '{adapter}' cannot be put on this model ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}): expected one that was trained on it."
        ) from error
