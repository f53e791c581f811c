"""Each architecture against its formula, and what all of them share."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from otoscope.errors import ModelError
from otoscope.sae.batch import Batch
from otoscope.sae.dictionary import Context
from otoscope.sae.jumprelu import count, jump
from otoscope.sae.partners import Links, long_partners, short_partners
from otoscope.sae.registry import ARCHITECTURES, build
from otoscope.sae.temporal import info_nce

N, D, F = 40, 10, 50


def _made(name, **settings):
    return build({"architecture": name, "d": D, "n_features": F, **settings}, torch.Generator().manual_seed(0))


def _batch(seed=0):
    place = torch.arange(N)
    return Batch(torch.randn(N, D, generator=torch.Generator().manual_seed(seed)), place // 10, (place % 10) * 0.02)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sparse_and_dense_codes_are_the_same(name):
    made, x = _made(name), _batch().x
    made.training_pass(_batch(5), Context())  # BatchTopK gets a threshold
    dense = made.encode(x)
    codes = made.encode_sparse(x)
    assert torch.allclose(codes.dense(F), dense, atol=1e-6)
    assert 0 < (dense > 0).float().mean() < 1
    with torch.no_grad():
        assert torch.allclose(made(x), made.decode(dense), atol=1e-5)
        assert torch.allclose(made.decode(codes), dense @ made.decoder + made.decoder_bias, atol=1e-5)


@pytest.mark.parametrize("subtract_bias", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_dictionary_of_normalised_frames_becomes_one_of_frames(name, subtract_bias):
    made, x = _made(name, subtract_bias=subtract_bias), _batch().x
    with torch.no_grad():
        made.decoder_bias.normal_()
        made.encoder_bias.normal_(0, 0.1)
    made.training_pass(_batch(5), Context())  # other frames, so that none lies exactly at the threshold
    mean, scale = torch.randn(D), 3.7
    with torch.no_grad():
        codes, decoded = made.encode(x), made(x)
        made.rescale(mean, scale)
        raw = x / scale + mean
        assert torch.allclose(made.encode(raw), codes / scale, atol=1e-5)
        assert torch.allclose(made(raw), decoded / scale + mean, atol=1e-5)


def test_standard_is_squared_error_and_l1():
    made, x = _made("standard", l1=0.3), _batch().x
    done = made.training_pass(_batch(), Context(warmth=0.5))
    codes = ((x - made.decoder_bias) @ made.encoder.T + made.encoder_bias).relu()
    error = (x - codes @ made.decoder - made.decoder_bias).square().sum(1).mean()
    assert done.loss.item() == pytest.approx((error + 0.15 * codes.sum(1).mean()).item(), rel=1e-5)


# -- JumpReLU: the derivatives that are made up, by hand ---------------------------------------------------------------


def test_jump_relu_in_closed_form():
    z = torch.tensor([[0.30, 0.52, 0.48, 0.90], [0.51, -1.0, 0.44, 0.50]], requires_grad=True)
    theta = torch.full((4,), 0.5, requires_grad=True)
    width = 0.1  # so that values between .45 and .55 are near
    jumped = jump(z, theta, width)
    assert torch.allclose(jumped, torch.tensor([[0.0, 0.52, 0.0, 0.90], [0.51, 0.0, 0.0, 0.0]]))
    grad = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    jumped.backward(grad)
    assert torch.equal(z.grad, torch.tensor([[0.0, 2.0, 0.0, 4.0], [5.0, 0.0, 0.0, 0.0]]))
    # -(theta / width) times the gradients of what is near: .51; .52; .48; .50
    assert torch.allclose(theta.grad, -5.0 * torch.tensor([5.0, 2.0, 3.0, 8.0]))

    z2, theta2 = z.detach().requires_grad_(), theta.detach().requires_grad_()
    counted = count(z2, theta2, width)
    assert torch.equal(counted, torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]))
    counted.backward(grad)
    assert z2.grad is None, "counting tells the encoder nothing"
    assert torch.allclose(theta2.grad, -10.0 * torch.tensor([5.0, 2.0, 3.0, 8.0]))


def test_the_made_up_derivative_is_that_of_the_mean():
    """Over many frames with a smooth density, the rectangle's derivative is that of the expected value (the paper's claim)."""
    z = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    jump(z, theta, 0.05).mean().backward()
    step = 0.02
    up, down = ((z * (z > 0.7 + s)).mean() for s in (step, -step))
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=0.05)


@pytest.mark.parametrize("penalty", ["target", "linear"])
def test_jump_relu_loss(penalty):
    made, x = _made("jumprelu", penalty=penalty, target_l0=8.0, l0=0.7, threshold=0.2), _batch().x
    done = made.training_pass(_batch(), Context(warmth=0.5))
    pre = (x - made.decoder_bias) @ made.encoder.T + made.encoder_bias
    codes = pre * (pre > 0.2)
    l0 = (codes > 0).float().sum(1).mean()
    wanted = (x - codes @ made.decoder - made.decoder_bias).square().sum(1).mean()
    wanted = wanted + 0.35 * ((l0 / 8 - 1) ** 2 if penalty == "target" else l0)
    assert done.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert done.n_active.item() == pytest.approx(N * l0.item())


def test_a_jump_relu_threshold_stays_at_zero_or_above():
    made = _made("jumprelu")
    with torch.no_grad():
        made.threshold.fill_(-0.1)
    made.constrain()
    assert (made.threshold == 0).all()


# -- BatchTopK: the threshold ------------------------------------------------------------------------------------------


def test_the_threshold_follows_the_smallest_kept_value():
    made = _made("batchtopk", k=4)
    values = [torch.tensor([0.5, 0.9, 0.0]), torch.tensor([0.2, 0.4]), torch.tensor([0.8])]
    for v in values:
        made.follow(v)
    first = 0.5
    second = 2 / 11 * first + 9 / 11 * 0.2
    assert made.cut() == pytest.approx(3 / 12 * second + 9 / 12 * 0.8)
    made.threshold_steps.fill_(1e6)
    before = made.cut()
    made.follow(torch.tensor([0.1]))
    assert made.cut() == pytest.approx(0.999 * before + 0.001 * 0.1, rel=1e-6)
    made.follow(torch.zeros(3))
    assert made.cut() == pytest.approx(0.999 * before + 0.001 * 0.1, rel=1e-6), "a batch without activity says nothing"


# -- temporal ----------------------------------------------------------------------------------------------------------


def test_info_nce_is_cross_entropy_both_ways():
    a, p = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    there = -torch.stack([(a[i] @ p[i]) - torch.logsumexp(p @ a[i], 0) for i in range(7)]).mean()
    back = -torch.stack([(a[i] @ p[i]) - torch.logsumexp(a @ p[i], 0) for i in range(7)]).mean()
    assert info_nce(a, p).item() == pytest.approx(((there + back) / 2).item())
    own = torch.arange(7)
    assert info_nce(a, p).item() == pytest.approx(
        ((cross_entropy(a @ p.T, own) + cross_entropy(p @ a.T, own)) / 2).item()
    )
    assert info_nce(torch.zeros(7, 5), torch.zeros(7, 5)).item() == pytest.approx(torch.log(torch.tensor(7.0)).item())


def test_the_temporal_loss_and_its_gradient_are_those_of_dense_codes():
    settings = {"k": 5, "alpha": 0.3, "short": 1.0, "long": 0.5, "groups": (0.4, 0.6)}
    made, plain, batch = _made("temporal", **settings), _made("temporal", **settings), _batch()
    links = Links.of_blocks(N // 4, 3)
    done = made.training_pass(batch, Context(links=links))
    done.loss.backward()
    pre = (batch.x - plain.decoder_bias) @ plain.encoder.T + plain.encoder_bias
    flat = pre.relu().flatten()
    strongest = flat.topk(5 * N)
    codes = torch.zeros_like(flat).scatter(0, strongest.indices, strongest.values).view(N, F)
    n, h = N // 4, 20
    low = (batch.x - codes[:, :h] @ plain.decoder[:h] - plain.decoder_bias).square().sum(1).mean()
    loss = low + (batch.x - codes @ plain.decoder - plain.decoder_bias).square().sum(1).mean()
    now, before, other = codes[:n, :h], codes[n : 2 * n, :h], codes[2 * n : 3 * n, :h]
    loss = loss + 0.3 * (info_nce(now, before) + 0.5 * info_nce(now, other))
    loss.backward()
    assert done.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for a, b in zip(made.parameters(), plain.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=5e-6)


def test_short_partners_are_at_the_lag_in_the_same_utterance():
    generator = torch.Generator().manual_seed(0)
    utterance = torch.arange(6).repeat_interleave(20)
    time = torch.arange(20).repeat(6) * 0.02 + 0.013
    order = torch.randperm(120, generator=generator)
    utterance, time = utterance[order], time[order]
    for lag in (0.02, 0.06, 0.2):
        anchors, partners = short_partners(utterance, time, lag, 0.009)
        assert len(anchors) == 6 * (20 - round(lag / 0.02))
        assert torch.equal(utterance[anchors], utterance[partners])
        assert torch.allclose(time[anchors] - time[partners], torch.full((len(anchors),), lag), atol=1e-5)
    assert len(short_partners(utterance, time, 0.5, 0.009)[0]) == 0, "no utterance is as long"


def test_long_partners_are_others_of_the_utterance_and_all_of_them():
    utterance = torch.tensor([3, 1, 3, 3, 2, 1])
    time = torch.tensor([0.0, 0.1, 0.2, 0.4, 0.0, 0.5])
    seen = set()
    for seed in range(50):
        anchors, partners = long_partners(utterance, time, torch.Generator().manual_seed(seed))
        assert 4 not in anchors, "it is alone"
        assert sorted(anchors.tolist()) == [0, 1, 2, 3, 5]
        assert (anchors != partners).all()
        assert torch.equal(utterance[anchors], utterance[partners])
        seen |= set(zip(anchors.tolist(), partners.tolist()))
    assert seen == {(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2), (1, 5), (5, 1)}


def test_the_controls_of_the_temporal_loss():
    on, off = _made("temporal", k=5), _made("temporal", k=5, alpha=0.0)
    shuffled = _made("temporal", k=5, shuffle_time=True)
    draws = {"generator": torch.Generator().manual_seed(0)}
    with_it, without = on.training_pass(_batch(), Context(**draws)), off.training_pass(_batch(), Context(**draws))
    other = shuffled.training_pass(_batch(), Context(**draws))
    short = with_it.terms["contrast_short"]
    assert "contrast_short" not in without.terms
    assert with_it.loss.item() == pytest.approx(without.loss.item() + 0.1 * short.item(), rel=1e-5)
    assert other.terms["contrast_short"] != short
    assert off.lag() is None
    assert on.lag() == pytest.approx(0.02)


def test_a_batch_of_lone_frames_is_refused_by_the_temporal_loss():
    batch = _batch()._replace(utterance=torch.arange(N))
    with pytest.raises(ModelError, match=r"fewer than two has another 20 ms before it.*set alpha to 0"):
        _made("temporal", k=5).training_pass(batch, Context())


# -- configs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"architecture": "gated"}, "no architecture 'gated'"),
        ({"architecture": "topk", "d": 4, "n_features": 8, "width": 3}, "topk has no setting 'width'"),
        ({"architecture": "topk", "d": 4}, "topk needs n_features"),
        ({"architecture": "topk", "d": 4, "n_features": 8, "k": 9}, "k = 9 features of 8"),
        ({"architecture": "topk", "d": 4, "n_features": 8, "k": "many"}, "settings of topk cannot be used"),
        (
            {"architecture": "matryoshka", "d": 4, "n_features": 8, "k": 2, "groups": [0.5, 0.4]},
            "do not split 8 features",
        ),
        (
            {"architecture": "matryoshka", "d": 4, "n_features": 32, "k": 2, "weights": [1]},
            "5 groups need as many weights",
        ),
        ({"architecture": "jumprelu", "d": 4, "n_features": 8, "bandwidth": 0}, "bandwidth and target_l0 above 0"),
        ({"architecture": "temporal", "d": 4, "n_features": 8, "k": 2, "lag_ms": 0}, "lag_ms above 0"),
    ],
)
def test_settings_that_cannot_be_used(described, said):
    with pytest.raises(ModelError, match=said):
        build(described)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_description_builds_the_same_again(name):
    made = _made(name)
    again = build(made.describe(), torch.Generator().manual_seed(0))
    assert again.config == made.config
    assert torch.equal(again.encoder, made.encoder)


def test_the_wrong_width_is_refused():
    with pytest.raises(ModelError, match=r"shape \[frame, 10\], not \[3, 4\]"):
        _made("topk", k=3).encode(torch.zeros(3, 4))
