"""The sparse kernels against plain dense autograd: same choice, same gradients, same weights after several steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from otoscope.sae import sparse_kernels
from otoscope.sae.batch import Batch
from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Context, Dictionary
from otoscope.sae.registry import build
from otoscope.sae.sparse_kernels import above, batch_top_k, by_feature, top_k
from otoscope.sae.trainer import Trainer
from otoscope.sae.training_config import TrainingConfig

N, D, F, K = 60, 12, 96, 5


def _batch(seed: int = 0) -> Batch:
    place = torch.arange(N)
    return Batch(torch.randn(N, D, generator=torch.Generator().manual_seed(seed)), place // 10, (place % 10) * 0.02)


def _dictionary(name: str, **settings) -> Dictionary:
    made = build({"architecture": name, "d": D, "n_features": F, "k": K, **settings}, torch.Generator().manual_seed(1))
    with torch.no_grad():
        made.encoder_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
        made.decoder_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
    return made


def _kept_densely(dictionary: Dictionary, pre: Tensor) -> Tensor:
    """What training keeps, by one sort of everything."""
    if dictionary.architecture == "topk":
        strongest = pre.topk(K)
        return torch.zeros_like(pre).scatter(1, strongest.indices, strongest.values.relu())
    flat = pre.relu().flatten()
    strongest = flat.topk(K * len(pre))
    return torch.zeros_like(flat).scatter(0, strongest.indices, strongest.values).view_as(pre)


def _dense_loss(dictionary: Dictionary, x: Tensor, dead: Tensor | None, aux_k: int) -> Tensor:
    """The same loss written plainly, with dense products throughout."""
    centred = x - dictionary.decoder_bias if dictionary.config.subtract_bias else x
    pre = centred @ dictionary.encoder.T + dictionary.encoder_bias
    codes = _kept_densely(dictionary, pre)
    n_groups = len(getattr(dictionary.config, "groups", (1,)))
    sizes = getattr(dictionary.config, "sizes", (F,))
    weights = getattr(dictionary.config, "weights", None) or [1 / n_groups] * n_groups
    loss, end, error = x.new_zeros(()), 0, x
    for size, weight in zip(sizes, weights):
        end += size
        error = x - (codes[:, :end] @ dictionary.decoder[:end] + dictionary.decoder_bias)
        loss = loss + weight * error.square().sum(1).mean()
    if dead is not None:
        left = torch.where(dead, pre.relu(), -torch.inf).topk(aux_k)
        acts = torch.zeros_like(pre).scatter(1, left.indices, left.values)
        held = error.detach()
        spread = (held - held.mean(0)).square().sum(1).mean()
        loss = loss + (held - acts @ dictionary.decoder).square().sum(1).mean() / spread / 32
    return loss


KINDS = {
    "topk": {},
    "topk, bias not subtracted": {"subtract_bias": False},
    "batchtopk": {},
    "matryoshka": {},
    "matryoshka, weighted": {"groups": (0.25, 0.75), "weights": (0.2, 0.8)},
    "temporal without contrast": {"alpha": 0.0},
}


@pytest.mark.parametrize("with_dead", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_dense_products(kind, with_dead):
    name = kind.split(",")[0].split(" ")[0]
    sparse, dense, batch = _dictionary(name, **KINDS[kind]), _dictionary(name, **KINDS[kind]), _batch()
    dead = (torch.arange(F) % 4 == 0) if with_dead else None
    done = sparse.training_pass(batch, Context(dead, aux_k=6, aux_coefficient=1 / 32))
    done.loss.backward()
    plain = _dense_loss(dense, batch.x, dead, 6)
    plain.backward()
    assert done.loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for (name, ours), theirs in zip(sparse.named_parameters(), dense.parameters()):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=2e-6), name
        assert theirs.grad.abs().max() > 1e-4, f"{name} gets no gradient, so that agreeing proves nothing"


def test_weights_after_several_steps_are_those_of_dense_autograd_and_adam():
    ours, plain = _dictionary("topk"), _dictionary("topk")
    config = TrainingConfig(
        steps=12, batch_size=N, lr=1e-2, warmup=0, decay=0.0, clip=0.5, normalise="none", bias="zero", aux_coefficient=0
    )
    trainer = Trainer(ours, config)
    adam = torch.optim.Adam(plain.parameters(), 1e-2)
    for step in range(12):
        batch = _batch(step)
        trainer.step(batch)
        adam.zero_grad()
        _dense_loss(plain, batch.x, None, 0).backward()
        assert plain.decoder.grad is not None
        along = (plain.decoder.grad * plain.decoder).sum(1, keepdim=True)
        plain.decoder.grad -= (along * plain.decoder).detach()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        adam.step()
        with torch.no_grad():
            plain.decoder /= plain.decoder.norm(dim=1, keepdim=True)
    for (name, a), b in zip(ours.named_parameters(), plain.parameters()):
        assert torch.allclose(a, b, atol=1e-5), name
    assert not torch.allclose(ours.encoder, _dictionary("topk").encoder, atol=1e-2)


def test_the_gradient_along_a_decoder_row_is_taken_away():
    made = _dictionary("topk")
    made.training_pass(_batch(), Context()).loss.backward()
    made.project_gradient()
    assert made.decoder.grad is not None
    assert (made.decoder.grad * made.decoder).sum(1).abs().max() < 1e-5
    assert made.decoder.grad.norm() > 0.1


@pytest.mark.parametrize(("n_features", "k"), [(96, 5), (97, 5), (96, 90), (4096, 32)])
def test_top_k_finds_what_a_sort_finds(monkeypatch, n_features, k):
    monkeypatch.setattr(sparse_kernels, "BUFFER", 7 * n_features)  # several chunks, the last one shorter
    generator = torch.Generator().manual_seed(0)
    x, encoder = torch.randn(20, D, generator=generator), torch.randn(n_features, D, generator=generator)
    bias = torch.randn(n_features, generator=generator)
    codes = top_k(x, encoder, bias, k)
    wanted = (x @ encoder.T + bias).sort(1, descending=True)
    found = codes.values.view(20, k).sort(1, descending=True)
    assert torch.allclose(found.values, wanted.values[:, :k], atol=1e-5)
    assert torch.equal(codes.features.view(20, k).sort(1).values, wanted.indices[:, :k].sort(1).values)


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0, -30.0])
def test_batch_top_k_finds_what_one_sort_of_everything_finds(shift):
    """Also where hardly anything, or nothing, is positive, and where frames differ wildly in strength."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, D, generator=generator) * torch.linspace(0.01, 3, 50)[:, None]
    encoder, bias = torch.randn(F, D, generator=generator), torch.full((F,), shift)
    codes = batch_top_k(x, encoder, bias, K)
    pre = (x @ encoder.T + bias).relu().flatten()
    wanted = pre.sort(descending=True).values[: K * 50]
    wanted = wanted[wanted > 0]
    assert torch.allclose(codes.values.sort(descending=True).values, wanted, atol=1e-5)
    places = codes.frames * F + codes.features
    assert torch.equal(places, places.sort().values), "by frame and then by feature"


def test_above_a_threshold():
    x, encoder, bias = torch.randn(9, D), torch.randn(F, D), torch.randn(F)
    threshold = torch.rand(F)
    pre = x @ encoder.T + bias
    assert torch.allclose(above(x, encoder, bias, threshold).dense(F), pre * (pre > threshold), atol=1e-6)
    assert above(x[:0], encoder, bias, 0.0).n_frames == 0


def test_entries_by_feature():
    codes = Codes.of_dense(torch.tensor([[0.0, 2.0, 3.0], [4.0, 0.0, 5.0]]))
    entries = by_feature(codes.features, codes.offsets, 3)
    assert codes.values[entries.order].tolist() == [4.0, 2.0, 3.0, 5.0]
    assert entries.bags.tolist() == [1, 0, 0, 1]
    assert entries.offsets.tolist() == [0, 1, 2, 4]


def test_codes_come_back_from_every_form():
    dense = torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 0.0, 5.0]])
    codes = Codes.of_dense(dense)
    assert torch.equal(codes.dense(3), dense)
    assert torch.equal(Codes.join([codes, codes]).dense(3), torch.cat([dense, dense]))
    assert codes.frames.tolist() == [0, 0, 2, 2]
