"""Say of each wrong word whether the model heard wrong or guessed, where in sound and model, and what mends it.

With --reference, or a folder whose manifest.tsv has a column text, each error gets a verdict with its evidence. Without
one, the words that are most likely wrong or invented are flagged. --planted measures how often the verdicts are right, on
errors whose reason is known.

Example: otoscope explain sentence.flac --reference "what was said" --out runs/why
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from otoscope.cli.common import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutOption,
    RevisionOption,
    notice,
    print_json,
    print_lines,
    progress,
)
from otoscope.errors import TaskError


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Sound files, folders of them, or folders with a manifest.tsv.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="What is said in the one recording that is given.")] = None,
    context: Annotated[str, typer.Option(help="Text before the sound that the model is given (its prompt).")] = "",
    model: ModelOption = "whisper-tiny.en",
    language: Annotated[str, typer.Option(help="Language of a multilingual Whisper.")] = "en",
    details: Annotated[bool, typer.Option(help="Also find layer and heads, and try remedies.")] = True,
    planted: Annotated[bool, typer.Option("--planted", help="Measure the verdicts on planted errors.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder of sentences with texts for --planted (such as LibriSpeech dev-clean).")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Planted errors of either kind.")] = 150,
    half: Annotated[
        Literal["development", "test"], typer.Option(help="Half of the speakers; thresholds come from development.")
    ] = "test",
    workers: Annotated[int, typer.Option(min=1, help="Processes for --planted.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    loading = {"device": device, "dtype": dtype, "revision": revision, "offline": offline}
    if planted:
        if paths or reference or data is None:
            raise TaskError(
                "--planted makes its own errors from the sentences of --data: give that folder, and no paths."
            )
        from otoscope.studies.explain_planted import explain_planted

        with progress("reading") as bar:
            measured = explain_planted(
                data,
                model,
                n=n,
                half=half,
                seed=seed,
                workers=workers,
                out=out,
                progress=bar,
                notify=bar.say,
                **loading,
            )
        results, lines, report = measured.results, measured.lines, measured.report
    else:
        if not paths:
            raise TaskError("there is nothing to explain: name a sound file or a folder.")
        from otoscope.studies.explain import ExplainConfig
        from otoscope.studies.explain_run import explain_study

        config = ExplainConfig(context, language, details, seed)
        with progress("reading") as bar:
            done = explain_study(
                paths, model, reference=reference, config=config, out=out, progress=bar, notify=bar.say, **loading
            )
        for item in done.items:
            for remark in item["notices"]:
                notice(f"{item['path']}: {remark}")
        results, lines, report = {**done.results, "items": done.items}, done.lines, done.report
    if json:
        print_json(results)
        return
    print_lines(lines + ([f"\nreport: {report}"] if report else []))
