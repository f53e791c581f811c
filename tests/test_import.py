"""``import otoscope`` is light: no torch, and under a second."""

from __future__ import annotations

import statistics
import subprocess
import sys

_TIMED = (
    "import sys, time; t = time.perf_counter(); import otoscope; print(time.perf_counter() - t); print(*sys.modules)"
)


def _imported(code: str) -> tuple[str, set[str]]:
    first, modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]
    return first, set(modules.split())


def test_import_loads_nothing_heavy_and_is_quick():
    runs = [_imported(_TIMED) for _ in range(5)]
    seconds = statistics.median(float(first) for first, _ in runs)
    print(f"import otoscope: {seconds:.3f} s (median of 5)")
    assert not runs[0][1] & {"torch", "transformers", "scipy", "matplotlib", "numpy"}
    assert seconds < 1.0


def test_help_and_usage_errors_load_no_torch():
    code = "import sys; from otoscope.cli.main import run; run({!r}); print('code'); print(*sys.modules)"
    for arguments in (["patch", "--clean", "a.wav"], ["patch", "--width", "x"]):
        _, modules = _imported(code.format(arguments))
        assert "otoscope.cli.patch" in modules
        assert not modules & {"torch", "transformers", "matplotlib"}


def test_reading_sound_and_runs_load_no_torch():
    code = "import sys, otoscope; otoscope.read, otoscope.Clip; import otoscope.runs, otoscope.stats; print(); print(*sys.modules)"
    _, modules = _imported(code)
    assert "soundfile" in modules
    assert not modules & {"torch", "transformers"}
