"""Sparse dictionaries of the activations of audio models; ``otoscope.sae.load(NAME or folder)`` reads one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otoscope.sae.formats import load as load

__all__ = ["load"]


def __getattr__(name: str):
    # torch is not imported before a dictionary is read
    if name == "load":
        from otoscope.sae.formats import load

        return load
    raise AttributeError(f"module 'otoscope.sae' has no attribute '{name}'")
