"""The auxiliary loss that gives dead features something to do: they try to explain what the living ones left over.

``e = x - x^`` is held fixed; the ``aux_k`` strongest dead features of a frame make ``e^`` of it, without bias, and
``L_aux = E|e - e^|^2 / E|e - E e|^2`` (Gao et al. 2024, arXiv 2406.04093, appendix A.2; normalised as in OpenAI's code and
dictionary_learning, weight 1/32). Differences between codes: SAELens does not normalise, weighs by 1 and scales by
``min(n_dead / aux_k, 1)``; sparsify and SAELens let negative pre-activations through, dictionary_learning and this one
apply ReLU first, so a feature whose pre-activation is positive in no frame is not revived.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def auxiliary_loss(
    centred: Float[Tensor, "frame d"],
    error: Float[Tensor, "frame d"],
    encoder: Float[Tensor, "feature d"],
    encoder_bias: Float[Tensor, " feature"],
    decoder: Float[Tensor, "feature d"],
    dead: Bool[Tensor, " feature"] | None,
    aux_k: int,
) -> Float[Tensor, ""]:
    """How badly the dead features explain the error, 0 to about 1; 0 where none is dead.

    Only dead features take part, so all products are as wide as their number.

    Args:
        centred: what the encoder reads; may carry a graph.
        error: ``x - x^``; its graph is not used.
        encoder, encoder_bias, decoder: parameters.
        dead: which features count as dead.
        aux_k: how many of them may be active in a frame.
    """
    error = error.detach()
    which = dead.nonzero()[:, 0] if dead is not None else None
    if which is None or len(which) == 0 or aux_k == 0:
        return error.new_zeros(())
    acts = torch.addmm(encoder_bias[which], centred, encoder[which].T).relu()
    if aux_k < len(which):
        strongest = acts.topk(aux_k, sorted=False)
        acts = torch.zeros_like(acts).scatter(1, strongest.indices, strongest.values)
    left = (error - acts @ decoder[which]).square().sum(1).mean()
    spread = (error - error.mean(0)).square().sum(1).mean()
    return (left / spread).nan_to_num(0.0, 0.0, 0.0)
