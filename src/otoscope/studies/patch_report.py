"""The report of a patching run: the sounds, the map over their time, the decoder's parts, the lens, and the claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from otoscope.engine.model import Model
from otoscope.methods.lens import logit_lens
from otoscope.methods.patching import EffectMap
from otoscope.methods.timing import word_timing
from otoscope.report.blocks import Block, Claims, Figure, Note, Reproduce, Section, Sound, Sounds, Table, Token, Tokens
from otoscope.report.effects import Bar, effects
from otoscope.report.grid import grid
from otoscope.report.lens import Line, lens
from otoscope.report.page import Report
from otoscope.report.timeline import TimeMap, time_map
from otoscope.runs import Claim, Run
from otoscope.stats import Interval, bootstrap
from otoscope.studies.patch import ALPHA, PairResult, PatchConfig, significance

#: pairs shown in full; the others stand in the table
_SHOWN = 6
#: fewer pairs than this cannot make any cell significant
_ENOUGH = 6
_EFFECT = "effect (share restored)"
_PARTS = {
    "attn_out": "self-attention",
    "cross_attn_out": "cross-attention",
    "mlp_out": "MLP",
    "resid_post": "whole stream",
}
_HEADS = {
    "decoder_cross_heads": ("Cross-attention heads", "cross_z"),
    "decoder_self_heads": ("Self-attention heads", "z"),
}


def write_report(
    run: Run,
    model: Model,
    results: Sequence[PairResult],
    claims: Sequence[Claim],
    config: PatchConfig,
    lines: Sequence[str],
) -> Path:
    """Write ``report.html`` and every figure as SVG, PDF and CSV; returns the path of the page."""
    first = results[0]
    c = first.contrast
    title = (
        f"Where does {model.name} tell “{c.answer_text}” from “{c.foil_text}”?"
        if len(results) == 1
        else f"Where does {model.name} tell {len(results)} pairs of sounds apart?"
    )
    direction = "clean values into the corrupt run (denoising: what suffices)"
    if config.mode == "noise":
        direction = "corrupt values into the clean run (noising: what is needed)"
    report = Report(
        title,
        headline=lines[0],
        subtitle=f"{len(results)} pair{'s' if len(results) > 1 else ''}; {direction}",
        lead=_encoder(first, 1, "lead"),
    )
    report.add(Section("Claims", "Thresholds stand in the code and were set before the run."), Claims(claims))
    if len(results) == 1:
        report.add(
            Note("One pair says nothing about the next: claims over pairs stay inconclusive. Give more pairs.", "info")
        )
    for i, result in enumerate(results[:_SHOWN], 1):
        report.add(*_sounds(model, result, i, lead=i == 1))
    if "encoder_components" in first.maps:
        share = "The effect is the share of the difference between the clean and the corrupt run that comes back."
        report.add(Section("In the encoder", f"Parts of each layer, patched at all frames at once. {share}"))
        report.add(_components("encoder_components", "Parts of the encoder", results))
    if "decoder_components" in first.maps:
        report.add(Section("In the decoder", "Patched at the position where the two answers part."))
        report.add(_components("decoder_components", "Parts of the decoder", results))
        report.add(*(_heads(key, results) for key in _HEADS if key in first.maps), _tokens_map(first))
        report.add(Section("When the answer appears"), _lens(model, results))
    report.add(Section("Pairs"), _table(results), Section("Reproduce"))
    report.add(
        Reproduce(run.info, ["This folder also holds results.json, tables/ (CSV) and figures/ (PDF, SVG, CSV)."])
    )
    report.save(run)
    return run.path / "report.html"


def _encoder(result: PairResult, number: int, name: str = "") -> Figure:
    """The map over time, with the same map under a random direction of equal size below it."""
    m = result.input_map
    assert m.edges is not None
    limit = float(np.ceil(np.nanmax(np.abs(m.effects)) * 20) / 20) if not np.isnan(m.effects).all() else 1.0

    def one(values: np.ndarray, title: str, unnatural: np.ndarray | None = None) -> TimeMap:
        assert m.edges is not None
        return TimeMap(
            values, m.edges[:-1], m.edges[1:], _short(m.rows), _EFFECT, title, unnatural=unnatural, limit=limit
        )

    maps = [one(m.effects, "encoder, whole stream", result.unnatural)]
    if "random direction" in m.controls:
        maps.append(one(m.control_effects("random direction"), "control: random direction of equal size"))
    caption = (
        f"Each cell: one window of one layer is taken from the other run. 1 gives the whole difference between "
        f"“{result.contrast.answer_text}” and “{result.contrast.foil_text}”, 0 none of it. "
        "The row “input” is what enters the first layer."
    )
    if result.unnatural is not None:
        caption += (
            " Crossed cells leave the states of natural runs (beyond their 99th percentile) at the last encoder layer."
        )
    drawing = time_map(name or f"encoder-{number}", result.pair.clean, maps, span=result.pair.span)
    return Figure(drawing, f"{result.pair.name or 'The pair'}: time and layer", caption, f"clean-{number}")


def _sounds(model: Model, result: PairResult, number: int, lead: bool) -> list[Block]:
    c, pair = result.contrast, result.pair
    blocks: list[Block] = [
        Section(
            pair.name or f"Pair {number}",
            f"The sounds differ at {pair.span[0]:.2f}-{pair.span[1]:.2f} s ({pair.change}).",
        ),
        Sounds(
            [
                Sound(f"clean-{number}", "clean", pair.clean, c.clean_text, pair.span),
                Sound(f"corrupt-{number}", "corrupt", pair.corrupt, c.corrupt_text, pair.span),
            ]
        ),
    ]
    if model.family == "whisper":
        blocks.append(_tokens(model, result, number))
    if not lead:
        blocks.append(_encoder(result, number))
    return blocks


def _tokens(model: Model, result: PairResult, number: int) -> Tokens:
    """What the model writes for the clean sound, coloured by how much the clean sound raises each token's log-probability."""
    c = result.contrast
    timing = word_timing(model, result.pair.clean)
    tokens = [t.token for t in timing.tokens]
    prompt = model.prompt()
    start = len(prompt) - 1
    logs = []
    for clip in (result.pair.clean, result.pair.corrupt):
        logits = model.run(model.inputs(clip, tokens=[*prompt, *tokens])).logits[0, start : start + len(tokens)]
        logs.append(logits.log_softmax(-1)[range(len(tokens)), tokens].tolist())
    at = c.position - start
    shown = [
        Token(t.text, t.start, t.end, clean - corrupt, "answer" if i == at and t.token == c.answer else "")
        for i, (t, clean, corrupt) in enumerate(zip(timing.tokens, *logs))
    ]
    label = "log-probability after the clean sound minus after the corrupt one (nats)"
    return Tokens(f"tokens-{number}", shown, label, "What it writes for the clean sound", f"clean-{number}")


def _interval(values: np.ndarray) -> Interval:
    return bootstrap(values) if len(values) > 1 else Interval(float(values[0]), np.nan, np.nan, 1)


def _components(key: str, title: str, results: Sequence[PairResult]) -> Figure:
    maps = [r.maps[key] for r in results]
    bars = []
    for row, layer in enumerate(maps[0].rows):
        for column, part in enumerate(maps[0].columns):
            values = np.array([m.effects[row, column] for m in maps])
            controls = {
                name: _interval(np.array([m.control_effects(name)[row, column] for m in maps]))
                for name in maps[0].controls
            }
            bars.append(Bar(f"{layer} {_PARTS[part]}", _interval(values), controls, tuple(values)))
    n = len(maps)
    caption = (
        f"Mean over {n} pairs with 95% bootstrap intervals over pairs; " if n > 1 else "One pair, so no interval; "
    )
    caption += "the controls (other sound, random direction, untrained weights) stand in the same row."
    return Figure(effects(key.replace("_", "-"), bars, label=_EFFECT), title, caption)


def _heads(key: str, results: Sequence[PairResult]) -> Figure:
    title, point = _HEADS[key]
    maps = [r.maps[key] for r in results]
    mean = np.nanmean(np.stack([m.effects for m in maps]), axis=0)
    tested = significance(maps) < ALPHA if len(maps) >= _ENOUGH else None
    drawing = grid(
        key.replace("_", "-"), mean, _short(maps[0].rows), _short(maps[0].columns), label=_EFFECT, significant=tested,
        title=f"decoder {point}, one head at a time",
    )  # fmt: skip
    strongest = _strongest_control(maps)
    test = "Faded cells are not significant (family-wise sign-flip over pairs, 5%). " if tested is not None else ""
    return Figure(drawing, title, f"{test}{strongest}")


def _strongest_control(maps: Sequence[EffectMap]) -> str:
    parts = [
        f"{name} {np.nanmax(np.nanmean(np.stack([m.control_effects(name) for m in maps]), axis=0)):.2f}"
        for name in maps[0].controls
    ]
    return f"Largest mean effect under each control: {', '.join(parts)}." if parts else ""


def _tokens_map(result: PairResult) -> Figure:
    m = result.maps["decoder_tokens"]
    names = [
        row.replace("cross_attn_out", "cross").replace("attn_out", "self").replace("mlp_out", "mlp") for row in m.rows
    ]
    columns = [f"{i} {c.strip() or '·'}" for i, c in enumerate(m.columns)]
    drawing = grid(
        "decoder-tokens", m.effects, names, columns, label=_EFFECT, row_label="layer, part", column_label="token"
    )
    return Figure(
        drawing, f"{result.pair.name or 'The pair'}: which token's state carries it", "Each part patched at one token."
    )


def _lens(model: Model, results: Sequence[PairResult]) -> Figure:
    curves: dict[str, list[np.ndarray]] = {
        "answer, clean sound": [],
        "foil, clean sound": [],
        "answer, corrupt sound": [],
    }
    for r in results:
        c = r.contrast
        for clip, side in ((r.pair.clean, "clean"), (r.pair.corrupt, "corrupt")):
            read = logit_lens(model, c.inputs(model, clip), answer=c.answer, foil=c.foil)
            curves[f"answer, {side} sound"].append(read.answer.prob[:, c.position])
            if side == "clean" and read.foil is not None:
                curves["foil, clean sound"].append(read.foil.prob[:, c.position])
    layers = [str(i) for i in range(model.stacks["decoder"].n_layers)]
    roles = {"answer, clean sound": "answer", "foil, clean sound": "foil", "answer, corrupt sound": "other"}
    lines = [Line(name, np.mean(np.stack(values), axis=0), roles[name]) for name, values in curves.items()]  # type: ignore[arg-type]
    drawing = lens("lens", lines, layers, title="logit lens at the position where the answers part")
    return Figure(
        drawing,
        "Logit lens",
        f"Mean probability over {len(results)} pair(s), read through the final norm and the unembedding.",
    )


def _table(results: Sequence[PairResult]) -> Table:
    rows = [
        (
            r.pair.name, r.contrast.clean_text, r.contrast.corrupt_text, r.contrast.answer_text, r.contrast.foil_text,
            *_clean_corrupt(r.input_map), f"{r.pair.span[0]:.2f}-{r.pair.span[1]:.2f}",
            f"{r.peak()[0]:.2f}-{r.peak()[1]:.2f}",
        )
        for r in results
    ]  # fmt: skip
    names = (
        "pair", "heard (clean)", "heard (corrupt)", "answer", "foil", "logit difference, clean run",
        "logit difference, corrupt run", "sounds differ (s)", "largest effect (s)",
    )  # fmt: skip
    return Table(dict(zip(names, map(list, zip(*rows)))))


def _clean_corrupt(m: EffectMap) -> tuple[float, float]:
    return (m.donor, m.base) if m.mode == "denoise" else (m.base, m.donor)


def _short(labels: Sequence[str]) -> list[str]:
    return [label.split(" ", 1)[-1] for label in labels]
