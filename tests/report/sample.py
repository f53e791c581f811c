"""A report on made-up but realistic data, for tests and for looking at: ``python -m tests.report.sample DIRECTORY``."""

import sys
from pathlib import Path

import numpy as np

from otoscope.audio.clip import Clip, Span
from otoscope.report.blocks import Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table, Token, Tokens
from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.lens import Line, lens
from otoscope.report.page import Report
from otoscope.report.timeline import TimeMap, time_map
from otoscope.runs import Claim, Control, Run, Threshold
from otoscope.stats import bootstrap, bootstrap_map, sign_flip_map

RATE, SPAN = 16_000, (0.86, 1.02)
WORDS = (("please", 0.08, 0.46), ("say", 0.46, 0.80), ("pad", 0.86, 1.24), ("again", 1.30, 1.78))
PHONES = ["p", "l", "i", "z", "s", "eɪ", "p", "æ", "d", "ə", "ɡ", "ɛ", "n"]


def speech(word: str, seed: int = 0) -> Clip:
    """Something with the look of speech: a buzz through moving formants, a burst at the changed span."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(1.9 * RATE)) / RATE
    pitch = 110 + 25 * np.sin(2 * np.pi * 0.7 * time)
    buzz = sum(np.sin(h * 2 * np.pi * np.cumsum(pitch) / RATE) / h for h in range(1, 40))
    spectrum = np.fft.rfft(np.asarray(buzz))
    hertz = np.fft.rfftfreq(len(time), 1 / RATE)
    spectrum *= sum(1 / (1 + ((hertz - f) / w) ** 2) for f, w in ((550, 90), (1500, 120), (2500, 200)))
    voiced = np.fft.irfft(spectrum, len(time))
    envelope = sum(np.exp(-(((time - (a + b) / 2) / (0.3 * (b - a))) ** 4)) for _, a, b in WORDS)
    hiss = rng.normal(size=len(time)) * np.exp(-(((time - (0.5 if word == "pad" else 0.49)) / 0.05) ** 2)) * 4
    burst = rng.normal(size=len(time)) * ((time > SPAN[0]) & (time < SPAN[0] + (0.06 if word == "pad" else 0.02))) * 3
    samples = voiced / np.abs(voiced).max() * envelope + 0.05 * (hiss + burst) + 0.002 * rng.normal(size=len(time))
    words = tuple(Span(a, b, word if w == "pad" else w) for w, a, b in WORDS)
    edges = np.linspace(0.08, 1.78, len(PHONES) + 1)
    phones = tuple(Span(float(a), float(b), p) for a, b, p in zip(edges, edges[1:], PHONES))
    samples = (0.7 * samples / np.abs(samples).max()).astype(np.float32)
    return Clip(samples, RATE, text=f"please say {word} again", words=words, phones=phones, name=word)


def effect_map(n_pairs: int = 10, seed: int = 0) -> TimeMap:
    """Four layers x 24 windows: the effect sits in the span and moves to its end with depth."""
    rng = np.random.default_rng(seed)
    starts = np.arange(24) * 0.08
    centre = starts + 0.04
    truth = np.stack(
        [(0.95 - 0.1 * k) * np.exp(-(((centre - 0.92 - 0.06 * k) / (0.06 + 0.03 * k)) ** 2)) for k in range(4)]
    )
    truth[1, 13] = -0.3
    pairs = truth * rng.normal(1, 0.15, (n_pairs, 1, 1)) + rng.normal(0, 0.03, (n_pairs, 4, 24))
    mean, low, high = bootstrap_map(pairs)
    unnatural = np.zeros((4, 24), bool)
    unnatural[3, 12:14] = unnatural[0, 2] = True
    significant = sign_flip_map(pairs) < 0.05
    rows = [str(k) for k in range(4)]
    title = "encoder, resid_post: clean into corrupt (denoising)"
    return TimeMap(
        mean, starts, starts + 0.08, rows, "effect (share restored)", title, significant, unnatural, low, high
    )


def build(run: Run, seed: int = 0) -> Report:
    rng = np.random.default_rng(seed)
    clean, corrupt = speech("pad"), speech("bad", 1)
    first = effect_map()
    noising = TimeMap(
        -0.6 * first.values,
        first.starts,
        first.ends,
        first.rows,
        title="the same, corrupt into clean (noising)",
        significant=first.significant,
        limit=1.0,
    )
    lead = Figure(
        time_map("map-encoder", clean, first, span=SPAN, until=2.1),
        "Where in the encoder “pad” is decided",
        "Mean effect of 10 minimal pairs when one window of one layer is taken from the clean run. "
        "1 restores the whole difference of the logits; intervals are over pairs.",
        sound="clean",
    )
    report = Report(
        "Where does Whisper tiny.en hear the difference between “pad” and “bad”?",
        subtitle="10 minimal pairs, flite kal16, encoder and decoder",
        headline="The burst at 0.86 s decides: one 80 ms window of encoder layer 0 restores 95% of “pad”.",
        lead=lead,
    )
    bars = []
    for label, truth in (("encoder 3 mlp_out", 0.62), ("decoder 2 cross_attn_out", 0.48), ("decoder 3 resid_mid", 0.30),
                         ("decoder 1 mlp_out", 0.06), ("decoder 0 attn_out", -0.04)):  # fmt: skip
        points = truth + rng.normal(0, 0.1, 10)
        null = {
            kind: bootstrap(rng.normal(0.02, spread, 10))
            for kind, spread in (("random donor", 0.05), ("random direction", 0.03), ("untrained weights", 0.01))
        }
        bars.append(Bar(label, bootstrap(points), null, tuple(points)))
    heads = rng.normal(0, 0.04, (4, 6))
    heads[2, 1], heads[3, 4], heads[1, 0] = 0.41, 0.22, -0.18
    layers = ["embed", *map(str, range(4))]
    rise, fall = np.array([0.0, 0.02, 0.15, 0.7, 0.93]), np.array([0.0, 0.03, 0.12, 0.2, 0.05])
    tokens = [
        Token(" Please", 0.08, 0.46, 0.02), Token(" say", 0.46, 0.80, -0.31), Token(" pad", 0.86, 1.24, 6.84, "answer"),
        Token(" again", 1.30, 1.78, 0.7), Token(".", 1.78, 1.84, None), Token("<|endoftext|>", None, None, -0.02),
    ]  # fmt: skip
    donor = Control(0.02, (-0.01, 0.05), Threshold("<", 0.1), 10)
    claims = [
        Claim("patch.peak_in_span", "The largest encoder effect lies inside the changed span, in at least 90% of pairs.",
              Threshold(">=", 0.9), 0.97, (0.92, 1.0), 60, {"random donor": donor, "untrained weights": Control(0.0)}),
        Claim("patch.one_head", "One cross-attention head alone restores at least half of the difference.",
              Threshold(">=", 0.5), 0.41, (0.33, 0.47), 10, {"random direction": donor}),
        Claim("patch.noising", "Noising the same window removes at least half of the difference.",
              Threshold(">=", 0.5), 0.57, (0.44, 0.69), 10, {"random donor": donor}),
    ]  # fmt: skip
    report.add(
        Section("The two sounds", "They are the same, sample by sample, outside the marked span."),
        Sounds(
            [
                Sound("clean", "clean", clean, "Please say pad again.", SPAN),
                Sound("corrupt", "corrupt", corrupt, "Please say bad again.", SPAN),
            ]
        ),
        Tokens("tokens", tokens, "logit difference, pad − bad (nats)", "What it wrote, and how sure it was", "clean"),
        Section("Claims", "Thresholds were set before the run."),
        Claims(claims),
        Section(
            "In the encoder", "Both directions over one axis: denoising asks what suffices, noising what is needed."
        ),
        Figure(
            time_map("map-both", clean, [first, noising], span=SPAN, labels=clean.phones),
            "Sufficient and necessary",
            "The colour scales are the same. Phones stand between.",
            "clean",
        ),
        Section("In the decoder"),
        Figure(
            effects("components", bars, label="effect (share of the clean − corrupt difference restored)"),
            "By component, with controls in the same figure",
            "Mean and 95% bootstrap interval over 10 pairs. Controls lie at 0, as they should.",
        ),
        Figure(
            grid(
                "heads",
                heads,
                [str(i) for i in range(4)],
                [str(i) for i in range(6)],
                label="effect (share restored)",
                significant=np.abs(heads) > 0.15,
                unnatural=heads > 0.4,
                title="decoder cross-attention heads (cross_z)",
            ),
            "By head",
            "Each head patched alone at the answer position.",
        ),
        Figure(
            lens(
                "lens",
                [
                    Line("pad (answer)", rise, "answer", np.maximum(rise - 0.03, 0), np.minimum(rise + 0.04, 1)),
                    Line("bad (foil)", fall, "foil"),
                ],
                layers,
                marks={"saturation": 3},
                title="logit lens at the answer position",
            ),
            "When the answer appears",
            "Mean probability over 10 pairs through the final norm and the unembedding.",
        ),
        Note("2 of 96 cells leave the natural states; they are crossed and should not be read as evidence.", "warning"),
        Table(
            {"pair": ["pad / bad", "tip / dip"], "answer": [" pad", " tip"], "difference": [6.84, 5.1], "n": [1, 2]},
            "Pairs",
        ),
        Section("Reproduce"),
        Reproduce(run.info, ["The run is in this folder: results.json, tables/, figures/ (PDF, SVG, CSV)."]),
    )
    return report


def make(folder: Path) -> Path:
    """Write the sample run; returns the path of its report."""
    argv = [
        "otoscope",
        "patch",
        "--clean",
        "pad.wav",
        "--corrupt",
        "bad.wav",
        "--model",
        "whisper-tiny.en",
        "--out",
        "run",
    ]
    with Run(
        folder, "patch", {"model": "whisper-tiny.en", "pairs": 10}, seeds={"bootstrap": 0, "donor": 1}, argv=argv
    ) as run:
        run.record_weights("whisper-tiny.en", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a")
        build(run).save(run)
    return folder / "report.html"


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
