"""How should clean and corrupt be made so that only one factor differs? Every way of corrupting, by every yardstick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from otoscope.audio.clip import Clip
from otoscope.audio.corruptions import FACTORS
from otoscope.engine.model import Model
from otoscope.methods.isolation import MARGIN, Cell, isolation, judge
from otoscope.methods.yardsticks.base import Yardstick
from otoscope.methods.yardsticks.registry import yardsticks
from otoscope.methods.yardsticks.speaker import SpeakerSpace, equal_error_rate
from otoscope.methods.yardsticks.words import Words
from otoscope.models.wer import score
from otoscope.stats import Interval, bootstrap, ratio_of_sums
from otoscope.studies.corruption_checks import N_SENTENCES, Check, checks, harmless, sentence
from otoscope.studies.corruption_sounds import Sounds
from otoscope.studies.corruption_ways import Way, ways
from otoscope.studies.outcome import Step

#: A yardstick is reliable where it tells different utterances from the same one (ROC area) ...
RELIABLE = 0.75
#: ... and follows a planted change of its own factor in this share of sentences.
FOLLOWS = 0.8
SCOPES = ("clip", "word")
#: Other utterances that each one is compared with for the natural difference.
_PARTNERS = 2
#: Utterances corrupted in one step of a run.
_BATCH = 12
#: Stretch of an utterance that stands for a word where speakers are told apart by one, seconds.
_WORD = 0.5

Moved = dict[str, list[float]]


@dataclass(frozen=True)
class AuditConfig:
    """What to audit, and on how much.

    Attributes:
        n: sentences per way at its default strength.
        n_levels: sentences per way at other strengths; None is a third of ``n``, at least 6.
        seed: of every draw.
        recogniser: the Whisper of the yardstick for words.
    """

    n: int = 24
    n_levels: int | None = None
    seed: int = 0
    recogniser: str = "whisper-base"

    def sentences(self, way: Way) -> int:
        """So many sentences for a way."""
        return self.n if way.level == "default" else min(self.n, self.n_levels or max(6, self.n // 3))


class Ruler(NamedTuple):
    """What is known of one yardstick at one scope."""

    natural: float
    """mean distance of unrelated utterances, in the yardstick's unit: an effect of 1"""
    same: float
    """mean effect where nothing should have moved: an inaudible noise; for ``speaker``, another utterance of the same one"""
    auc: float
    """share of (different, same) pairs in which the different one is measured as further away; .5 is chance"""
    reliable: bool


class Checked(NamedTuple):
    """What the yardsticks said of one planted change."""

    check: Check
    own: list[list[float]]
    """effect on its own factor, [strength][sentence]"""
    others: Mapping[str, Cell]
    """at the middle strength: every other factor that should have stayed"""

    @property
    def follows(self) -> float:
        """Share of sentences in which the effect grows with every strength; for voices, in which each is beyond the margin."""
        values = np.array(self.own)
        if not self.check.graded:
            return float((values > MARGIN).all(axis=0).mean())
        return float((np.diff(values, axis=0) > 0).all(axis=0).mean())

    @property
    def strays(self) -> list[str]:
        """Factors whose yardsticks moved though nothing of theirs did."""
        return [factor for factor, cell in self.others.items() if cell.verdict == "changed"]


@dataclass(frozen=True, eq=False)
class Audited:
    """One way, judged."""

    way: Way
    moved: Mapping[str, np.ndarray]
    """factor -> of each sentence, in the yardstick's unit"""
    effects: Mapping[str, np.ndarray]
    """factor -> of each sentence, in natural differences"""
    groups: Sequence[str]
    cells: Mapping[str, Cell]
    scores: Mapping[str, Interval]
    """factor -> isolation"""

    @property
    def disagreements(self) -> list[tuple[str, str]]:
        """(factor, what is declared) where the measurement says the contrary."""
        contrary = {"keeps": "changed", "breaks": "kept"}
        return [
            (factor, declared)
            for declared, names in (("keeps", self.way.keeps), ("breaks", self.way.breaks))
            for factor in names
            if self.cells[factor].verdict == contrary[declared]
        ]


@dataclass(frozen=True, eq=False)
class Found:
    """All that an audit found.

    Attributes:
        rulers: scope -> factor -> what is known of its yardstick.
        checked: the planted changes.
        audited: every way at every level, in order.
        null: the judged harmless change, by scope: the control of every score.
        eer: equal error rate of the speaker yardstick by scope, and the speakers it was measured on.
        wer: of the recogniser on the clean sentences, against their texts.
        units: factor -> unit of its yardstick, and what it compares.
    """

    config: AuditConfig
    source: str
    rulers: Mapping[str, Mapping[str, Ruler]]
    checked: Sequence[Checked]
    audited: Sequence[Audited]
    null: Mapping[str, Mapping[str, Interval]]
    eer: Mapping[str, float]
    n_retest_speakers: int
    wer: Interval
    units: Mapping[str, tuple[str, str]]

    def default(self) -> list[Audited]:
        """The ways at their default strength."""
        return [one for one in self.audited if one.way.level == "default"]


def study(
    sounds: Sounds,
    model: Model,
    config: AuditConfig,
    step: Step,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Found:
    """Measure every way of corrupting with every yardstick, and judge it.

    Args:
        sounds: what is corrupted.
        model: the recogniser, a Whisper that nothing else uses.
        config: on how much.
        step: stores what is done.
        progress: called with sentences done and their total.
        notify: told what is being computed.
    """
    notify(f"training the speaker yardstick on {len({c.speaker for c in sounds.training})} speakers")
    space = SpeakerSpace(**step("speaker space", lambda: vars(SpeakerSpace.train(sounds.training, config.seed))))
    rulers = yardsticks(space, model)
    words = rulers["words"]
    assert isinstance(words, Words)

    notify("measuring how far natural utterances lie apart")
    clips = [utterance.clip for utterance in sounds.utterances]
    for clip, text in zip(clips, step("heard", lambda: _heard(words, clips)), strict=True):
        words.remember(clip, text)
    wer = _wer(clips, [words.heard(clip) for clip in clips])
    natural = {scope: step(f"natural {scope}", lambda s=scope: _natural(sounds, rulers, s)) for scope in SCOPES}
    null = {scope: step(f"harmless {scope}", lambda s=scope: _harmless(sounds, rulers, s)) for scope in SCOPES}
    retests = step("retests", lambda: _retests(sounds.retests, rulers["speaker"]))
    notify("checking the yardsticks on planted changes")
    planted = step("checks", lambda: _planted(rulers))
    scale = {scope: {factor: _mean_size(natural[scope][factor]) for factor in FACTORS} for scope in SCOPES}
    checked = _checked(planted, scale["clip"])
    known = {scope: _rulers(natural[scope], null[scope], retests[scope], scale[scope], checked) for scope in SCOPES}

    notify("corrupting")
    todo = ways(sounds)
    total, done = sum(config.sentences(way) for way in todo), 0
    audited = []
    for way in todo:
        moved: Moved = {factor: [] for factor in FACTORS}
        groups: list[str] = []
        n = config.sentences(way)
        for start in range(0, n, _BATCH):
            batch = range(start, min(start + _BATCH, n))
            found = step(f"{way.label} {start}", lambda w=way, b=batch: _measured(w, b, sounds, rulers, config.seed))
            for factor in FACTORS:
                moved[factor] += found["moved"][factor]
            groups += found["groups"]
            done += len(batch)
            if progress:
                progress(done, total)
        audited.append(_audited(way, moved, groups, scale[way.scope], known[way.scope], config.seed))
    silent = {
        scope: _scores(
            {factor: _effects(null[scope][factor], scale[scope][factor]) for factor in FACTORS},
            None,
            known[scope],
            config.seed,
        )
        for scope in SCOPES
    }
    return Found(
        config, sounds.source, known, checked, audited, silent, {s: _eer(retests[s]) for s in SCOPES},
        len({c.speaker for c in sounds.retests}), wer, {f: (y.unit, y.summary) for f, y in rulers.items()},
    )  # fmt: skip


# -- measuring: what a step of the run stores ---------------------------------------------------------------------------


def _heard(words: Words, clips: list[Clip]) -> list[str]:
    words.prepare(clips)
    return [words.heard(clip) for clip in clips]


def _measured(
    way: Way, batch: Sequence[int], sounds: Sounds, rulers: Mapping[str, Yardstick], seed: int
) -> dict[str, Any]:
    samples = [way.make(sounds, index, seed) for index in batch]
    rulers["words"].prepare([clip for sample in samples for clip in (sample.clean, sample.corrupt)])
    moved = {f: [ruler.moved(s.clean, s.corrupt, s.span) for s in samples] for f, ruler in rulers.items()}
    return {"moved": moved, "groups": [sample.unit for sample in samples]}


def _natural(sounds: Sounds, rulers: Mapping[str, Yardstick], scope: str) -> Moved:
    """Distances of unrelated utterances by different speakers, or of a word of each."""
    own = sounds.utterances
    pairs = []
    for i, first in enumerate(own):
        others = [u for u in (*own[i + 1 :], *own[:i]) if u.clip.speaker != first.clip.speaker]
        pairs += [(first, second) for second in others[:_PARTNERS]]
    moved: Moved = {}
    for factor, ruler in rulers.items():
        # a word alone is neither transcribed nor aligned well; all of it differs, as all of a sentence does
        whole = scope == "clip" or factor in ("words", "phones")
        moved[factor] = [
            ruler.moved(a.clip, b.clip) if whole else ruler.moved(a.clip, b.clip, a.span, b.span) for a, b in pairs
        ]
    return moved


def _harmless(sounds: Sounds, rulers: Mapping[str, Yardstick], scope: str) -> Moved:
    own = sounds.utterances[:_BATCH]
    pairs = [(u.clip, harmless(u.clip), u.span if scope == "word" else None) for u in own]
    rulers["words"].prepare([after for _, after, _ in pairs])
    return {factor: [ruler.moved(*pair) for pair in pairs] for factor, ruler in rulers.items()}


def _retests(clips: Sequence[Clip], ruler: Yardstick) -> dict[str, dict[str, list[float]]]:
    """By scope: distances of two utterances of one speaker, and of different ones."""
    found: dict[str, dict[str, list[float]]] = {scope: {"same": [], "different": []} for scope in SCOPES}
    for i, first in enumerate(clips):
        for second in clips[i + 1 :]:
            if first.text == second.text:  # the same words would make two voices alike
                continue
            which = "same" if first.speaker == second.speaker else "different"
            found["clip"][which].append(ruler.moved(first, second))
            found["word"][which].append(ruler.moved(first, second, _middle(first), _middle(second)))
    return found


def _middle(clip: Clip) -> tuple[float, float]:
    start = max(0.0, (clip.duration - _WORD) / 2)
    return start, min(clip.duration, start + _WORD)


def _planted(rulers: Mapping[str, Yardstick]) -> dict[str, Any]:
    """Of each check: what its own yardstick measures at each strength, and what the others do at the middle one."""
    found = {}
    for check in checks():
        clean = [sentence(i) for i in range(N_SENTENCES)]
        made = [[check.make(i, strength) for i in range(N_SENTENCES)] for strength in range(3)]
        if check.factor == "words":
            rulers["words"].prepare([clip for row in made for clip in row])
        stay = [factor for factor in FACTORS if factor != check.factor and factor not in check.moves]
        if "words" in stay:
            rulers["words"].prepare([*clean, *made[1]])
        own = rulers[check.factor]
        found[check.factor] = {
            "own": [[own.moved(a, b) for a, b in zip(clean, row)] for row in made],
            "others": {factor: [rulers[factor].moved(a, b) for a, b in zip(clean, made[1])] for factor in stay},
        }
    return found


# -- judging: pure arithmetic on what was measured ----------------------------------------------------------------------


def _mean_size(values: Sequence[float]) -> float:
    return float(np.nanmean(np.abs(np.asarray(values, dtype=float))))


def _effects(values: Sequence[float], natural: float) -> np.ndarray:
    return np.abs(np.asarray(values, dtype=float)) / natural


def _auc(different: np.ndarray, same: np.ndarray) -> float:
    different, same = different[~np.isnan(different)], same[~np.isnan(same)]
    above = (different[:, None] > same[None]).mean() + (different[:, None] == same[None]).mean() / 2
    return float(above)


def _eer(retests: Mapping[str, Sequence[float]]) -> float:
    if not retests["same"] or not retests["different"]:
        return float("nan")
    return equal_error_rate(np.array(retests["same"]), np.array(retests["different"]))


def _checked(planted: Mapping[str, Any], scale: Mapping[str, float]) -> list[Checked]:
    made = []
    for check in checks():
        found = planted[check.factor]
        own = [_effects(row, scale[check.factor]).tolist() for row in found["own"]]
        others = {f: judge(_effects(values, scale[f])) for f, values in found["others"].items()}
        made.append(Checked(check, own, others))
    return made


def _rulers(
    natural: Moved,
    null: Moved,
    retests: Mapping[str, Sequence[float]],
    scale: Mapping[str, float],
    checked: Sequence[Checked],
) -> dict[str, Ruler]:
    follows = {one.check.factor: one.follows for one in checked}
    made = {}
    for factor in FACTORS:
        different, same = (_effects(values[factor], scale[factor]) for values in (natural, null))
        if factor == "speaker" and retests["same"]:
            # two utterances of one person are what a speaker yardstick must call the same
            different, same = (_effects(retests[which], scale[factor]) for which in ("different", "same"))
        auc = _auc(different, same)
        reliable = auc >= RELIABLE and follows[factor] >= FOLLOWS
        made[factor] = Ruler(scale[factor], float(np.nanmean(same)), auc, reliable)
    return made


def _audited(
    way: Way, moved: Moved, groups: list[str], scale: Mapping[str, float], rulers: Mapping[str, Ruler], seed: int
) -> Audited:
    effects = {factor: _effects(moved[factor], scale[factor]) for factor in FACTORS}
    units = _units(groups)
    cells = {f: judge(effects[f], units, reliable=rulers[f].reliable, seed=seed) for f in FACTORS}
    sizes = {factor: np.asarray(values, dtype=float) for factor, values in moved.items()}
    return Audited(way, sizes, effects, groups, cells, _scores(effects, units, rulers, seed))


def _units(groups: Sequence[str]) -> Sequence[str] | None:
    """Speakers are the units where there are enough of them for an interval, else sentences are."""
    return groups if len(set(groups)) >= 12 else None


def _scores(
    effects: Mapping[str, np.ndarray], units: Sequence[str] | None, rulers: Mapping[str, Ruler], seed: int
) -> dict[str, Interval]:
    trusted = [factor for factor in FACTORS if rulers[factor].reliable]
    return {factor: isolation(effects, factor, units, reliable=trusted, seed=seed) for factor in FACTORS}


def _wer(clips: Sequence[Clip], heard: Sequence[str]) -> Interval:
    items = score(heard, [clip.text or "" for clip in clips]).items
    return bootstrap(np.array([[item.errors, item.words] for item in items], dtype=float), ratio_of_sums)
