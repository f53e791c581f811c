"""SAELens's layout: our own round trip always, and the real SAELens where it is installed (bench/.venv has it)."""

from __future__ import annotations

import json

import pytest
import torch

from otoscope.errors import ModelError
from otoscope.sae.formats import load, saelens
from otoscope.sae.registry import build

D, F = 24, 96
KINDS = {
    "standard": ({}, "standard"),
    "topk": ({"k": 5}, "topk"),
    "batchtopk": ({"k": 5}, "jumprelu"),
    "matryoshka": ({"k": 5, "groups": (0.25, 0.75)}, "jumprelu"),
    "temporal": ({"k": 5, "alpha": 0.2, "lag_ms": 40.0}, "jumprelu"),
    "jumprelu": ({"subtract_bias": False}, "jumprelu"),
}


@pytest.fixture(params=KINDS)
def dictionary(request):
    """A dictionary of each kind, as after a training: normalisation folded in, threshold set."""
    settings, _ = KINDS[request.param]
    made = build({"architecture": request.param, "d": D, "n_features": F, **settings}, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if "threshold" in made.state_dict():
            made.threshold.copy_(made.threshold * 0 + 0.7)
    made.rescale(torch.randn(D, generator=generator), 3.0)
    made.metadata = {"model_name": "whisper-tiny.en", "hook_name": "encoder.2.resid_post", "sampling_rate": 16000,
                     "frame_rate": 50.0}  # fmt: skip
    return made


def _frames():
    return torch.randn(300, D, generator=torch.Generator().manual_seed(2)) + 0.5


def test_a_dictionary_comes_back_as_it_was(dictionary, tmp_path):
    saelens.write(dictionary, tmp_path)
    again = load(tmp_path)
    assert type(again) is type(dictionary)
    assert again.config == dictionary.config
    assert again.metadata == dictionary.metadata
    assert torch.equal(again.encode(_frames()), dictionary.encode(_frames()))
    for name, value in dictionary.state_dict().items():
        if name != "threshold_steps":
            assert torch.allclose(value, again.state_dict()[name]), name


def test_the_config_is_one_that_saelens_knows(dictionary, tmp_path):
    saelens.write(dictionary, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == KINDS[dictionary.architecture][1]
    assert (config["d_in"], config["d_sae"], config["normalize_activations"]) == (D, F, "none")
    assert config["apply_b_dec_to_input"] is dictionary.config.subtract_bias
    assert config["metadata"]["sampling_rate"] == 16000
    assert config["metadata"]["frame_rate"] == 50.0
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6


def test_the_real_saelens_gives_the_same_features(dictionary, tmp_path):
    sae_lens = pytest.importorskip("sae_lens", reason="SAELens is installed in bench/.venv only")
    saelens.write(dictionary, tmp_path)
    theirs, x = sae_lens.SAE.load_from_disk(str(tmp_path)), _frames()
    with torch.no_grad():
        codes = dictionary.encode(x)
        assert 0 < (codes > 0).float().mean() < 0.6
        assert torch.allclose(theirs.encode(x), codes, atol=1e-5)
        assert torch.allclose(theirs(x), dictionary(x), atol=1e-5)
    assert theirs.cfg.metadata.sampling_rate == 16000
    assert theirs.cfg.metadata.frame_rate == 50.0


@pytest.mark.parametrize("kind", ["standard", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu"])
def test_what_the_real_saelens_trained_is_read(kind, tmp_path):
    pytest.importorskip("sae_lens", reason="SAELens is installed in bench/.venv only")
    from sae_lens import SAE
    from sae_lens.registry import get_sae_training_class

    sae_class, config_class = get_sae_training_class(kind)
    extra = {"k": 5} if "topk" in kind else {}
    extra |= {"matryoshka_widths": [24, F]} if kind.startswith("matryoshka") else {}
    trained = sae_class(config_class(d_in=D, d_sae=F, **extra))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if hasattr(trained, "topk_threshold"):
            trained.topk_threshold.fill_(0.3)
    trained.save_inference_model(tmp_path / "inference")
    trained.save_model(tmp_path / "training")
    theirs, x = SAE.load_from_disk(str(tmp_path / "inference")), _frames()
    for folder in ("inference", "training"):
        ours = load(tmp_path / folder)
        with torch.no_grad():
            assert torch.allclose(ours(x), theirs(x), atol=1e-5), folder
            if kind != "standard":  # whose decoder norms SAELens folds only when asked
                assert torch.allclose(ours.encode(x), theirs.encode(x), atol=1e-5), folder


def _written(folder, **changes):
    saelens.write(build({"architecture": "topk", "d": 4, "n_features": 8, "k": 2}), folder)
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["otoscope"]
    config |= changes
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"architecture": "gated"}, "architecture 'gated', which has no counterpart"),
     ({"normalize_activations": "layer_norm"}, "asks for normalize_activations 'layer_norm'"),
     ({"d_sae": 9}, r"gives encoder the shape \[8, 4\], and \[9, 4\] was expected")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(tmp_path, changes, said):
    _written(tmp_path, **changes)
    with pytest.raises(ModelError, match=said):
        load(tmp_path)


def test_a_config_from_before_version_6(tmp_path):
    # there the number of features stood beside the activation function alone
    _written(tmp_path, architecture="standard", k=None, activation_fn_str="topk", activation_fn_kwargs={"k": 3})
    assert (load(tmp_path).architecture, load(tmp_path).config.k) == ("topk", 3)


def test_a_damaged_file_is_one_sentence(tmp_path):
    _written(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"sae_weights\.safetensors is missing or damaged"):
        load(tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(ModelError, match=r"cfg.json cannot be read"):
        load(tmp_path)


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(ModelError, match=r"holds no dictionary: expected cfg\.json"):
        load(tmp_path)
    with pytest.raises(ModelError, match="there is no folder"):
        load(tmp_path / "none")
