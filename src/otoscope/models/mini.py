"""mini-qwen2-audio: a genuine Qwen2-Audio small enough for a laptop, put together from embedded weights.

Its encoder is the first layers of the embedded Whisper tiny.en, its language model the embedded SmolLM2-135M-Instruct;
between them lies the projector that otoscope trained (``recipes/mini_qwen2_audio``). Later Whisper layers forget the
voice and the background, which an audio-LLM is asked about too, so only the first :data:`ENCODER_LAYERS` are taken.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import ModelError
from otoscope.models.quiet import quiet

NAME = "mini-qwen2-audio"
#: seconds of sound that the encoder's window holds
WINDOW = 4
ENCODER_LAYERS = 2
#: tokens of SmolLM2's vocabulary that its training on text never needed, renamed to the marks of Qwen2-Audio
MARKS = {"<filename>": "<|AUDIO|>", "<gh_stars>": "<|audio_bos|>", "<issue_start>": "<|audio_eos|>"}
#: SmolLM2's chat format without its default system prompt; a sound in a user's turn comes between its marks
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: what ships in the package: the projector, the adapters and the model card
SHIPPED = "weights/mini_qwen2_audio"


def shipped() -> Path:
    """The folder of the package with projector, adapters and model card."""
    return Path(str(resources.files("otoscope") / SHIPPED))


def config(whisper: Path, language: Path) -> Any:
    """The Qwen2-Audio configuration around both."""
    from transformers import AutoConfig, Qwen2AudioConfig, Qwen2AudioEncoderConfig

    w = json.loads((whisper / "config.json").read_text("utf-8"))
    text = AutoConfig.from_pretrained(language)
    tower = Qwen2AudioEncoderConfig(
        num_mel_bins=w["num_mel_bins"], d_model=w["d_model"], encoder_layers=ENCODER_LAYERS,
        encoder_attention_heads=w["encoder_attention_heads"], encoder_ffn_dim=w["encoder_ffn_dim"],
        max_source_positions=50 * WINDOW,
    )  # fmt: skip
    made = Qwen2AudioConfig(audio_config=tower, text_config=text, audio_token_index=6)
    made.eos_token_id, made.pad_token_id, made.bos_token_id = 2, 2, 1
    return made


def untrained(whisper: Path, language: Path, seed: int = 0) -> Any:
    """Both ends with their real weights, and a random projector; float32.

    Args:
        whisper: Hugging Face folder of Whisper tiny.en.
        language: Hugging Face folder of SmolLM2-135M-Instruct.
        seed: of the projector's weights.
    """
    from safetensors.torch import load_file
    from transformers import Qwen2AudioForConditionalGeneration

    torch.manual_seed(seed)
    with quiet():
        model = Qwen2AudioForConditionalGeneration(config(whisper, language)).float().eval()
    state = {}
    for name, tensor in load_file(whisper / "model.safetensors").items():
        if name.startswith("model.encoder."):
            state["model.audio_tower." + name.removeprefix("model.encoder.")] = tensor.float()
    state["model.audio_tower.embed_positions.weight"] = state["model.audio_tower.embed_positions.weight"][: 50 * WINDOW]
    state = {k: v for k, v in state.items() if not _beyond(k)}
    words = load_file(language / "model.safetensors")
    for name, tensor in words.items():
        key = "lm_head.weight" if name == "lm_head.weight" else "model.language_model." + name.removeprefix("model.")
        state[key] = tensor.float()
    state.setdefault("lm_head.weight", state["model.language_model.embed_tokens.weight"])
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if "multi_modal_projector" not in name]
    if missing or unexpected:
        raise ModelError(
            f"the embedded weights do not fit {NAME}: {(missing + list(unexpected))[:3]}; fetch them again."
        )
    return model


def _beyond(name: str) -> bool:
    """Whether a tensor belongs to an encoder layer that is left out."""
    parts = name.split(".")
    return "layers" in parts and parts[1] == "audio_tower" and int(parts[parts.index("layers") + 1]) >= ENCODER_LAYERS


def tokenizer(language: Path) -> Any:
    """SmolLM2's tokenizer with the marks of Qwen2-Audio in place of three tokens that nothing uses."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    text = (language / "tokenizer.json").read_text("utf-8")
    for old, new in MARKS.items():
        text = text.replace(json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False))
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>", unk_token="<|endoftext|>",
    )  # fmt: skip
    made.chat_template = CHAT_TEMPLATE
    return made


def feature_extractor() -> Any:
    """Whisper's log-mel spectrogram over the shorter window."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW, return_attention_mask=True)


def fingerprint() -> str:
    """Changes with the shipped parts (first 8 hex digits)."""
    digest = hashlib.sha256(f"{ENCODER_LAYERS} {WINDOW} {CHAT_TEMPLATE}".encode())
    for name in ("projector.safetensors", "plain/adapter_model.safetensors"):
        digest.update((shipped() / name).read_bytes())
    return digest.hexdigest()[:8]


def trained(whisper: Path, language: Path, parts: Path | None = None) -> Any:
    """The plain model: both ends, the trained projector, the plain adapter merged; float32.

    Args:
        whisper: Hugging Face folder of Whisper tiny.en.
        language: Hugging Face folder of SmolLM2-135M-Instruct.
        parts: folder with ``projector.safetensors`` and ``plain``; None for what ships in the package.
    """
    from safetensors.torch import load_file

    from otoscope.models.dial import Dial

    parts = parts or shipped()
    model = untrained(whisper, language)
    projector = model.model.multi_modal_projector.linear
    kept = load_file(parts / "projector.safetensors")
    with torch.no_grad():
        projector.weight.copy_(kept["weight"])
        projector.bias.copy_(kept["bias"])
    Dial(model, {"plain": parts / "plain"}).set(plain=1.0)
    return model


def assemble(whisper: Path, language: Path, out: Path) -> None:
    """Write the plain model as a Hugging Face folder, float16; arguments as for :func:`trained`, ``out`` is empty."""
    model = trained(whisper, language)
    with quiet():
        model.half().save_pretrained(out)
        tokenizer(language).save_pretrained(out)
        feature_extractor().save_pretrained(out)
