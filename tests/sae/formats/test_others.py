"""Dictionaries of sparsify and dictionary_learning, written as these write them, against their formulas."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from otoscope.errors import ModelError
from otoscope.sae.formats import load

D, F, K = 6, 20, 3


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = _random(50, D, seed=9)


# -- sparsify ----------------------------------------------------------------------------------------------------------


def _sparsify(folder, **settings):
    tensors = {"encoder.weight": _random(F, D), "encoder.bias": _random(F, seed=1), "W_dec": _random(F, D, seed=2),
               "b_dec": _random(D, seed=3)}  # fmt: skip
    save_file(tensors, folder / "sae.safetensors")
    config = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": F, "k": K,
              "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config | settings))
    return tensors


def test_sparsify(tmp_path):
    t = _sparsify(tmp_path)
    top = ((X - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu().topk(K)
    codes = torch.zeros(50, F).scatter(1, top.indices, top.values)
    made = load(tmp_path)
    assert torch.allclose(made.encode(X), codes, atol=1e-6)
    assert torch.allclose(made(X), codes @ t["W_dec"] + t["b_dec"], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"transcode": True}, "holds a transcoder"), ({"skip_connection": True}, "skip connection"),
     ({"activation": "groupmax"}, "keeps features by 'groupmax'")],
)  # fmt: skip
def test_what_sparsify_has_and_we_have_not_is_refused(tmp_path, settings, said):
    _sparsify(tmp_path, **settings)
    with pytest.raises(ModelError, match=said):
        load(tmp_path)


# -- dictionary_learning, AudioSAE -------------------------------------------------------------------------------------


def _linear(bias="b_dec"):
    return {"encoder.weight": _random(F, D), "encoder.bias": _random(F, seed=1), "decoder.weight": _random(D, F, seed=2),
            bias: _random(D, seed=3)}  # fmt: skip


def _plain():
    return {
        "W_enc": _random(D, F),
        "b_enc": _random(F, seed=1),
        "W_dec": _random(F, D, seed=2),
        "b_dec": _random(D, seed=3),
    }


def _write(folder, kind, tensors, **trainer):
    torch.save(tensors, folder / "ae.pt")
    config = {"trainer": {"dict_class": kind, "lm_name": "some/model", "layer": 3, **trainer}, "buffer": {}}
    (folder / "config.json").write_text(json.dumps(config))


def _auto_encoder(t):
    codes = ((X - t["bias"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    norm = t["decoder.weight"].norm(dim=0)  # it is divided out, and the codes grow by it
    return codes * norm, codes @ t["decoder.weight"].T + t["bias"]


def _auto_encoder_new(t):
    codes = (X @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    return codes, codes @ t["decoder.weight"].T + t["decoder.bias"]


def _top_k(t):
    top = ((X - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu().topk(K)
    codes = torch.zeros(50, F).scatter(1, top.indices, top.values)
    return codes, codes @ t["decoder.weight"].T + t["b_dec"]


def _batch_top_k(t):
    pre = ((X - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    codes = pre * (pre > t["threshold"])
    return codes, codes @ t["decoder.weight"].T + t["b_dec"]


def _matryoshka(t):
    pre = ((X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    codes = pre * (pre > t["threshold"])
    return codes, codes @ t["W_dec"] + t["b_dec"]


def _jump_relu(t):
    pre = X @ t["W_enc"] + t["b_enc"]
    codes = (pre * (pre > t["threshold"])).relu()
    return codes, codes @ t["W_dec"] + t["b_dec"]


LEVEL = {"threshold": torch.tensor(1.3), "k": torch.tensor(K, dtype=torch.int)}
CASES = {
    "AutoEncoder": (_linear("bias"), _auto_encoder, "standard"),
    "AutoEncoderNew": (_linear("decoder.bias"), _auto_encoder_new, "standard"),
    "AutoEncoderTopK": (_linear() | LEVEL, _top_k, "topk"),
    "BatchTopKSAE": (_linear() | LEVEL, _batch_top_k, "batchtopk"),
    "MatryoshkaBatchTopKSAE": (_plain() | LEVEL | {"group_sizes": torch.tensor([5, 15])}, _matryoshka, "matryoshka"),
    "JumpReluAutoEncoder": (_plain() | {"threshold": _random(F, seed=4).abs()}, _jump_relu, "jumprelu"),
}


@pytest.mark.parametrize("kind", CASES)
def test_dictionary_learning(tmp_path, kind):
    tensors, formula, architecture = CASES[kind]
    _write(tmp_path, kind, tensors, k=K)
    made = load(tmp_path)
    codes, decoded = formula(tensors)
    assert made.architecture == architecture
    assert torch.allclose(made.encode(X), codes, atol=1e-5)
    assert torch.allclose(made(X), decoded, atol=1e-4)
    assert made.metadata["model_name"] == "some/model"
    if architecture == "matryoshka":
        assert made.config.sizes == (5, 15)


class _Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file was run')",))


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path):
    _write(tmp_path, "BatchTopKSAE", {"W_enc": _Payload()})
    with pytest.raises(ModelError, match="holds more than weights, which only running its code could restore"):
        load(tmp_path)


def test_other_damage_is_one_sentence(tmp_path):
    _write(tmp_path, "GatedAutoEncoder", _linear())
    with pytest.raises(ModelError, match="holds a 'GatedAutoEncoder', which has no counterpart"):
        load(tmp_path)
    _write(tmp_path, "BatchTopKSAE", {key: value for key, value in _linear().items() if key != "encoder.bias"}, k=K)
    with pytest.raises(ModelError, match=r"has no tensor 'encoder\.bias'"):
        load(tmp_path)
    _write(tmp_path, "BatchTopKSAE", [1, 2])
    with pytest.raises(ModelError, match="holds no table of tensors"):
        load(tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"not torch")
    with pytest.raises(ModelError, match=r"ae\.pt"):
        load(tmp_path)
