"""LibriSpeech (Panayotov et al. 2015): ``SPEAKER/CHAPTER/*.flac`` with the sentences in ``SPEAKER-CHAPTER.trans.txt``.

The sex of the readers is read from ``SPEAKERS.TXT`` where it lies in the folder or above it; that of the readers of
dev-clean is known. A folder with a ``manifest.tsv`` (path, speaker, perhaps text and sex) is read as well.
"""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import TaskError
from otoscope.models.mini_labels import SEX_OF, SEXES
from otoscope.tasks.corpora.layout import below, empty, manifest, mislabelled
from otoscope.tasks.recordings import Recording, from_file

FOLDERS = ("librispeech", "LibriSpeech")
#: parts of the corpus, the quiet and small ones first
PARTS = ("dev-clean", "test-clean", "dev-other", "test-other", "train-clean-100")
LICENCE = "CC BY 4.0"
CITATION = "Panayotov et al. 2015, LibriSpeech, ICASSP"

_SPEAKERS = "SPEAKERS.TXT"
_SEX = {"M": "male", "F": "female"}


def recordings(folder: Path) -> list[Recording]:
    """All recordings, with text and sex of the reader where they are known.

    Raises:
        TaskError: none is there, a line of the transcripts has no file or no text, or a row's sex is none.
    """
    folder = below(folder, FOLDERS)
    rows = manifest(folder, ("speaker",))
    found = _transcribed(below(folder, PARTS)) if rows is None else _of_rows(folder, rows)
    if not found:
        raise empty(folder, "SPEAKER/CHAPTER/*.flac with SPEAKER-CHAPTER.trans.txt, as in dev-clean")
    return found


def _of_rows(folder: Path, rows: list[tuple[int, dict[str, str]]]) -> list[Recording]:
    found = []
    for number, row in rows:
        speaker = row["speaker"]
        sex = row.get("sex", "").lower() or SEX_OF.get(speaker, "")
        if sex not in ("", *SEXES):
            raise mislabelled(f"line {number} of {folder / 'manifest.tsv'}", sex, " or ".join(SEXES))
        found.append(
            from_file(folder / row["path"], Path(row["path"]).stem, sex, speaker, row.get("text", ""), sex=sex)
        )
    return found


def _transcribed(folder: Path) -> list[Recording]:
    sexes = {**SEX_OF, **_sexes(folder)}
    found = []
    for transcript in sorted(folder.glob("*/*/*.trans.txt")):
        for line in transcript.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if not name:
                continue
            speaker = name.partition("-")[0]
            path = transcript.parent / f"{name}.flac"
            if speaker != transcript.parent.parent.name or not text.strip():
                raise TaskError(
                    f"{transcript} has the line '{line[:60]}': expected SPEAKER-CHAPTER-NUMBER and its sentence, so correct it."
                )
            if not path.is_file():
                raise TaskError(
                    f"{transcript} names '{name}', and '{path.name}' is not beside it: copy the whole chapter."
                )
            sex = sexes.get(speaker, "")
            found.append(from_file(path, name, sex, speaker, text.strip(), sex=sex))
    return found


def _sexes(folder: Path) -> dict[str, str]:
    """Reader -> sex from ``SPEAKERS.TXT`` (``id | sex | subset | minutes | name``, comments with a semicolon)."""
    path = next((at / _SPEAKERS for at in (folder, folder.parent) if (at / _SPEAKERS).is_file()), None)
    if path is None:
        return {}
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith(";")
    ]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {row[0]: _SEX[row[1]] for row in cells if len(row) > 1 and row[1] in _SEX}
