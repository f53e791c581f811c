"""What does each feature of a dictionary stand for? Its moments, labels, neighbours and what steering with it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from otoscope.audio.clip import Clip, Span
from otoscope.errors import RunError
from otoscope.report.feature_site import window_around
from otoscope.report.features import FeatureRow, Moment, Neighbour, Share, SteeredText, Steering
from otoscope.sae.activity import Activity, Moments, Watch, merged
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.steering import Push, changed, differences, direction_of, random_directions, steered
from otoscope.studies.outcome import Step
from otoscope.studies.sae_sounds import Sounds

#: recordings that are counted between two savings
_CHUNK = 16
#: labels of a kind that a page shows
_SHOWN = 12


@dataclass(frozen=True)
class ViewConfig:
    """What is shown."""

    features: int = 60
    """Features that get a page: spread evenly over those that are active, from the rarest to the most frequent."""

    chosen: tuple[int, ...] = ()
    """These features instead."""

    top: int = 8
    """Strongest moments of each, at most one from each recording."""

    random: int = 4
    """Moments at random, likewise."""

    seconds: float = 4.0
    """Sound around each moment."""

    steer: int = 12
    """Features that are steered with; 0 for none."""

    strengths: tuple[float, ...] = (-0.5, 0.25, 0.5)
    """Steering strengths in units of the activations' spread."""

    steer_on: int = 1
    """Recordings whose transcripts are steered: those whose length is nearest to 4 s."""

    controls: int = 4
    """Random directions at each strength."""

    max_mb: float = 100.0
    """Largest size of the site, megabytes; features beyond it get no page."""

    seed: int = 0
    """Of the random moments, the random directions and the order of features."""

    def __post_init__(self) -> None:
        if self.features < 1 or self.top < 1 or self.random < 0 or self.steer < 0 or self.steer_on < 1:
            raise RunError(
                "features, top and steered recordings are at least 1, random moments and steering at least 0."
            )
        if not 0.5 <= self.seconds <= 30:
            raise RunError(f"the sound around a moment lasts 0.5 to 30 s, not {self.seconds:g}.")
        if not self.max_mb > 0:
            raise RunError(f"a site of at most {self.max_mb:g} MB holds nothing: give --max-mb a positive number.")
        if self.steer and (not self.strengths or self.controls < 1):
            raise RunError("steering needs at least one strength and one random direction to compare with.")


def watch(
    sounds: Sounds, config: ViewConfig, step: Step, progress: Callable[[int, int], None] | None = None
) -> Activity:
    """What all features do over all recordings."""
    parts: list[Activity] = []
    for start in range(0, len(sounds), _CHUNK):
        members = range(start, min(start + _CHUNK, len(sounds)))

        def compute(members: range = members):
            own = Watch(sounds.dictionary.config.n_features, config.top, config.random, config.seed + members.start)
            for i, heard in zip(members, sounds.hear(members)):
                if heard is not None:
                    own.add(i, heard.x, heard.codes, heard.time, heard.labels)
            return own.activity().plain()

        parts.append(Activity.of_plain(step(f"activity {start}", compute)))
        if progress:
            progress(members.stop, len(sounds))
    return merged(parts)


def choose(activity: Activity, config: ViewConfig) -> list[int]:
    """Features that get a page, in the order in which they matter should there be no room for all.

    Raises:
        RunError: no feature is active, or a chosen one does not exist.
    """
    n = len(activity.active)
    if wrong := [f for f in config.chosen if not 0 <= f < n]:
        raise RunError(f"there is no feature {wrong[0]}: the features of this dictionary are 0 to {n - 1}.")
    if config.chosen:
        return list(dict.fromkeys(config.chosen))
    alive = np.flatnonzero(activity.active)
    if not len(alive):
        raise RunError(
            "no feature of this dictionary is active in these recordings: check that model and site are those it was trained on."
        )
    by_density = alive[np.argsort(activity.active[alive], kind="stable")]
    even = by_density[np.unique(np.linspace(0, len(alive) - 1, min(config.features, len(alive))).round().astype(int))]
    return [int(f) for f in np.random.default_rng(config.seed).permutation(even)]


def shares(activity: Activity, feature: int, labelled: dict[str, np.ndarray]) -> dict[str, list[Share]]:
    """Kind -> the labels in which the feature is most often active."""
    found: dict[str, list[Share]] = {}
    for kind, tally in activity.tallies.items():
        code = {name: i for i, name in enumerate(tally.names)}
        total, frames = max(1, int(labelled[kind][feature])), max(1, int(tally.frames.sum()))
        found[kind] = [
            Share(name, n / total, tally.frames[code[name]] / frames, n / tally.frames[code[name]])
            for name, n in tally.of(feature)[:_SHOWN]
        ]
    return found


def rows(activity: Activity) -> list[FeatureRow]:
    """Every feature for the list."""
    n = len(activity.active)
    labelled = {kind: tally.labelled(n) for kind, tally in activity.tallies.items()}
    density, mean, strongest = activity.density, activity.mean, activity.strongest
    return [
        FeatureRow(f, float(density[f]), float(mean[f]), float(strongest[f]), shares(activity, f, labelled))
        for f in range(n)
    ]


def moments_of(
    sounds: Sounds, activity: Activity, features: Sequence[int], config: ViewConfig
) -> dict[int, tuple[list[Moment], list[Moment]]]:
    """Feature -> its strongest moments and those at random, with the strength around each."""
    wanted: dict[int, list[tuple[int, int, int]]] = {}
    groups = (activity.top, activity.random)
    for feature in features:
        for g, group in enumerate(groups):
            for m in np.flatnonzero(np.isfinite(group.rank[feature])):
                wanted.setdefault(int(group.recording[feature, m]), []).append((feature, g, int(m)))
    made: dict[tuple[int, int, int], Moment] = {}
    for i, places in wanted.items():
        own = list(dict.fromkeys(feature for feature, _, _ in places))
        time, strengths = sounds.strengths(i, own)
        clip = sounds.clip(i)
        for feature, g, m in places:
            curve = strengths[:, own.index(feature)]
            made[feature, g, m] = _moment(clip, i, groups[g], feature, m, time, curve, config.seconds)
    return {
        feature: tuple(
            [made[feature, g, m] for m in range(group.rank.shape[1]) if (feature, g, m) in made]
            for g, group in enumerate(groups)
        )
        for feature in features
    }  # type: ignore[return-value]


def _moment(
    clip: Clip, number: int, group: Moments, feature: int, m: int, time: np.ndarray, curve: np.ndarray, seconds: float
) -> Moment:
    at = float(group.time[feature, m])
    window = window_around(at, clip.duration, seconds)
    inside = np.flatnonzero((time >= window.start) & (time <= window.end))
    return Moment(
        sound=stem(number, window.start), seconds=window.end - window.start, at=at - window.start,
        value=float(group.value[feature, m]), recording=clip.name or f"recording {number}", start=window.start,
        curve=[(float(time[k] - window.start), float(curve[k])) for k in inside], speaker=clip.speaker,
        phones=_within(clip.phones, *window), words=_within(clip.words, *window),
    )  # fmt: skip


def _within(spans: Sequence[Span], start: float, end: float) -> list[Span]:
    """Spans that overlap a window, cut to it, counted from its start."""
    return [
        Span(max(s.start, start) - start, min(s.end, end) - start, s.text)
        for s in spans
        if min(s.end, end) > max(s.start, start)
    ]


def stem(recording: int, start: float) -> str:
    """Name of the files of a window's sound and picture."""
    return f"{recording:05d}-{round(1000 * start):07d}"


def cut(sounds: Sounds, name: str, seconds: float) -> Clip:
    """The sound of a window, by its name."""
    number, start = (int(part) for part in name.split("-"))
    clip = sounds.clip(number)
    first = round(start / 1000 * clip.rate)
    return Clip(clip.samples[first : first + max(1, round(seconds * clip.rate))], clip.rate, name=clip.name)


def neighbours(
    dictionary: Dictionary, features: Sequence[int], near: int = 8, opposite: int = 4
) -> dict[int, tuple[list[Neighbour], list[Neighbour]]]:
    """Feature -> those whose decoder directions have the largest and the smallest cosine with its own."""
    with torch.no_grad():
        unit = torch.nn.functional.normalize(dictionary.decoder.float(), dim=1)
        cosines = unit[list(features)] @ unit.T
    found = {}
    for feature, row in zip(features, cosines.numpy()):
        order = [int(f) for f in np.argsort(-row, kind="stable") if f != feature]
        first, last = order[:near], order[near:][::-1][:opposite]
        found[feature] = tuple([Neighbour(f, float(row[f])) for f in some] for some in (first, last))
    return found


def steer_features(
    sounds: Sounds, features: Sequence[int], spread: float, config: ViewConfig, step: Step,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, list[Steering]]:  # fmt: skip
    """Feature -> what steering with it does to transcripts, beside random directions of the same length."""
    model = sounds.model
    if model is None:
        return {}
    nearest = sorted(range(len(sounds)), key=lambda i: abs(sounds.seconds(i) - 4.0))[: config.steer_on]
    clips = [sounds.clip(i) for i in nearest]
    directions = random_directions(sounds.dictionary.config.d, config.controls, config.seed)
    english = model.name.endswith(".en") or not getattr(model.hf.generation_config, "lang_to_id", None)

    def texts(clip: Clip, pushes: list[Push]) -> list[str]:
        room = max(32, 2 * len((clip.text or "").split()) + 16)
        return steered(model, clip, sounds.site, spread, pushes, max_new_tokens=room)

    found: dict[int, list[Steering]] = {feature: [] for feature in features}
    done, total = 0, len(clips) * len(features)
    for number, clip in enumerate(clips):
        nothing = Push(directions[0], 0.0)
        null = [Push(d, s) for s in config.strengths for d in directions]
        plain, *rest = step(f"steer random {number}", lambda c=clip, n=null, o=nothing: texts(c, [o, *n]))
        each = len(directions)
        random = [
            float(np.mean([changed(t, plain, english) for t in rest[k * each : (k + 1) * each]]))
            for k in range(len(config.strengths))
        ]
        for feature in features:
            pushes = [Push(direction_of(sounds.dictionary, feature), s) for s in config.strengths]
            own = step(f"steer {feature} {number}", lambda c=clip, p=pushes: texts(c, p))
            found[feature].append(Steering(clip.name, plain, [
                SteeredText(s, changed(t, plain, english), r, differences(t, plain, english))
                for s, t, r in zip(config.strengths, own, random)
            ]))  # fmt: skip
            done += 1
            if progress:
                progress(done, total)
    return found
