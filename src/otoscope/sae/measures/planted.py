"""Activations whose true features are known, to ask of every measure whether it can tell good dictionaries from bad ones.

``x_t = sum_j f_tj d_j + offset + noise``, with ``f >= 0`` sparse. As in speech, recordings are runs of phones with silence
between them, and features have

* a **hierarchy**: a feature of the class is active whenever one of its phones is said, and a feature of the phone itself;
* **frequency**: background features from common to rare (Zipf);
* **correlation**: every second background feature mostly comes with the one before it;
* **temporal smoothness**: amplitudes drift slowly, background features last several frames;
* what belongs to the **speaker** and to the speaker's sex.

Dictionaries of three qualities are read by one and the same encoder (non-negative orthogonal matching pursuit with as many
features as truly are active), so that only their directions differ: all true, half true, all random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from otoscope.sae.measures.frames import Frames, Label, Reading, csr
from otoscope.sae.measures.phone_classes import PhoneClasses

Quality = Literal["perfect", "half", "random"]
#: from the best to the worst
QUALITIES: tuple[Quality, ...] = ("perfect", "half", "random")


@dataclass(frozen=True)
class PlantedConfig:
    """How the activations are made.

    Attributes:
        d: width.
        n_classes, phones_per_class: classes of phones.
        n_speakers, per_speaker: speakers, half of each sex, and recordings of each.
        tokens: phones per recording.
        lengths: fewest and most frames of one.
        n_background: features that have nothing to do with phones.
        most_common: share of the frames in which the most common of them is active.
        persistence: probability that one that is active still is in the next frame.
        together: probability that every second one comes with the one before.
        smoothness: how much of a frame's amplitude is that of the frame before.
        noise: standard deviation per channel.
        offset: length of the mean.
    """

    d: int = 48
    n_classes: int = 3
    phones_per_class: int = 4
    n_speakers: int = 8
    per_speaker: int = 5
    tokens: int = 14
    lengths: tuple[int, int] = (3, 9)
    n_background: int = 24
    most_common: float = 0.25
    persistence: float = 0.7
    together: float = 0.8
    smoothness: float = 0.8
    noise: float = 0.05
    offset: float = 3.0


@dataclass(frozen=True, eq=False)
class Planted:
    """Activations with their truth.

    Attributes:
        frames: activations and labels.
        classes: of the phones.
        features: ``[feature, d]`` unit rows.
        codes: ``[frame, feature]`` how strongly each is in each frame.
        offset: ``[d]``.
    """

    frames: Frames
    classes: PhoneClasses
    features: Float[np.ndarray, "feature d"]
    codes: Float[np.ndarray, "frame feature"]
    offset: Float[np.ndarray, " d"]

    def dictionary(self, quality: Quality, seed: int = 0) -> Float[np.ndarray, "feature d"]:
        """The true directions; or with a random half of them replaced by random ones; or random ones throughout."""
        rng = np.random.default_rng([seed, 7])
        wrong = {"perfect": 0.0, "half": 0.5, "random": 1.0}[quality]
        n = len(self.features)
        chosen = rng.permutation(n)[: round(wrong * n)]
        rows = self.features.copy()
        rows[chosen] = _unit(rng.standard_normal((len(chosen), rows.shape[1])))
        return rows

    def read(self, rows: Float[np.ndarray, "feature d"]) -> Reading:
        """What a dictionary with these directions makes of the frames."""
        k = max(1, round(float((self.codes > 0).sum(1).mean())) + 1)
        codes = pursuit(self.frames.x - self.offset, rows, k)
        return Reading(csr(codes), codes @ rows + self.offset, rows)


def planted(config: PlantedConfig | None = None, seed: int = 0) -> Planted:
    """Make activations."""
    c, rng = config or PlantedConfig(), np.random.default_rng(seed)
    n_phones = c.n_classes * c.phones_per_class
    phone, utterance, speaker = [], [], []
    for u in range(c.n_speakers * c.per_speaker):
        said = rng.integers(0, n_phones, c.tokens)
        said[rng.random(c.tokens) < 0.15] = -1
        own = np.repeat(said, rng.integers(c.lengths[0], c.lengths[1] + 1, c.tokens))
        phone.append(own)
        utterance.append(np.full(len(own), u))
        speaker.append(np.full(len(own), u % c.n_speakers))
    phone, utterance, speaker = (np.concatenate(v).astype(np.int64) for v in (phone, utterance, speaker))
    sex = speaker % 2
    of_class = np.where(phone >= 0, phone // c.phones_per_class, -1)
    on = np.concatenate(
        [
            of_class[:, None] == np.arange(c.n_classes), phone[:, None] == np.arange(n_phones),
            speaker[:, None] == np.arange(c.n_speakers), sex[:, None] == 1, (phone < 0)[:, None],
            _background(c, utterance, rng),
        ],
        axis=1,
    )  # fmt: skip
    codes = np.where(on, _amplitudes(c, utterance, on.shape[1], rng), 0.0)
    features = _unit(rng.standard_normal((on.shape[1], c.d)))
    offset = c.offset * _unit(rng.standard_normal((1, c.d)))[0]
    x = codes @ features + offset + c.noise * rng.standard_normal((len(codes), c.d))
    names = tuple(f"class{i}" for i in range(c.n_classes))
    by_phone = np.arange(n_phones) // c.phones_per_class
    classes = PhoneClasses(
        {name: by_phone == i for i, name in enumerate(names)}, by_phone[:, None] != by_phone[None],
        {"manner": (by_phone, names)},
    )  # fmt: skip
    labels = {
        "speaker": Label(speaker, tuple(f"s{i}" for i in range(c.n_speakers)), of_recordings=True),
        "sex": Label(sex, ("female", "male"), of_recordings=True),
    }
    frames = Frames(
        x.astype(np.float32),
        utterance,
        Label(phone, tuple(f"p{i}" for i in range(n_phones))),
        phone < 0,
        labels,
        speaker,
    )
    return Planted(frames, classes, features, codes, offset)


def pursuit(
    x: Float[np.ndarray, "frame d"], rows: Float[np.ndarray, "feature d"], k: int, least: float = 0.2
) -> Float[np.ndarray, "frame feature"]:
    """Non-negative orthogonal matching pursuit: ``k`` times the row that fits what is left best, then least squares.

    Coefficients below ``least`` of the mean active one are taken as 0.
    """
    n, left = len(x), np.asarray(x, np.float64)
    chosen = np.zeros((n, 0), np.int64)
    weights = np.zeros((n, 0))
    for _ in range(k):
        fit = left @ rows.T
        np.put_along_axis(fit, chosen, -np.inf, axis=1)
        chosen = np.concatenate([chosen, fit.argmax(axis=1)[:, None]], axis=1)
        part = rows[chosen]
        gram = part @ part.transpose(0, 2, 1) + 1e-6 * np.eye(chosen.shape[1])
        weights = np.linalg.solve(gram, (part @ x[:, :, None]))[:, :, 0]
        left = x - (weights[:, None] @ part)[:, 0]
    positive = weights[weights > 0]
    weights[weights < least * (positive.mean() if len(positive) else 0)] = 0
    codes = np.zeros((n, len(rows)))
    np.put_along_axis(codes, chosen, weights, axis=1)
    return codes


def _background(c: PlantedConfig, utterance: Int[np.ndarray, " frame"], rng: np.random.Generator) -> np.ndarray:
    n, m = len(utterance), c.n_background
    rate = c.most_common / np.arange(1, m + 1) ** 0.7
    start = rate * (1 - c.persistence) / (1 - rate)
    on = np.zeros((n, m), bool)
    draws = rng.random((n, m))
    for t in range(n):
        fresh = t == 0 or utterance[t] != utterance[t - 1]
        on[t] = draws[t] < (rate if fresh else np.where(on[t - 1], c.persistence, start))
    with_it = rng.random((n, m // 2)) < c.together
    on[:, 1 : 2 * (m // 2) : 2] |= on[:, 0 : 2 * (m // 2) : 2] & with_it
    return on


def _amplitudes(
    c: PlantedConfig, utterance: Int[np.ndarray, " frame"], m: int, rng: np.random.Generator
) -> Float[np.ndarray, "frame feature"]:
    """About 1, drifting slowly within a recording, never below 0.4."""
    z = rng.standard_normal((len(utterance), m))
    for t in range(1, len(z)):
        if utterance[t] == utterance[t - 1]:
            z[t] = c.smoothness * z[t - 1] + (1 - c.smoothness**2) ** 0.5 * z[t]
    return np.maximum(1 + 0.2 * z, 0.4)


def _unit(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
