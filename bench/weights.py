"""Where the weights of a workload lie: the embedded ones, a folder of one's own, or random ones to try the harness."""

from __future__ import annotations

import os
from pathlib import Path

from workloads import WHISPER


def folder_of(model: str, *, random: bool = False, cache: Path) -> Path:
    """A local folder in Hugging Face format with the weights of ``model``.

    ``$OTOSCOPE_BENCH_WEIGHTS/<model>`` wins when it exists; ``random`` gives untrained weights of the same shape,
    made in ``cache``; else otoscope fetches and converts the embedded ones.
    """
    if random:
        return _random(model, cache / f"random-{model}")
    own = os.environ.get("OTOSCOPE_BENCH_WEIGHTS")
    if own and (Path(own) / model).is_dir():
        return Path(own) / model
    from otoscope.models import sources

    return Path(sources.resolve(model).path)


def _random(model: str, folder: Path) -> Path:
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    if model == WHISPER:
        config = WhisperConfig(
            vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
            decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, init_std=0.1,
        )  # fmt: skip
        net = WhisperForConditionalGeneration(config)
    else:
        config = LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, rms_norm_eps=1e-5, rope_theta=100_000.0, tie_word_embeddings=True,
            initializer_range=0.04,
        )  # fmt: skip
        net = LlamaForCausalLM(config)
    net.save_pretrained(folder)
    return folder
