"""What stands beside a model's weights: its tokenizer, its feature extractor, and the processor that writes its prompts.

Processors of some families ask for packages that otoscope does not need (for pictures, or audio files). Without them the
tokenizer and the feature extractor do the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from otoscope.models.checkpoint import read_json

#: speech encoders, which hear samples
SPEECH = ("wav2vec2", "hubert", "wavlm")


def tokenizer(path: Path, progress: Callable[[str], None] | None = None) -> Any:
    """The tokenizer in a model folder, with the processor's chat template where it has none of its own; or None.

    Args:
        path: the folder.
        progress: told why a tokenizer that is there cannot be used.
    """
    import transformers

    if not any((path / f).exists() for f in ("tokenizer.json", "vocab.json", "tokenizer.model", "tekken.json")):
        return None
    try:
        found = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except ImportError as error:  # Mistral's own tokenizers are read by a package of theirs
        if progress:
            progress(f"the tokenizer in {path} cannot be used: {str(error).strip().splitlines()[0]}")
        return None
    older = path / "chat_template.json"
    if getattr(found, "chat_template", None) is None and older.exists():
        found.chat_template = read_json(older).get("chat_template")
    return found


def feature_extractor(path: Path, config: dict[str, Any]) -> Any:
    """What turns samples into the model's features; None where the model takes none, or its adapter makes them itself.

    Args:
        path: the model's folder.
        config: its configuration.
    """
    import transformers

    config = config.get("thinker_config", config)
    kind = config["model_type"]
    tower = config if kind == "whisper" else config.get("audio_config")
    if kind not in SPEECH and tower is None:
        return None
    if any((path / f).exists() for f in ("preprocessor_config.json", "processor_config.json")):
        return transformers.AutoFeatureExtractor.from_pretrained(path, local_files_only=True)
    if tower is None:
        return transformers.Wav2Vec2FeatureExtractor(do_normalize=config.get("feat_extract_norm") == "layer")
    return transformers.WhisperFeatureExtractor(feature_size=tower["num_mel_bins"])


def processor(path: Path) -> Any:
    """The family's own processor; None where the folder has none, or it needs a package that is not here."""
    import transformers

    files = [path / f for f in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")]
    if not any("processor_class" in read_json(file) for file in files if file.exists()):
        return None
    try:
        found = transformers.AutoProcessor.from_pretrained(path, local_files_only=True)
    except (ImportError, OSError, ValueError, TypeError, AttributeError):
        return None
    return found if hasattr(found, "tokenizer") else None
