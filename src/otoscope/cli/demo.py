"""See the main job run: six spoken minimal pairs on the embedded Whisper, localised, with controls and a report.

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
    with progress("speaking the pairs") as bar:
        done = demo(out, model, progress=bar, announce=bar.announce, notify=bar.say)
    if json:
        print_json(done.results)
        return
    print_lines([*done.lines, f"\n{time.perf_counter() - start:.0f} s; open the report: {done.report}"])
