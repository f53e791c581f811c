"""Time otoscope against its peers: ``python bench/run.py`` (what ``make bench`` calls).

Each tool runs in a worker of its own, all in one process group, two threads each, and only one works at a time: a
repeat asks every tool once, in turn (A B C A B C ...), so that a slow minute of the machine falls on all of them.
Medians over repeats go to ``bench/results.json``: workload -> ``ours_s``, ``peer_s`` and ``ratio`` (peer -> number,
above 1 where otoscope is faster), ``max_abs_diff`` (largest difference of any logit from any peer's), ``detail``.

Otoscope answers every patch of a workload. A peer that would take many minutes answers a declared, stratified subset
(``SUBSETS``), and the time per patch is scaled to the whole; ``detail.measured`` says how many patches that was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import environment

BENCH, ROOT = environment.BENCH, environment.ROOT
CACHE = BENCH / ".cache"
THREADS = 2
SWEEPS = {"E": "whisper-tiny.en", "D": "whisper-tiny.en"} | dict.fromkeys(("L", "L0", "H"), "smollm2-135m-instruct")
#: training a dictionary: width of the activations and number of features
DICTIONARIES = {"sae-384": (384, 3072), "sae-768": (768, 6144)}
WORKLOADS = (*SWEEPS, "gc", *DICTIONARIES, "trace", "import")
#: items of the grounding study that are timed (and, in a quick look, how many)
GC_ITEMS, GC_QUICK = 4, 1
PEERS = ("naive", "nnsight", "nnsight+prefix")
#: (layers, patches per layer; None: all) that a peer measures; what is not named here it measures whole
SUBSETS = {
    "naive": {"E": (4, 6), "D": (4, 8), "L": (30, 4), "L0": (30, 4), "H": (30, 1)},
    "nnsight": {"L": (6, None), "L0": (6, None), "H": (10, None)},
    "nnsight+prefix": {"L": (6, None), "L0": (6, None)},
}
QUICK = {
    "naive": {"E": (4, 1), "D": (4, 4), "L": (10, 1), "L0": (10, 1), "H": (10, 1)},
    "nnsight": {"L": (2, None), "L0": (2, None), "H": (2, None)},
    "nnsight+prefix": {"L": (2, None), "L0": (2, None)},
}
#: the project's bars: at least so many times faster than the peer (for ``trace``: at most 1.10x the plain forward)
BARS = {
    "E": {"naive": 3, "nnsight": 1.4},
    "D": {"naive": 40, "nnsight": 2},
    "L": {"naive": 8, "nnsight": 1.9},
    "L0": {"naive": 30, "nnsight": 7},
    "H": {"naive": 80, "nnsight": 25},
    "gc": {"naive": 8},
    "sae-384": {"saelens": 3},
    "sae-768": {"saelens": 4},
    "trace": {"plain": 1 / 1.10},
}
IMPORT_BAR_S = 1.0
EXACT = 1e-4
#: the most by which features may differ where SAELens loads a dictionary of ours
SAME_FEATURES = 1e-5
#: the most by which the last FVU of two trainings of the same mathematics may differ
SAME_CURVE = 0.01


class Worker:
    """A tool in a process of its own."""

    def __init__(self, python: Path, tool: str, model: str, weights: str):
        command = [python, BENCH / "worker.py", "--tool", tool, "--model", model, "--weights", weights]
        command += ["--inputs", CACHE, "--threads", str(THREADS)]
        self.tool = tool
        self.process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environ()
        )
        self._read()

    def ask(self, **request) -> dict:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the worker ended with code {self.process.wait()}"}
        if "error" in answer:
            raise RuntimeError(f"{self.tool}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def _environ() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | threads | quiet | {"PYTHONPATH": str(ROOT / "src")}


def _indices(name: str, tool: str, quick: bool) -> list[int]:
    from workloads import patches_of, stratified

    layers, per_layer = (QUICK if quick else SUBSETS).get(tool, {}).get(name, (None, None))
    return list(range(len(patches_of(name)))) if layers is None else stratified(name, layers, per_layer)


def sweep(name: str, workers: dict[str, Worker], repeats: int, quick: bool) -> dict:
    """Time one sweep with every tool, in turn; compare their answers."""
    chosen = {tool: _indices(name, tool, quick) for tool in workers}
    total = len(chosen["ours"])
    for tool, worker in workers.items():
        worker.ask(do="run", workload=name, indices=_warm_up(chosen[tool], tool))
    seconds: dict[str, list[float]] = {tool: [] for tool in workers}
    fixed: dict[str, list[float]] = {tool: [] for tool in workers}
    answers: dict[str, list[list[float]]] = {}
    for repeat in range(repeats):
        for tool, worker in workers.items():
            got = worker.ask(do="run", workload=name, indices=chosen[tool])
            seconds[tool].append(got["fixed_s"] + got["patch_s"] * total / len(chosen[tool]))
            fixed[tool].append(got["fixed_s"])
            answers[tool] = got["logits"]
            print(f"  {name} {repeat + 1}/{repeats} {tool}: {seconds[tool][-1]:.2f} s", file=sys.stderr)
    ours = dict(zip(chosen["ours"], answers["ours"]))
    diffs = {
        tool: max(abs(a - b) for i, row in zip(chosen[tool], answers[tool]) for a, b in zip(row, ours[i]))
        for tool in workers
        if tool != "ours"
    }
    measured = {tool: len(indices) for tool, indices in chosen.items()}
    # where the plain runs dominate (D, H), this tells what the patches alone cost
    patching = {tool: statistics.median(a - b for a, b in zip(seconds[tool], fixed[tool])) for tool in workers}
    detail = {
        "patches": total,
        "measured": measured,
        "max_abs_diff": diffs,
        "seconds": seconds,
        "plain_runs_s": {tool: statistics.median(values) for tool, values in fixed.items()},
        "ratio_without_plain_runs": {tool: patching[tool] / patching["ours"] for tool in diffs},
    }
    return _entry(name, seconds, max(diffs.values(), default=None)) | {"detail": detail | _when()}


def _warm_up(indices: list[int], tool: str) -> list[int]:
    """A few patches of the same shapes as the run: two for the loop, the last layer's batch for the others."""
    return indices[:2] if tool == "naive" else indices[-80:]


def trace(worker: Worker, repeats: int) -> dict:
    """The cost of keeping every residual of Whisper's encoder, against the plain forward."""
    got = worker.ask(do="trace", repeats=10 * repeats)
    entry = _entry("trace", {"ours": got["traced"], "plain": got["plain"]}, None)
    # neighbours in time are compared, so that a drift of the clock speed cancels
    entry["ratio"]["plain"] = statistics.median(p / t for p, t in zip(got["plain"], got["traced"]))
    return entry | {"detail": {"overhead": 1 / entry["ratio"]["plain"]} | _when()}


def importing(python: Path) -> dict:
    """Seconds that ``import otoscope`` takes in a fresh interpreter, median of 5."""
    code = "import time; t = time.perf_counter(); import otoscope, sys; print(time.perf_counter() - t, 'torch' in sys.modules)"
    runs = [
        subprocess.run(
            [str(python), "-c", code], check=True, capture_output=True, text=True, env=_environ()
        ).stdout.split()
        for _ in range(5)
    ]
    seconds = [float(s) for s, _ in runs]
    detail = {"seconds": seconds, "loads_torch": any(t == "True" for _, t in runs), "bar_s": IMPORT_BAR_S}
    return _entry("import", {"ours": seconds}, None) | {"detail": detail | _when()}


def grounding(python: Path, repeats: int, quick: bool) -> dict:
    """The grounding study, replayed and by naive hooks, in one process (see ``grounding.py``)."""
    command = [python, BENCH / "grounding.py", GC_QUICK if quick else GC_ITEMS, repeats, THREADS]
    done = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, env=_environ())
    got = json.loads(done.stdout)
    detail = {"items": got["items"], "exchanges": got["exchanges"], "seconds": got["seconds"]}
    return _entry("gc", got["seconds"], got["max_abs_diff"]) | {"detail": detail | _when()}


def dictionary(python: Path, name: str, repeats: int) -> dict:
    """Training a TopK dictionary, against SAELens's trainer (see ``sae.py``)."""
    command = [python, BENCH / "sae.py", *DICTIONARIES[name], repeats, THREADS]
    done = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, env=_environ())
    got = json.loads(done.stdout)
    matched = {tool: statistics.median(values) for tool, values in got["matched"]["seconds"].items()}
    detail = got | {"ratio_matched": matched["saelens"] / matched["ours"]}
    return _entry(name, got["defaults"]["seconds"], got["max_abs_diff"]) | {"detail": detail | _when()}


def _entry(name: str, seconds: dict[str, list[float]], diff: float | None) -> dict:
    medians = {tool: statistics.median(values) for tool, values in seconds.items()}
    ours = medians.pop("ours")
    ratios = {tool: value / ours for tool, value in medians.items()}
    return {"ours_s": ours, "peer_s": medians, "ratio": ratios, "max_abs_diff": diff, "bar": BARS.get(name, {})}


def _when() -> dict:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} threads",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def missed(name: str, entry: dict) -> list[str]:
    """What an entry fails: bars and exactness, one phrase each."""
    found = [
        f"{name}: {entry['ratio'][peer]:.2f}x {peer}, bar {bar:.2f}x"
        for peer, bar in entry["bar"].items()
        if peer in entry["ratio"] and entry["ratio"][peer] < bar
    ]
    allowed = SAME_FEATURES if name in DICTIONARIES else EXACT
    if entry["max_abs_diff"] is not None and not entry["max_abs_diff"] <= allowed:
        found.append(f"{name}: answers differ by {entry['max_abs_diff']:.1e}, allowed {allowed:.0e}")
    if name in DICTIONARIES:
        gap, mb = entry["detail"]["fvu_gap"], entry["detail"]["defaults"]["peak_mb"]
        if not gap <= SAME_CURVE:
            found.append(f"{name}: FVU differs by {gap:.2%} from SAELens's, allowed {SAME_CURVE:.0%}")
        if mb["ours"] > mb["saelens"]:
            found.append(f"{name}: peak memory {mb['ours']:.0f} MB, SAELens {mb['saelens']:.0f} MB")
    if name == "import" and (entry["ours_s"] > IMPORT_BAR_S or entry["detail"]["loads_torch"]):
        found.append(f"import: {entry['ours_s']:.2f} s, torch loaded: {entry['detail']['loads_torch']}")
    return found


def table(results: dict) -> str:
    """The results as a Markdown table: seconds, times faster, and the bar."""
    lines = [
        "| workload | otoscope | " + " | ".join(PEERS) + " | SAELens | plain forward | largest difference |",
        "|---" * (len(PEERS) + 5) + "|",
    ]
    for name, entry in results.items():
        cells = []
        for peer in (*PEERS, "saelens", "plain"):
            if peer not in entry["ratio"]:
                cells.append("")
                continue
            bar = f", bar {entry['bar'][peer]:.3g}x" if peer in entry["bar"] else ""
            cells.append(f"{_s(entry['peer_s'][peer])} ({entry['ratio'][peer]:.3g}x{bar})")
        diff = "" if entry["max_abs_diff"] is None else f"{entry['max_abs_diff']:.1e}"
        lines.append(f"| {name} | {_s(entry['ours_s'])} | " + " | ".join(cells) + f" | {diff} |")
    return "\n".join(lines)


def _s(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _save(path: Path, results: dict) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS, metavar="NAME")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat on smaller subsets: a look, not a result")
    parser.add_argument("--random", action="store_true", help="untrained weights: tries the harness without a download")
    parser.add_argument(
        "--out", type=Path, help="default: bench/results.json (quick or random: bench/.cache/trial.json)"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are ended too, not orphaned mid-sweep
    trial = args.quick or args.random
    out = args.out or (CACHE / "trial.json" if trial else BENCH / "results.json")
    repeats = 1 if args.quick else args.repeats

    python = environment.ensure()
    CACHE.mkdir(exist_ok=True)
    needed = {
        name: SWEEPS.get(name, SWEEPS["E"]) for name in args.workloads if name not in ("import", "gc", *DICTIONARIES)
    }
    models = sorted(set(needed.values()), reverse=True)
    folders = {}
    if models:
        command = [python, BENCH / "prepare.py", "--out", CACHE, "--models", *models, *(["--random"] * args.random)]
        done = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, env=_environ())
        folders = json.loads(done.stdout)

    # results of workloads that are not asked for now are kept: each entry says when it was measured
    results = json.loads(out.read_text()) if out.exists() else {}
    for model in models:
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for name in (n for n in WORKLOADS if needed.get(n) == model):
                tools = ["ours", *(p for p in args.peers if name in SWEEPS and _applies(p, name))]
                for tool in tools:
                    if tool not in workers:
                        workers[tool] = Worker(python, tool, model, folders[model])
                        stack.callback(workers[tool].close)
                if name == "trace":
                    results[name] = trace(workers["ours"], repeats)
                else:
                    results[name] = sweep(name, {t: workers[t] for t in tools}, repeats, args.quick)
                _save(out, results)
    if "gc" in args.workloads and not args.random:
        results["gc"] = grounding(python, repeats, args.quick)
        _save(out, results)
    for name in (n for n in DICTIONARIES if n in args.workloads):
        results[name] = dictionary(python, name, repeats)
        _save(out, results)
    if "import" in args.workloads:
        results["import"] = importing(python)
    results = {name: results[name] for name in WORKLOADS if name in results}
    _save(out, results)
    print(table(results))
    failures = [phrase for name in args.workloads if name in results for phrase in missed(name, results[name])]
    print("\n".join(["", *failures]) if failures else "\nevery bar is met")
    return 1 if failures and not trial else 0


def _applies(peer: str, name: str) -> bool:
    """The prefix cache is for causal stacks entered in the middle; Whisper's decoder of 8 tokens gains nothing by it."""
    return peer != "nnsight+prefix" or SWEEPS[name] != SWEEPS["E"]


if __name__ == "__main__":
    sys.exit(main())
