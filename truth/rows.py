"""The rows of the ledger: what is claimed, the bar it must meet, and the command that measures it."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import atlas
import audits
import causal
import distance
import explain
import fix
import probes
import sae_paper

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("OTOSCOPE_DATA", ROOT.parent / "shared" / "data"))

Measured = tuple[float | None, list[float] | None]


@dataclass(frozen=True)
class Row:
    """One statement.

    Attributes:
        id: short name.
        statement: what is measured.
        bar: ``<= 0.076`` and the like; None where no bar was set.
        command: what prints the number.
        measure: gives value and interval; None where it cannot be measured here.
        unit: shown after the value.
        readme: whether the README's table shows it.
        seconds: first guess of its duration.
    """

    id: str
    statement: str
    bar: str | None
    command: str
    measure: Callable[[], Measured]
    unit: str = ""
    readme: bool = False
    seconds: float = 30.0

    def met(self, value: float) -> bool:
        """Whether a value meets the bar."""
        op, bound = (self.bar or "").split()
        return value <= float(bound) if op == "<=" else value >= float(bound)


@cache
def printed(*command: str) -> dict[str, Any] | None:
    """JSON that a command prints; None where the data it needs is not here."""
    if any("shared/data" in part for part in command) and not DATA.is_dir():
        return None
    real = [str(DATA / part.split("shared/data/", 1)[1]) if "shared/data/" in part else part for part in command]
    if real[0] == "otoscope":
        real = [sys.executable, "-m", "otoscope.cli.main", *real[1:]]
    else:
        real = [sys.executable, *real[1:]]
    done = subprocess.run(real, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"error: `{' '.join(command)}` ended with exit code {done.returncode}.")
    return json.loads(done.stdout)


def metric(name: str, *command: str) -> Callable[[], Measured]:
    """Read one metric, with its interval, from what a command prints."""

    def measure() -> Measured:
        result = printed(*command)
        if result is None:
            return None, None
        return result["metrics"][name], result["intervals"].get(name)

    return measure


def speed(workload: str, peer: str) -> Callable[[], Measured]:
    """How many times faster than a peer, from the benchmark's results."""

    def measure() -> Measured:
        path = ROOT / "bench" / "results.json"
        if not path.exists():
            return None, None
        entry = json.loads(path.read_text("utf-8")).get(workload, {})
        return entry.get("ratio", {}).get(peer), None

    return measure


def beside(workload: str, *keys: str) -> Callable[[], Measured]:
    """A number that the benchmark's results hold beside the times."""

    def measure() -> Measured:
        path = ROOT / "bench" / "results.json"
        value: Any = json.loads(path.read_text("utf-8")).get(workload) if path.exists() else None
        for key in keys:
            value = None if value is None else value.get(key)
        return value, None

    return measure


def import_seconds() -> Measured:
    """Median of five fresh interpreters."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import otoscope"], check=True)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append((bare - start) - (time.perf_counter() - bare))
    return sorted(times)[2], None


@cache
def demo() -> dict[str, float]:
    """Seconds and peak memory (GB) of the demonstration, report included."""
    start = time.perf_counter()
    out = ROOT / "runs" / f"truth-demo-{os.getpid()}"
    command = [sys.executable, "-m", "otoscope.cli.main", "demo", "--out", str(out), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"seconds": seconds, "gb": peak, "in_span": json.loads(done.stdout)["metrics"]["peak_in_span"]}


@cache
def fingerprint() -> str:
    """Hash of everything a number can depend on."""
    h = hashlib.sha256()
    for folder in ("src/otoscope", "truth", "bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".safetensors") and ".venv" not in path.parts and ".cache" not in path.parts:
                h.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return h.hexdigest()[:16]


#: a run that was stopped goes on, and one made by other code or weights is not taken for this one's
LISTEN = (
    "otoscope", "listen", "--task", "recorded-words", "--data", "../shared/data/", "--check", "--json", "--out",
    f"runs/truth-listen-{fingerprint()}",
)  # fmt: skip
ASR = (
    "otoscope",
    "listen",
    "--model",
    "whisper-base",
    "--task",
    "recorded-words",
    "--data",
    "../shared/data/",
    "--quick",
    "--json",
)
NULL = ("python", "truth/untrained_listener.py")
_LISTEN = "otoscope listen --task recorded-words --check"


def listened(name: str) -> Callable[[], Measured]:
    """Read one metric of the listening study."""
    return metric(name, *LISTEN)


PLANTED = ("python", "truth/planted.py", "--data", "../shared/data/librispeech")
EXACT = ("python", "truth/exactness.py")
WER = ("otoscope", "transcribe", "../shared/data/librispeech", "--json")
BENCH = "make bench"

ROWS = [
    Row("wer", "WER of the embedded Whisper tiny.en on 136 read sentences, greedy", "<= 0.076", " ".join(WER),
        metric("wer", *WER), readme=True, seconds=200),
    Row("real_time_factor", "seconds of computing per second of sound there", None, " ".join(WER),
        metric("real_time_factor", *WER), seconds=1),
    Row("exact32", "largest logit difference, sweep against naive hooks, float32, real weights", "<= 1e-4", " ".join(EXACT),
        metric("max_abs_diff.float32", *EXACT), readme=True, seconds=120),
    Row("exact64", "the same in float64", "<= 1e-9", " ".join(EXACT), metric("max_abs_diff.float64", *EXACT), readme=True,
        seconds=1),
    Row("import", "import otoscope, median of five", "<= 1.0", "make truth", import_seconds, " s", readme=True, seconds=2),
    Row("demo_seconds", "the demonstration, reports included", "<= 240", "make demo", lambda: (demo()["seconds"], None), " s",
        readme=True, seconds=240),
    Row("demo_memory", "its peak memory", "<= 3.0", "make demo", lambda: (demo()["gb"], None), " GB", seconds=1),
    Row("place", "60 planted changes: largest effect at the input lies in the span, give or take 100 ms", ">= 0.9",
        " ".join(PLANTED), metric("peak_in_span", *PLANTED), readme=True, seconds=600),
    Row("place_deep", "the same at the last encoder layer", None, " ".join(PLANTED),
        metric("peak_in_span.last_layer", *PLANTED), readme=True, seconds=1),
    Row("null_equal", "share of cells significant when both sounds are equal", "<= 0.05", " ".join(PLANTED),
        metric("significant.equal", *PLANTED), readme=True, seconds=1),
    Row("null_untrained", "share of cells significant on untrained weights", "<= 0.05", " ".join(PLANTED),
        metric("significant.untrained", *PLANTED), readme=True, seconds=1),
    Row("null_untrained_single", "the same without correction for many cells", None, " ".join(PLANTED),
        metric("p_below_level.untrained", *PLANTED), seconds=1),
    Row("trained_cells", "share of cells significant on the trained model", None, " ".join(PLANTED),
        metric("significant.trained", *PLANTED), seconds=1),
    *(
        Row(f"accuracy_{test}", f"mini-qwen2-audio, exact answers on {what}", f">= {bar}", _LISTEN,
            listened(f"accuracy.{test}"), readme=True, seconds=1500 if test == "commands" else 1)
        for test, what, bar in (
            ("commands", "spoken commands of unheard people", 0.9),
            ("digits", "spoken digits of unheard people", 0.9),
            ("sounds", "environmental sounds of an unheard fold", 0.8),
            ("sex", "male or female, unheard readers", 0.9),
        )
    ),
    Row("dial", "planted truth: gc orders 12 mixtures of listener and guesser as they behave (Spearman)", ">= 0.95", _LISTEN,
        listened("dial_spearman"), readme=True, seconds=1),
    Row("dial_error", "mean difference between gc and the behavioural listen rate along the dial", None, _LISTEN,
        listened("dial_calibration_error"), readme=True, seconds=1),
    *(
        Row(f"gc_{name}", f"gc of the {name} (1 listens, 0 guesses)", None, _LISTEN, listened(f"gc.{name}"), readme=True,
            seconds=1)
        for name in ("plain", "listener", "guesser")
    ),
    *(
        Row(f"listen_rate_{name}", f"share of conflicts in which the {name} follows the sound", None, _LISTEN,
            listened(f"listen_rate.{name}"), seconds=1)
        for name in ("plain", "listener", "guesser")
    ),
    Row("flips_before", "listener: exchanging the sound's states up to the listen layer gives the other sound's answer",
        ">= 0.9", _LISTEN, listened("flip_rate_before"), readme=True, seconds=1),
    Row("flips_after", "the same after it", "<= 0.1", _LISTEN, listened("flip_rate_after"), readme=True, seconds=1),
    Row("das", "learned subspaces order the layers as whole states do (Spearman of gc)", ">= 0.8", _LISTEN,
        listened("das_spearman"), readme=True, seconds=1),
    Row("listen_untrained", "listen layers claimed for an untrained projector", "<= 0", " ".join(NULL),
        metric("listen_layers", *NULL), readme=True, seconds=60),
    Row("listen_same", "layers with a gc when the sound is the same on both sides", "<= 0", " ".join(NULL),
        metric("gc_same_sound", *NULL), readme=True, seconds=1),
    Row("gc_asr", "gc of Whisper base with a misleading preceding text", None, " ".join(ASR), metric("gc.whisper-base", *ASR),
        readme=True, seconds=120),
    *(
        Row(f"speed_{w}_{peer}", f"times faster than {label}, {what}", f">= {bar}", BENCH, speed(w, peer), "x", readme=True,
            seconds=1)
        for w, what, bars in (
            ("E", "encoder windows (100 patches)", (3, 1.4)),
            ("D", "Whisper decoder (128)", (40, 2)),
            ("L", "language model (2,400)", (8, 1.9)),
            ("L0", "the same with a shared prefix", (30, 7)),
            ("H", "language-model heads (270)", (80, 25)),
        )
        for peer, label, bar in (("naive", "naive hooks", bars[0]), ("nnsight", "nnsight 0.8", bars[1]))
    ),
    Row("speed_gc_naive", "times faster than naive hooks, the grounding study of mini-qwen2-audio", ">= 8", BENCH,
        speed("gc", "naive"), "x", readme=True, seconds=1),
    *(
        Row(f"sae_{name}_{size}", f"TopK dictionary, {what} features, batches of 4,096: {measured}", limit, BENCH, measure,
            unit, readme=shown, seconds=1)
        for size, what, faster in (("384", "384 to 3,072", 3), ("768", "768 to 6,144", 4))
        for name, measured, limit, measure, unit, shown in (
            ("speed", "steps of training, times faster than SAELens", f">= {faster}", speed(f"sae-{size}", "saelens"), "x",
             True),
            ("speed_matched", "the same where SAELens computes what we do", None, beside(f"sae-{size}", "detail",
             "ratio_matched"), "x", False),
            ("fvu", "last FVU from the same weights and frames, relative difference", "<= 0.01", beside(f"sae-{size}",
             "detail", "fvu_gap"), "", True),
            ("memory", "peak memory of training", None, beside(f"sae-{size}", "detail", "defaults", "peak_mb", "ours"),
             " MB", False),
            ("memory_saelens", "peak memory of SAELens there", None, beside(f"sae-{size}", "detail", "defaults", "peak_mb",
             "saelens"), " MB", False),
            ("features", "largest difference of features where SAELens loads what was written, all architectures",
             "<= 1e-5", beside(f"sae-{size}", "max_abs_diff"), "", True),
        )
    ),
    Row("trace", "tracing all encoder residuals, times the plain forward", "<= 1.10", BENCH,
        lambda: _trace(), "x", readme=True, seconds=1),
]  # fmt: skip


CAUSAL = causal.command()
_CAUSAL = "otoscope bench causal --data ../shared/data"
ROWS += [
    Row("causal_faults", "faults planted in Whisper tiny.en, one at a time", ">= 300", _CAUSAL,
        metric("faults.model", *CAUSAL), readme=True, seconds=4000),
    Row("causal_exact", "exact patching from the healthy run names the faulty place first", ">= 0.95", _CAUSAL,
        metric("top1.exact-repair", *CAUSAL), readme=True, seconds=1),
    Row("causal_single", "the same, of faults that have one place (two swapped heads have two)", ">= 0.95", _CAUSAL,
        metric("top1_single.exact-repair", *CAUSAL), readme=True, seconds=1),
    Row("causal_random", "random guessing against chance, two-sided p", ">= 0.05", _CAUSAL, metric("random_p", *CAUSAL),
        readme=True, seconds=1),
    *(
        Row(f"causal_{measure}_{entrant}", f"{label}: {what}", bar, _CAUSAL, metric(f"{name}.{entrant}", *CAUSAL),
            readme=measure == "top1", seconds=1)
        for measure, name, what, bar in (
            ("top1", "top1", "names the faulty place first", None),
            ("auc", "auc", "ROC-AUC over places", None),
            ("healthy", "no_fault_ok", "calls a healthy model healthy", ">= 0.95"),
        )
        for entrant, label in causal.ENTRANTS.items()
        if (measure, entrant) != ("top1", "exact-repair")
    ),
]  # fmt: skip

EXPLAIN = explain.command()
_EXPLAIN = "otoscope explain --planted --data ../shared/data/librispeech --seed 1"
ROWS += [
    Row("explain_acoustic", "errors from a spoilt sound (noise, silence, another word) that are called heard wrong", ">= 0.9",
        _EXPLAIN, metric("verdict.acoustic", *EXPLAIN), readme=True, seconds=1800),
    Row("explain_acoustic_n", "such errors, planted in sentences of the test half of the speakers", ">= 150", _EXPLAIN,
        metric("n.acoustic", *EXPLAIN), seconds=1),
    Row("explain_prior", "errors over clean sound (misleading text before, biased unembedding) that are called guessed",
        ">= 0.9", _EXPLAIN, metric("verdict.prior", *EXPLAIN), readme=True, seconds=1),
    Row("explain_prior_n", "such errors", ">= 150", _EXPLAIN, metric("n.prior", *EXPLAIN), seconds=1),
    Row("explain_correct", "words that are right, of which no error is reported", ">= 0.95", _EXPLAIN,
        metric("verdict.correct", *EXPLAIN), readme=True, seconds=1),
    Row("explain_span", "median intersection over union of the planted span and the found one", ">= 0.5", _EXPLAIN,
        metric("span_iou", *EXPLAIN), readme=True, seconds=1),
]  # fmt: skip


ROWS += [
    Row(f"fix_{name}", statement, bar, fix.COMMAND, metric(key, *fix.command()), readme=name in fix.README,
        seconds=900 if name == "before" else 1)
    for name, (statement, bar, key) in fix.STATEMENTS.items()
]  # fmt: skip


ROWS += [
    Row(f"atlas_{name}", statement, bar, atlas.COMMAND, metric(key, *atlas.command()), readme=name in atlas.README,
        seconds=300 if name == "learned_encoder" else 1)
    for name, (statement, bar, key) in atlas.STATEMENTS.items()
]  # fmt: skip


ROWS += [
    Row(f"probe_{label}_{name}", f"{what}: {statement}", bar if barred else None, probes.shown(label),
        metric(key, *probes.command(label)), seconds=240 if name == "accuracy" else 1)
    for label, (what, bar) in probes.LABELS.items()
    for name, (statement, key, barred) in probes.MEASURES.items()
]  # fmt: skip


ROWS += [
    Row(f"corruptions_{name}", statement, bar, audits.COMMAND, metric(key, *audits.command()), readme=name in audits.README,
        seconds=400 if name == "ways" else 1)
    for name, (statement, bar, key) in audits.STATEMENTS.items()
]  # fmt: skip


def _recommended() -> Measured:
    """False maps of the recommended kind of patch; the sentence is kept for the causal benchmark to print."""
    results = printed(*distance.command())
    if results is None:
        return None, None
    claim = distance.keep(results)
    return claim["value"], claim["interval"]


ROWS += [
    *(
        Row(f"distance_{name}", statement, bar, distance.COMMAND, metric(key, *distance.command()),
            readme=name in distance.README, seconds=900 if name == "maps" else 1)
        for name, (statement, bar, key) in distance.STATEMENTS.items()
    ),
    Row("distance_recommended", "false maps of the recommended kind of patch, on sentences that took no part in the choice",
        "<= 0.15", distance.COMMAND, _recommended, seconds=1),
]  # fmt: skip


MINIMAL = ("python", "truth/minimal_pairs.py")
ROWS += [
    Row(f"minimal_pairs_{name}", statement, None, " ".join(MINIMAL), metric(key, *MINIMAL), seconds=seconds)
    for name, statement, key, seconds in (
        ("n", "minimal pairs of words, each spoken once", "pairs", 120),
        ("told", "of them, those whose two sounds Whisper tiny.en writes differently", "told_apart", 1),
        ("written", "of them, those of which it writes both words", "both_written", 1),
    )
]  # fmt: skip


ROWS += [
    Row(f"sae_paper_{name}", statement, bar, sae_paper.COMMAND, metric(key, *sae_paper.command()),
        readme=name in sae_paper.README, seconds=2100 if name == "trainings" else 1)
    for name, (statement, bar, key) in sae_paper.STATEMENTS.items()
]  # fmt: skip


def _fix_applied(name: str) -> Callable[[], Measured]:
    def measure() -> Measured:
        metric("wer.rise", *fix.command())()  # the run must be there
        found = printed(sys.executable, "truth/apply_fix.py", fix.run()) if DATA.is_dir() else None
        return (None if found is None else float(found[name])), None

    return measure


ROWS += [
    Row(f"fix_applied_{name}", statement, bar, "python truth/apply_fix.py RUN", _fix_applied(key), seconds=300)
    for name, statement, bar, key in (
        ("before", "a bare transformers pipeline writes words where nobody speaks", None, "hallucination.before"),
        ("after", "the same pipeline with the exported fix, in a process of its own", "<= 0.10", "hallucination.after"),
        ("time", "time of the pipeline with the fix, times that without", "<= 1.02", "time_ratio"),
    )
]  # fmt: skip


def _trace() -> Measured:
    ratio, _ = speed("trace", "plain")()
    return (None if ratio is None else 1 / ratio), None
