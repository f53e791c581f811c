"""Let a decoder attend to an encoder output that is known already, so that the encoder is not run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from otoscope.engine.base_run import crosses
from otoscope.errors import ModelError
from otoscope.models.adapter import Adapter


@contextmanager
def hearing(adapter: Adapter, encoded: Float[Tensor, "1 frame d_model"]) -> Iterator[None]:
    """Forwards of one item inside the block take ``encoded`` (after the encoder's final norm) for the encoder's output.

    Sites before the decoder are not computed then, so they cannot be captured or changed.

    Raises:
        ModelError: the model's decoder attends to no encoder.
    """
    if not crosses(adapter):
        raise ModelError(f"the decoder of {adapter.name} attends to no encoder, so nothing can be heard for it.")
    from transformers.modeling_outputs import BaseModelOutput

    encoder: Any = adapter.hf.get_encoder()
    encoder.forward = lambda *args, **options: BaseModelOutput(last_hidden_state=encoded)
    try:
        yield
    finally:
        del encoder.forward
