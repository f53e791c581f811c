"""Sound files and manifests: read any common file into a Clip, or say in one sentence why not."""

import csv
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from otoscope.audio.clip import Clip
from otoscope.errors import AudioError

#: Longest recording that is read whole, in seconds.
MAX_SECONDS = 2 * 60 * 60
#: Largest decoded size, all channels as float32, in bytes.
MAX_BYTES = 1_000_000_000
#: What `read` understands; anything else that libsndfile decodes is read too.
FORMATS = "wav, flac, ogg or mp3"
#: A file whose sound is quieter than this everywhere is called silent: one step of 16 bits.
SILENCE_PEAK = 1.0 / 32768
#: So many samples in a row at the largest value mean that the recording was clipped.
CLIPPED_RUN = 4
#: A manifest has this name inside its folder.
MANIFEST = "manifest.tsv"


def read(path: str | os.PathLike[str], rate: int | None = None) -> Clip:
    """Read a wav, flac, ogg or mp3 file as a mono Clip.

    ``rate``: resample to it (Hz); None keeps the file's own. What is done to the sound on the way (channels mixed down,
    resampling) and what is suspicious in it (silence, clipping) is listed in ``clip.notices``.

    Raises ``AudioError`` with one sentence when the file is missing, not a file, empty, unreadable, not sound, damaged,
    cut short, without samples, not finite, or larger than ``MAX_SECONDS`` / ``MAX_BYTES`` (known before decoding).
    """
    path = Path(path)
    _check_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_size(path, file)
            promised = file.frames
            channels = file.channels
            own_rate = file.samplerate
            notices = _check_cut_short(path, file)
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(_why_unreadable(path, error)) from error
    except (MemoryError, OSError) as error:
        raise AudioError(f"The file {path} cannot be read ({error}); check it and its permissions.") from error
    if promised and len(samples) < promised:
        raise AudioError(_cut_short(path, promised / own_rate, len(samples) / own_rate))
    if not len(samples):
        raise AudioError(f"The file {path} holds zero samples; give a recording that is not empty.")
    mono, mixed = _mixed_down(samples)
    if channels > 1:
        notices += mixed
    # the whole path as a name, so that a refusal of the samples names the file
    clip = Clip(mono, own_rate, name=str(path)).replace(name=path.stem)
    clip = clip.noticed(*notices, *_suspicions(clip.samples))
    return clip if rate is None else clip.resample(rate)


def write(path: str | os.PathLike[str], clip: Clip) -> Path:
    """Write a Clip as wav (32-bit float, exact) or flac (24 bits), in one step: the file is whole or not there.

    Returns the path. Raises ``AudioError`` for another suffix, for a flac of samples beyond +-1 (flac cannot hold
    them), and when the folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    kinds = {".wav": ("WAV", "FLOAT"), ".flac": ("FLAC", "PCM_24")}
    if suffix not in kinds:
        raise AudioError(
            f"Cannot write {path}: a sound is written as .wav or .flac, not {suffix or 'without suffix'!r}."
        )
    kind, subtype = kinds[suffix]
    if suffix == ".flac" and np.abs(clip.samples).max() > 1:
        raise AudioError(f"Cannot write {path}: flac holds no samples beyond +-1; scale the clip or write a .wav.")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=suffix, dir=path.parent)
        with os.fdopen(handle, "wb") as raw:
            soundfile.write(raw, _encoded(clip, suffix), clip.rate, format=kind, subtype=subtype)
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"Cannot write {path} ({reason}); check the folder, permissions and free space.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path


def _encoded(clip: Clip, suffix: str) -> np.ndarray:
    if suffix != ".flac":
        return clip.samples
    # libsndfile scales floats by 2^23 - 1 and reads integers as n / 2^23; integers made here come back exactly
    steps = np.clip(np.round(clip.samples.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
    return steps.astype(np.int32) << 8


def read_manifest(folder_or_tsv: str | os.PathLike[str], rate: int | None = None) -> list[Clip]:
    """All clips of a manifest: a tab-separated file with a header whose column ``path`` names a sound file per row.

    ``folder_or_tsv``: the file, or a folder that holds a ``manifest.tsv``. Paths are relative to the manifest's folder.
    The columns ``text`` and ``speaker`` fill those fields where they are not empty, every other column goes into
    ``labels``. ``rate`` as for ``read``.

    Raises ``AudioError`` for a missing manifest, one without ``path`` column or rows, and, with its row number, for a
    row whose file is missing or cannot be read. All files are looked for before the first is decoded.
    """
    manifest, rows = manifest_rows(folder_or_tsv)
    missing = [(number, row["path"]) for number, row in rows if not (manifest.parent / row["path"]).exists()]
    if missing:
        number, name = missing[0]
        more = f" ({len(missing)} rows of {len(rows)} lack their file)" if len(missing) > 1 else ""
        raise AudioError(
            f"Row {number} of {manifest} names {name!r}, which is not there{more}; "
            "paths are relative to the manifest's folder."
        )
    return list(_clips(manifest, rows, rate))


def manifest_rows(folder_or_tsv: str | os.PathLike[str]) -> tuple[Path, list[tuple[int, dict[str, str]]]]:
    """A manifest's own path, and its rows with their line numbers (the header is line 1); no sound is read.

    Raises ``AudioError`` as ``read_manifest`` does.
    """
    manifest = Path(folder_or_tsv)
    if manifest.is_dir():
        manifest = manifest / MANIFEST
    if not manifest.is_file():
        raise AudioError(
            f"There is no manifest {manifest}; a manifest is a tab-separated file with a column 'path' "
            "and, if known, 'text' and 'speaker'."
        )
    try:
        lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"The manifest {manifest} cannot be read as UTF-8 text ({error}); save it as such.") from error
    table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [column.strip() for column in next(table, [])]
    if "path" not in header:
        raise AudioError(
            f"The manifest {manifest} has no column 'path' (it has {', '.join(header) or 'nothing'}); "
            "its first line names the columns, separated by tabs."
        )
    rows: list[tuple[int, dict[str, str]]] = []
    for number, cells in enumerate(table, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise AudioError(
                f"Row {number} of {manifest} has {len(cells)} cells for {len(header)} columns; "
                "remove the tabs inside its cells."
            )
        row = dict(zip(header, (cell.strip() for cell in cells)))
        if not row["path"]:
            raise AudioError(f"Row {number} of {manifest} has an empty 'path'; name a sound file or remove the row.")
        rows.append((number, row))
    if not rows:
        raise AudioError(f"The manifest {manifest} has a header but no rows; add a row per recording.")
    return manifest, rows


def _clips(manifest: Path, rows: list[tuple[int, dict[str, str]]], rate: int | None) -> Iterator[Clip]:
    for number, row in rows:
        try:
            clip = read(manifest.parent / row["path"], rate)
        except AudioError as error:
            raise AudioError(f"Row {number} of {manifest}: {error}") from error
        yield clip.replace(
            name=Path(row["path"]).with_suffix("").as_posix(),
            text=row.get("text") or None,
            speaker=row.get("speaker") or None,
            labels={key: value for key, value in row.items() if key not in ("path", "text", "speaker") and value},
        )


def _check_file(path: Path) -> None:
    """Refuse what no decoder should see: nothing there, a folder, a device or pipe, an empty file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"There is no file {path}; check the path.") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"The file {path} cannot be opened ({error}); check its path and permissions.") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path} is a folder, not a sound file; name a file in it, or a folder with a {MANIFEST}.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path} is not a regular file; save the sound as {FORMATS} first.")
    if not status.st_size:
        raise AudioError(f"The file {path} is empty (0 bytes); copy or record it again.")
    if not os.access(path, os.R_OK):
        raise AudioError(f"The file {path} may not be read by this user; check its permissions.")


def _check_size(path: Path, file: soundfile.SoundFile) -> None:
    seconds = file.frames / file.samplerate
    decoded = 4 * file.frames * file.channels
    if seconds > MAX_SECONDS or decoded > MAX_BYTES:
        raise AudioError(
            f"The file {path} holds {seconds / 3600:.1f} h of sound, {decoded / 1e9:.1f} GB decoded; the limit is "
            f"{MAX_SECONDS / 3600:g} h and {MAX_BYTES / 1e9:g} GB, so cut it into shorter files."
        )


def _check_cut_short(path: Path, file: soundfile.SoundFile) -> tuple[str, ...]:
    """Notices for a wav or aiff whose data chunk is a little longer than its file; AudioError when much is missing.

    libsndfile reads such files without a word: only its log says "data : <size> (should be <size>)".
    """
    for line in file.extra_info.splitlines():
        key, _, rest = line.partition(":")
        if key.strip() not in ("data", "SSND") or "(should be" not in rest:
            continue
        promised, held = (int(part) for part in rest.replace("(should be", " ").replace(")", " ").split()[:2])
        # writers that stream do not know the length yet: they leave 0 or the largest number, and nothing is lost
        if promised in (0, 0x7FFFFFFF) or promised >= 0x7FFFF000 or held >= promised:
            return ()
        share = held / promised
        if share < 0.99:
            whole = file.frames / file.samplerate / share if share else float("inf")
            raise AudioError(_cut_short(path, whole, file.frames / file.samplerate))
        return (f"the file ends {promised - held} bytes earlier than its header says",)
    return ()


def _cut_short(path: Path, promised: float, held: float) -> str:
    return (
        f"The file {path} is cut short: its header promises {promised:.2f} s and it holds {held:.2f} s; "
        "copy or record it again."
    )


def _why_unreadable(path: Path, error: soundfile.LibsndfileError) -> str:
    with path.open("rb") as raw:
        head = raw.read(512)
    looks_like_text = b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    if looks_like_text:
        return f"The file {path} is text, not sound; give a {FORMATS} file."
    reason = error.error_string.rstrip(".")
    return f"The file {path} is damaged or not sound ({reason}); give a {FORMATS} file, or convert it with ffmpeg."


def _mixed_down(samples: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mean over channels ``[n, channels] -> [n]``, and what to say of it."""
    if samples.shape[1] == 1:
        return samples[:, 0], ()
    mono = samples.mean(axis=1, dtype=np.float32)
    notices = (f"{samples.shape[1]} channels mixed down to one",)
    loudest = float(np.sqrt(np.square(samples, dtype=np.float64).mean(axis=0)).max())
    if loudest > 0 and np.sqrt(np.square(mono, dtype=np.float64).mean()) < 0.05 * loudest:
        notices += ("the channels nearly cancel each other (opposite phase), use one of them alone",)
    return mono, notices


def _suspicions(samples: np.ndarray) -> tuple[str, ...]:
    peak = float(np.abs(samples).max())
    if peak <= SILENCE_PEAK:
        return ("silent: no sample is louder than one step of 16 bits",)
    notices: tuple[str, ...] = ()
    if peak >= 0.99:
        at_peak = np.abs(samples) >= min(peak, 1.0) - 1e-4
        edges = np.flatnonzero(np.diff(np.concatenate(([False], at_peak, [False])).astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        if (count := int(np.count_nonzero(runs >= CLIPPED_RUN))) > 0:
            notices += (f"clipped: {count} flat tops at full scale",)
    return notices


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
