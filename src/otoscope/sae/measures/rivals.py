"""What stands beside a dictionary in every table: a random decoder, the activations themselves, PCA and ICA.

The random dictionary has as many features and as many active per frame, but its decoder is drawn at random and never
changes; only encoder and biases learn (Korznikov et al. 2026 find that such dictionaries come close to trained ones in many
measures, so what they reach was no achievement). PCA and ICA have as many components as the dictionary has features
active per frame, so that a frame is described by as many numbers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse

from otoscope.sae.batch import Batch
from otoscope.sae.dictionary import Context, Dictionary
from otoscope.sae.measures.frames import Reading, csr
from otoscope.sae.normalise import Normaliser
from otoscope.sae.topk import TopK, TopKConfig

#: frames encoded at once
_BATCH = 4096


@torch.no_grad()
def read_with(dictionary: Dictionary, x: Float[np.ndarray, "frame d"]) -> Reading:
    """What a dictionary makes of frames.

    Raises:
        ModelError: the frames are of another width.
    """
    parts, rebuilt = [], []
    device, dtype = dictionary.decoder.device, dictionary.decoder.dtype
    for start in range(0, len(x), _BATCH):
        block = torch.as_tensor(x[start : start + _BATCH]).to(device, dtype)
        codes = dictionary.encode_sparse(block)
        rebuilt.append(dictionary.decode(codes).float().cpu().numpy())
        arrays = (codes.values.float().cpu().numpy(), codes.features.cpu().numpy(), codes.offsets.cpu().numpy())
        part = csr(arrays, shape=(len(block), dictionary.config.n_features))
        part.eliminate_zeros()
        parts.append(part)
    decoder = dictionary.decoder.detach().float().cpu().numpy()
    return Reading(csr(sparse.vstack(parts, format="csr")), np.concatenate(rebuilt), decoder)


def random_dictionary(
    x: Float[np.ndarray, "frame d"],
    n_features: int,
    k: int,
    *,
    steps: int = 500,
    batch_size: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
) -> TopK:
    """A TopK dictionary whose decoder is random and stays so; encoder and biases learn to make the best of it.

    Args:
        x: frames to learn from.
        n_features, k: its size, and how many features are active per frame.
        steps, batch_size, lr: of the training (Adam).
        seed: of decoder and batches.

    Raises:
        ModelError: ``k`` is not between 1 and ``n_features``.
        RunError: the frames do not vary.
    """
    generator = torch.Generator().manual_seed(seed)
    made = TopK(TopKConfig(d=x.shape[1], n_features=n_features, k=k), generator)
    made.decoder.requires_grad_(False)
    frames = torch.as_tensor(np.asarray(x, np.float32))
    normaliser = Normaliser.fit([frames], "standard")
    learning = [made.encoder, made.encoder_bias, made.decoder_bias]
    optimizer = torch.optim.Adam(learning, lr)
    nowhere = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        chosen = torch.randint(len(frames), (min(batch_size, len(frames)),), generator=generator)
        done = made.training_pass(Batch(normaliser(frames[chosen]), nowhere, nowhere.float()), Context())
        optimizer.zero_grad()
        done.loss.backward()
        optimizer.step()
    made.rescale(normaliser.mean, normaliser.scale)
    return made.requires_grad_(False)


def raw(x: Float[np.ndarray, "frame d"]) -> Reading:
    """The channels themselves, about their means, as if each were a feature."""
    return Reading(csr(x - x.mean(axis=0)), np.asarray(x), np.eye(x.shape[1], dtype=np.float32))


def components(x: Float[np.ndarray, "frame d"], rank: int, kind: Literal["pca", "ica"], seed: int = 0) -> Reading:
    """Principal or independent components of the frames, with the frames rebuilt from them.

    Args:
        x: frames.
        rank: number of components; at most as many as there are channels.
        kind: ``pca``, or ``ica`` (FastICA of as many principal components).
        seed: of ICA's start.
    """
    from sklearn.decomposition import PCA, FastICA

    rank = max(1, min(rank, x.shape[1], len(x) - 1))
    principal = PCA(rank, svd_solver="covariance_eigh").fit(x)
    codes = principal.transform(x)
    if kind == "pca":
        return Reading(csr(codes.astype(np.float32)), principal.inverse_transform(codes), principal.components_)
    fewer = codes[np.random.default_rng(seed).permutation(len(codes))[:10_000]]
    independent = _ica(FastICA, rank, seed).fit(fewer)
    sources = independent.transform(codes)
    rebuilt = principal.inverse_transform(independent.inverse_transform(sources))
    return Reading(csr(sources.astype(np.float32)), rebuilt, independent.mixing_.T @ principal.components_)


def _ica(kind: type, rank: int, seed: int):
    return kind(rank, whiten="unit-variance", max_iter=100, tol=1e-2, random_state=seed)
