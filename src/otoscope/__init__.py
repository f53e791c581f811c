"""Otoscope looks inside models that listen.

``import otoscope`` is light: names are resolved on first use, so torch is imported only when something needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name -> module that defines it
_EXPORTS = {
    "Clip": "otoscope.audio.clip",
    "read": "otoscope.audio.files",
    "load": "otoscope.engine.model",
    "Model": "otoscope.engine.model",
    "Site": "otoscope.models.site",
    "Pair": "otoscope.tasks.pair",
    "OtoscopeError": "otoscope.errors",
    "apply": "otoscope.engine.fix",
}

__all__ = ["Clip", "Model", "OtoscopeError", "Pair", "Site", "__version__", "apply", "load", "read"]

if TYPE_CHECKING:
    from otoscope.audio.clip import Clip
    from otoscope.audio.files import read
    from otoscope.engine.fix import apply
    from otoscope.engine.model import Model, load
    from otoscope.errors import OtoscopeError
    from otoscope.models.site import Site
    from otoscope.tasks.pair import Pair


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'otoscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
