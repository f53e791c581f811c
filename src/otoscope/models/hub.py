"""The Hugging Face hub and its cache on this machine, with short timeouts and one clear sentence per failure."""

from __future__ import annotations

import difflib
import errno
from pathlib import Path

from otoscope.errors import ModelError
from otoscope.models.checkpoint import has_weights, read_json
from otoscope.models.convert_ct2 import is_ct2_folder
from otoscope.models.embedded import EMBEDDED

#: seconds until a silent hub counts as unreachable
_TIMEOUT = 10
#: for near matches when the hub cannot be asked
_WELL_KNOWN = (
    *(f"openai/whisper-{size}" for size in ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium")),
    *(f"openai/whisper-{size}" for size in ("medium.en", "large-v2", "large-v3", "large-v3-turbo")),
    "facebook/hubert-base-ls960",
    "facebook/hubert-large-ls960-ft",
    "facebook/wav2vec2-base",
    "facebook/wav2vec2-base-960h",
    "facebook/wav2vec2-large-960h-lv60-self",
    "microsoft/wavlm-base",
    "microsoft/wavlm-base-plus",
    "microsoft/wavlm-large",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "Qwen/Qwen2-Audio-7B-Instruct",
    "Qwen/Qwen2.5-Omni-3B",
    "Qwen/Qwen2.5-Omni-7B",
    "mistralai/Voxtral-Mini-3B-2507",
    "nvidia/audio-flamingo-3-hf",
    "ibm-granite/granite-speech-3.3-2b",
)
_SMALL_FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model", "*.tiktoken"]


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The complete snapshot of hub id ``name`` in the Hugging Face cache, or None; touches no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, HFValidationError):  # LocalEntryNotFoundError is an OSError
        return None
    return folder if has_weights(folder) and (folder / "config.json").is_file() else None


def cached_models() -> list[tuple[str, str, int]]:
    """What the Hugging Face cache holds whole: ``(hub id, model_type, bytes)``, sorted; touches no network."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        # its own default is the folder that was set when it was first imported
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repo in repos:
        folder = cached_snapshot(repo.repo_id, None) if repo.repo_type == "model" else None
        if folder is not None:
            kind = "whisper" if is_ct2_folder(folder) else str(read_json(folder / "config.json").get("model_type", ""))
            found.append((repo.repo_id, kind, repo.size_on_disk))
    return sorted(found)


def download_snapshot(name: str, revision: str | None, *, offline: bool = False) -> Path:
    """Download hub id ``name`` into the Hugging Face cache: its small files and one format of its weights.

    Raises:
        ModelError: offline, unreachable, unknown, gated, no such revision, no weights, or the disk is full.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub import errors as hub

    if offline or constants.HF_HUB_OFFLINE:
        raise ModelError(f"'{name}' is not on this machine and offline was asked for{_cure(name)}.")
    try:
        info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        files = [*_SMALL_FILES, *_weights(name, [file.rfilename for file in info.siblings or []])]
        return Path(snapshot_download(name, revision=info.sha, allow_patterns=files, etag_timeout=_TIMEOUT))
    except ModelError:
        raise
    except hub.GatedRepoError:
        raise ModelError(
            f"'{name}' is gated: accept its terms on https://huggingface.co/{name}, then run 'hf auth login'."
        ) from None
    except hub.RevisionNotFoundError:
        raise ModelError(f"'{name}' has no revision '{revision}' on the hub: name a branch, tag or commit.") from None
    except (hub.RepositoryNotFoundError, hub.HFValidationError):
        raise ModelError(f"there is no model '{name}' on the Hugging Face hub{near_matches(name)}.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise ModelError(
                f"'{name}' could not be written to the Hugging Face cache '{constants.HF_HUB_CACHE}' "
                f"({error.strerror}): free some space or set HF_HOME to another disk."
            ) from error
        raise _unreachable(name, error) from error
    except Exception as error:  # the hub's HTTP library, and so the type, changed twice in two years
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> ModelError:
    reason = f"the Hugging Face hub could not be reached ({type(error).__name__})"
    return ModelError(f"'{name}' is not on this machine and {reason}{_cure(name)}.")


def _weights(name: str, files: list[str]) -> list[str]:
    """One format of the weights: safetensors, else PyTorch's (read without unpickling code), else CTranslate2's."""
    top = [file for file in files if "/" not in file]
    if any(file.startswith("model") and file.endswith(".safetensors") for file in top):
        return ["model*.safetensors", *(file for file in top if file == "adapter_model.safetensors")]
    if any(file.startswith("pytorch_model") and file.endswith(".bin") for file in top):
        return ["pytorch_model*.bin"]
    if "model.bin" in top:
        return ["model.bin"]
    raise ModelError(f"'{name}' on the hub has no model.safetensors, pytorch_model.bin or CTranslate2 model.bin.")


def _cure(name: str) -> str:
    """How to get a model that is not here: its embedded twin when it has one, else a connection."""
    for model in EMBEDDED.values():
        if name.lower() == model.hub_id.lower():
            return f": the same weights are embedded, use '{model.name}' (or run 'otoscope fetch {model.name}' first)"
    return f": load it once with a connection, or give the path of a local folder{near_matches(name)}"


def near_matches(name: str) -> str:
    """``"; did you mean 'a' or 'b'?"`` from the names we know of, or what is embedded when none is near."""
    known = [*EMBEDDED, *(alias for model in EMBEDDED.values() for alias in model.aliases), *_WELL_KNOWN]
    by_short = {full.lower().split("/")[-1]: full for full in reversed(known)} | {full.lower(): full for full in known}
    found = difflib.get_close_matches(name.lower(), by_short, n=6, cutoff=0.7)
    near = list(dict.fromkeys(by_short[match] for match in found if by_short[match] != name))[:3]
    if near:
        return "; did you mean " + " or ".join(f"'{match}'" for match in near)
    return f"; embedded are {', '.join(EMBEDDED)}"
