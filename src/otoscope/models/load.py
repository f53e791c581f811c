"""Load a model by name or path into the adapter of its family."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import ModelError
from otoscope.models import mini
from otoscope.models.adapter import Adapter
from otoscope.models.lora import wrap
from otoscope.models.processing import SPEECH, feature_extractor, processor, tokenizer
from otoscope.models.quiet import quiet
from otoscope.models.sources import resolve

#: ``model_type`` of a configuration -> adapter class; a new family is one file and one line here
FAMILIES = {
    "whisper": "otoscope.models.whisper:WhisperAdapter",
    "wav2vec2": "otoscope.models.wav2vec2:Wav2Vec2Adapter",
    "hubert": "otoscope.models.hubert:HubertAdapter",
    "wavlm": "otoscope.models.wavlm:WavLMAdapter",
    "llama": "otoscope.models.language:LanguageAdapter",
    "mistral": "otoscope.models.language:LanguageAdapter",
    "qwen2": "otoscope.models.language:LanguageAdapter",
    "qwen3": "otoscope.models.language:LanguageAdapter",
    "granite": "otoscope.models.language:LanguageAdapter",
    "qwen2_audio": "otoscope.models.qwen2_audio:Qwen2AudioAdapter",
    "qwen2_5_omni": "otoscope.models.qwen2_5_omni:Qwen25OmniAdapter",
    "qwen2_5_omni_thinker": "otoscope.models.qwen2_5_omni:Qwen25OmniAdapter",
    "voxtral": "otoscope.models.voxtral:VoxtralAdapter",
    "audioflamingo3": "otoscope.models.audio_flamingo3:AudioFlamingo3Adapter",
    "musicflamingo": "otoscope.models.audio_flamingo3:MusicFlamingoAdapter",
    "granite_speech": "otoscope.models.granite_speech:GraniteSpeechAdapter",
    "glmasr": "otoscope.models.glm_asr:GlmAsrAdapter",
}
#: ``model_type`` -> the transformers class of those that are not plain language models or speech encoders
_CLASSES = {
    "whisper": "WhisperForConditionalGeneration",
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
    "voxtral": "VoxtralForConditionalGeneration",
    "audioflamingo3": "AudioFlamingo3ForConditionalGeneration",
    "musicflamingo": "MusicFlamingoForConditionalGeneration",
    "granite_speech": "GraniteSpeechForConditionalGeneration",
    "glmasr": "GlmAsrForConditionalGeneration",
}
#: weights that only training reads (SpecAugment's mask), which published wav2vec2 checkpoints leave out
_UNREAD = ("masked_spec_embed",)
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def adapter_class(model_type: str, name: str = "the model") -> type[Adapter]:
    """The adapter of a configuration's ``model_type``.

    Raises:
        ModelError: no adapter reads this family; the sentence lists those there are.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"{name} is of the family '{model_type}', which otoscope cannot read: supported are {', '.join(FAMILIES)}."
        )
    module, _, cls = FAMILIES[model_type].partition(":")
    return getattr(import_module(module), cls)


def load_adapter(
    name_or_path: str,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    device_map: Any = None,
    adapter: str | Path | None = None,
) -> Adapter:
    """Load weights, tokenizer and feature extractor.

    Args:
        name_or_path: an embedded name (``whisper-tiny.en``), a Hugging Face id, or a local folder in Hugging Face or
            CTranslate2 format.
        device: where to put the weights; not used with ``device_map``.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``float64``.
        revision: branch, tag or commit of a hub model.
        offline: never ask the network.
        progress: called with one line of text per step of a download, and per thing to know of how the model was found.
        device_map: spread the weights as transformers' ``from_pretrained`` does (``"auto"``, ``"cuda:0"``, a dict). Layers on
            several devices run and are hooked there; the replay of a sweep needs them on one (``method="naive"`` does not).
        adapter: a LoRA to put on: a folder that peft has saved, the name of one that comes with the model (``listener`` of
            mini-qwen2-audio, or a folder in ``adapters/`` beside the weights), or a hub id.

    Raises:
        ModelError: not found, not readable, incomplete, not supported, or the device or dtype does not exist here.
    """
    torch_dtype = dtype if isinstance(dtype, torch.dtype) else _DTYPES.get(str(dtype))
    if torch_dtype is None:
        raise ModelError(f"'{dtype}' is not a dtype: expected one of {', '.join(_DTYPES)}.")
    torch_device = _device(device) if device_map is None else None
    source = resolve(name_or_path, revision=revision, offline=offline, progress=progress)
    if progress:
        for note in source.notes:
            progress(note)
    config = _config(source.path, name_or_path)
    cls = adapter_class(config.get("model_type", "?"), name_or_path)
    with quiet():
        hf = _weights(source.path, config, torch_dtype, name_or_path, device_map)
        hf = hf if torch_device is None else hf.to(torch_device)
        if adapter is not None:
            beside = mini.shipped() if source.kind == "embedded" else source.path / "adapters"
            hf = wrap(hf, adapter, beside, offline=offline)
        parts = [tokenizer(source.path, progress), feature_extractor(source.path, config)]
        if cls.listens_and_reads:
            parts.append(processor(source.path))
        name = source.name if adapter is None else f"{source.name}+{Path(adapter).name}"
        return cls(hf, name, *parts)


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"the device '{device}' is not available here: expected cpu, cuda, cuda:0 or mps.") from error
    return found


def _config(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name} has no readable config.json in {path}: expected a Hugging Face model folder."
        ) from error


def _weights(path: Path, config: dict[str, Any], dtype: torch.dtype, name: str, device_map: Any = None) -> Any:
    import transformers

    named = (config.get("architectures") or [""])[0]
    ctc = named.endswith("ForCTC") or (named == "" and "vocab_size" in config and config.get("ctc_loss_reduction"))
    kind = config["model_type"]
    name_of_class = _CLASSES.get(kind, "AutoModelForCausalLM")
    if kind in SPEECH:
        name_of_class = "AutoModelForCTC" if ctc else "AutoModel"
    cls: Any = getattr(transformers, name_of_class)
    try:
        model, found = cls.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            device_map=device_map,
        )
    except Exception as error:
        raise ModelError(
            f"the weights of {name} in {path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]}): "
            "expected a complete model.safetensors that fits config.json; fetch the model again."
        ) from error
    _check_complete(found, path, name)
    return model


def _check_complete(found: dict[str, Any], path: Path, name: str) -> None:
    """Refuse weights that transformers would fill up at random; tied ones it does not count as missing.

    Tensors that the model has no use for (the training heads of a speech encoder, say) are passed over.
    """
    if mismatched := sorted(found["mismatched_keys"]):
        tensor, stored, expected = mismatched[0][:3]
        raise ModelError(
            f"the weights of {name} in {path} do not fit its config.json: {tensor} has the shape {tuple(stored)} where "
            f"{tuple(expected)} was expected; fetch the model again."
        )
    if missing := sorted(key for key in found["missing_keys"] if not key.endswith(_UNREAD)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"the weights of {name} in {path} are incomplete: {', '.join(missing[:3])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing; fetch the model again."
        )
