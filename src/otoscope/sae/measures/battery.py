"""All measures of a dictionary's codes on labelled frames, in one call, as flat names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from otoscope.sae.measures.absorption import absorption
from otoscope.sae.measures.coactivation import coactivation
from otoscope.sae.measures.consistency import tcs
from otoscope.sae.measures.erasure import erasure
from otoscope.sae.measures.frames import Frames, Label, Reading
from otoscope.sae.measures.geometry import geometry
from otoscope.sae.measures.phone_classes import PhoneClasses
from otoscope.sae.measures.probing import KS, sparse_probing
from otoscope.sae.measures.purity import phone_of_features, phone_purity
from otoscope.sae.measures.reconstruction import cosine, fvu, norm_ratio
from otoscope.sae.measures.sparsity import alive, dense, firing_rates, l0, l0_by_class
from otoscope.stats import Interval

Numbers = dict[str, Interval | float]
Direction = Literal["more", "less", "neither"]
#: labels whose commonest value is erased
_ERASED = ("manner", "voicing", "sex")


@dataclass(frozen=True)
class Settings:
    """``n_resamples`` of the intervals; ``seed`` of every draw; ``rows``: frames that a probe sees at most."""

    n_resamples: int = 1000
    seed: int = 0
    rows: int = 4000

    @property
    def common(self) -> dict[str, Any]:
        """What every measure is told."""
        return {"n_resamples": self.n_resamples, "seed": self.seed}

    @property
    def costly(self) -> dict[str, Any]:
        """The same for measures whose resamples are costly."""
        return {"n_resamples": min(self.n_resamples, 300), "seed": self.seed}


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: of it.
        better: name (or its beginning, up to a dot) of each number -> whether more of it is better, less, or neither.
        summary: what it says, in a sentence.
        take: from frames, what was made of them, the phones' classes and settings to numbers.
        needs_sparse: it counts active features, so it means nothing for channels or components, which always are.
    """

    name: str
    better: Mapping[str, Direction]
    summary: str
    take: Callable[[Frames, Reading, PhoneClasses, Settings], Numbers]
    needs_sparse: bool = False


def _reconstruction(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    both = (frames.x, reading.rebuilt, frames.utterance)
    return {
        "fvu": fvu(*both, **settings.common),
        "cosine": cosine(*both, **settings.common),
        "cosine_centred": cosine(*both, centred=True, **settings.common),
        "norm_ratio": norm_ratio(*both, **settings.common),
    }


def _sparsity(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    codes, utterance = reading.codes, frames.utterance
    found: Numbers = {
        "l0": l0(codes, utterance, **settings.common),
        "l0.silence": l0(codes, utterance, frames.silent, **settings.common),
        "alive": alive(codes),
        "dense": dense(codes, utterance, **settings.costly),
    }
    if "manner" in classes.partitions:
        of_phone, names = classes.partitions["manner"]
        by = l0_by_class(codes, utterance, of_frames(frames.phone.codes, of_phone), names, **settings.common)
        found |= {f"l0.{name}": value for name, value in by.items()}
    return found


def labels_of(frames: Frames, classes: PhoneClasses) -> dict[str, Label]:
    """Every label of frames by name: the phone, the ways to cut the phones, and what else is known."""
    labels = {"phone": frames.phone} if frames.phone.names else {}
    for name, (of_phone, names) in classes.partitions.items():
        labels[name] = Label(of_frames(frames.phone.codes, of_phone), names)
    return labels | dict(frames.labels)


def _probing(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    found: Numbers = {}
    for name, label in labels_of(frames, classes).items():
        by_k = sparse_probing(
            reading.codes, label, frames.utterance, frames.speaker, most=settings.rows, **settings.common
        )
        found |= {f"probe.{name}.k{k}": by_k[k] for k in KS}
    return found


def _consistency(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    given = (reading.codes, frames.utterance, frames.phone.codes)
    return {"tcs": tcs(*given, **settings.costly), "tcs_shuffled": tcs(*given, shuffled=True, **settings.costly)}


def _purity(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    n = len(frames.phone.names)
    found = phone_purity(reading.codes, frames.utterance, frames.phone.codes, n, **settings.common)
    return {"phone_purity": found.strict, "phone_lenient": found.lenient}


def _geometry(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    if reading.decoder is None:
        return {}
    own = None
    if len(frames.phone.names) and "manner" in classes.partitions:
        phone, _ = phone_of_features(reading.codes, frames.phone.codes, len(frames.phone.names))
        own = of_frames(phone, classes.partitions["manner"][0])
    found = geometry(reading.decoder, firing_rates(reading.codes) > 0, own)
    return {
        "antipodal": found.antipodal, "duplicates": found.duplicates, "nearest_cosine": found.nearest,
        "class_clustering": found.clustering,
    }  # fmt: skip


def _coactivation(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    found = coactivation(reading.codes, frames.utterance, frames.phone.codes, classes.unrelated, **settings.common)
    return {"spurious": found.unrelated, "spurious_expected": found.expected}


def _absorption(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    if reading.decoder is None:
        return {}
    concepts = {name: of_frames(frames.phone.codes, inside) == 1 for name, inside in classes.concepts.items()}
    found = absorption(
        frames.x, reading.codes, reading.decoder, frames.utterance, concepts, frames.phone.codes >= 0, **settings.common
    )
    return {"absorption": found.absorbed, "main_silent": found.missed}


def _erasure(frames: Frames, reading: Reading, classes: PhoneClasses, settings: Settings) -> Numbers:
    found: Numbers = {}
    for name, label in labels_of(frames, classes).items():
        if name in _ERASED:
            curve = erasure(frames, reading, label, name, factors=(), most=settings.rows, **settings.common)
            if curve is not None:
                found |= {f"erased.{name}": curve.erased, f"erased_null.{name}": curve.erased_null}
    return found


MEASURES: tuple[Measure, ...] = (
    Measure(
        "reconstruction",
        {"fvu": "less", "cosine": "more", "cosine_centred": "more", "norm_ratio": "neither"},
        "how well frames come back from their codes",
        _reconstruction,
    ),
    Measure(
        "sparsity",
        {"l0": "neither", "alive": "neither", "dense": "neither"},
        "how many features are active, by class of phones and on silence; how many are alive or dense",
        _sparsity,
        needs_sparse=True,
    ),
    Measure("probing", {"probe": "more"}, "how well the best 1, 2 or 5 features alone tell a label", _probing),
    Measure(
        "consistency",
        {"tcs": "less", "tcs_shuffled": "neither"},
        "whether a feature stays what it is while one phone is said",
        _consistency,
    ),
    Measure(
        "purity",
        {"phone_purity": "more", "phone_lenient": "more"},
        "share of active entries whose feature belongs to the phone that is said",
        _purity,
        needs_sparse=True,
    ),
    Measure(
        "geometry",
        {"antipodal": "neither", "duplicates": "neither", "nearest_cosine": "neither", "class_clustering": "more"},
        "how the decoder's rows lie",
        _geometry,
        needs_sparse=True,
    ),
    Measure(
        "coactivation",
        {"spurious": "less", "spurious_expected": "neither"},
        "features of unrelated phones that are active together",
        _coactivation,
        needs_sparse=True,
    ),
    Measure(
        "absorption",
        {"absorption": "less", "main_silent": "less"},
        "features of a class that fall silent where a feature of one phone speaks for them",
        _absorption,
        needs_sparse=True,
    ),
    Measure(
        "erasure",
        {"erased": "more", "erased_null": "neither"},
        "how much of what a probe tells is gone without the label's five best features",
        _erasure,
        needs_sparse=True,
    ),
)


def better(name: str) -> Direction:
    """Whether more of a number is better; ``neither`` for what only describes, and for what is not known here."""
    for key in (name, name.split(".")[0]):
        for measure in MEASURES:
            if key in measure.better:
                return measure.better[key]
    return "neither"


def take_all(
    frames: Frames,
    reading: Reading,
    classes: PhoneClasses,
    settings: Settings | None = None,
    *,
    always_active: bool = False,
) -> Numbers:
    """Every measure of what was made of frames.

    Args:
        frames, reading: what is measured.
        classes: of the phones.
        settings: of the measures.
        always_active: the codes are channels or components: leave out what counts active features.
    """
    settings = settings or Settings()
    found: Numbers = {}
    for measure in MEASURES:
        if not (always_active and measure.needs_sparse):
            found |= measure.take(frames, reading, classes, settings)
    return found


def of_frames(phone: np.ndarray, of_phone: np.ndarray) -> np.ndarray:
    """From a value per phone to one per frame (or feature); -1 where there is no phone."""
    if not len(of_phone):
        return np.full(len(phone), -1)
    return np.where(phone >= 0, np.asarray(of_phone).astype(np.int64)[np.maximum(phone, 0)], -1)
