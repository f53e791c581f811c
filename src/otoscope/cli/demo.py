"""See the main jobs run on embedded models: does an audio-LLM listen or guess, and where does Whisper tell words apart?

Example: otoscope demo --out runs/demo
"""

from __future__ import annotations

import time
from pathlib import Path

from otoscope.cli.common import JsonOption, ModelOption, OutOption, print_json, print_lines, progress


def command(
    model: ModelOption = "whisper-tiny.en", out: OutOption = Path("runs/demo"), json: JsonOption = False
) -> None:
    from otoscope.studies.demo import demo

    start = time.perf_counter()
    with progress("speaking the words") as bar:
        done = demo(out, model, progress=bar, announce=bar.announce, notify=bar.say)
    if json:
        print_json(done.results)
        return
    print_lines(
        ["Listen or guess", "", *done.listened.lines, "", "Where words are told apart", "", *done.patched.lines]
    )
    reports = [str(part.report) for part in (done.listened, done.patched) if part.report]
    print_lines([f"\n{time.perf_counter() - start:.0f} s; open the reports: {', '.join(reports)}"])
