"""Audit which corruption changes which factor of speech, and nothing else.

Every way of making clean / corrupt pairs is measured by a yardstick per factor: words, phones, speaker, pitch, loudness,
background, rhythm and duration. The table and the report say what changed, what was kept, and what isolates what. Sounds come
from --data (a folder with LibriSpeech), or from speech synthesis.

Example: otoscope bench corruptions --out runs/corruptions
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.common import DeviceOption, JsonOption, OfflineOption, OutOption, print_done, progress


def command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds librispeech (and librispeech_speakers, esc10); without it, synthetic speech."
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Sentences per way of corrupting, at its default strength.")] = 24,
    words_model: Annotated[str, typer.Option(help="The Whisper that the yardstick for words asks.")] = "whisper-base",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    device: DeviceOption = "cpu",
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    from otoscope.studies.corruptions import AuditConfig
    from otoscope.studies.corruptions_run import audit

    config = AuditConfig(n=n, seed=seed, recogniser=words_model)
    with progress("auditing corruptions") as bar:
        done = audit(config, data=data, out=out, progress=bar, notify=bar.say, device=device, offline=offline)
    print_done(done, json)
