"""See the main job run: six spoken minimal pairs on the embedded Whisper, localised, with controls and a report.

Example: otoscope demo --out runs/demo
"""

from __future__ import annotations

import time
from pathlib import Path

from otoscope.cli.common import JsonOption, ModelOption, OutOption, print_json, progress, stderr, stdout


def command(
    model: ModelOption = "whisper-tiny.en", out: OutOption = Path("runs/demo"), json: JsonOption = False
) -> None:
    from otoscope.studies.demo import demo

    start = time.perf_counter()
    with progress("demo") as update:
        done = demo(out, model, progress=update, notify=lambda line: stderr.print(f"[dim]{line}[/dim]", soft_wrap=True))
    if json:
        print_json(done.results)
        return
    for line in done.lines:
        stdout.print(line, soft_wrap=True, markup=False)
    stdout.print(f"\n{time.perf_counter() - start:.0f} s; open the report: {done.report}", soft_wrap=True, markup=False)
