"""The grid of the out-of-distribution study: which kinds of patch localise which corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from otoscope.methods.patching import Mode
from otoscope.studies.distance_pairs import CORRUPTIONS

#: what stands in the patched window: the other run's states; the middle between both runs'; the mean natural state; nothing;
#: the run's own states with noise
Value = Literal["donor", "half", "mean", "zero", "gaussian"]
#: Gaussian noise has so many standard deviations of the natural states (Meng et al. 2022)
SIGMAS = 3.0


@dataclass(frozen=True)
class Kind:
    """A kind of patch.

    Attributes:
        place: what a person calls the site: ``input``, ``layer3``, ``attn1``, ``mlp1``.
        site: the site.
        width: of a window, in seconds.
        mode: ``denoise`` patches the corrupt run, ``noise`` the clean one.
        value: what is put there; all but ``donor`` and ``half`` are ablations of the clean run.
    """

    place: str
    site: str
    width: float
    mode: Mode
    value: Value = "donor"

    @property
    def name(self) -> str:
        """Short and unique: ``input-0.2s-denoise-donor``."""
        return f"{self.place}-{self.width:g}s-{self.mode}-{self.value}"

    @property
    def words(self) -> str:
        """What a person reads."""
        what = {
            "donor": {"denoise": "clean states", "noise": "corrupt states"}[self.mode],
            "half": f"states half way to the {'clean' if self.mode == 'denoise' else 'corrupt'} ones",
            "mean": "the mean natural state",
            "zero": "zeros",
            "gaussian": f"noise of {SIGMAS:g} standard deviations added",
        }[self.value]
        return f"{what} at {self.site}, {self.width:g} s ({self.mode})"


@dataclass(frozen=True)
class DistanceConfig:
    """What is asked.

    Attributes:
        n: recorded sentences (spoken ones, where there are no recordings).
        per_sentence: corruptions of each that are localised, of those that there are fewest of so far.
        corruptions: of :data:`~otoscope.studies.distance_pairs.CORRUPTIONS`.
        quick: few kinds of patch.
        nulls: sentences of the nulls.
        references: sounds per source that say what is natural.
        seed: of every random choice.
    """

    n: int = 24
    per_sentence: int = 3
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    quick: bool = False
    nulls: int = 6
    references: int = 16
    seed: int = 0

    @classmethod
    def small(cls, n: int | None = None, seed: int = 0) -> DistanceConfig:
        """Few sentences, corruptions and kinds of patch."""
        few = ("noise", "snr0", "silence", "word", "minimal_pair")
        return cls(n or 6, 2, few, True, 2, 10, seed)

    @property
    def n_spoken(self) -> int:
        """Spoken sentences beside recorded ones: as many as other corruptions get of theirs."""
        return max(2, round(self.n * self.per_sentence / len(self.corruptions)))


def kinds(n_layers: int, quick: bool = False) -> list[Kind]:
    """The grid of patches: what is put in, at the input and at the last layer; and from the last layer, one thing changed at
    a time: the direction, the width, the strength, the layer, the part.

    A patch of the last layer costs a few tokens of the decoder, one of the input the whole encoder; so the input has the
    ends of the grid alone.

    Args:
        n_layers: layers of the encoder.
        quick: both ends alone.
    """
    last = n_layers - 1
    first, end = (
        Kind("input", "encoder.0.resid_pre", 0.2, "denoise"),
        Kind(f"layer{last}", end_site(n_layers), 0.2, "denoise"),
    )
    necessary = replace(end, mode="noise")
    made = [first, replace(first, mode="noise", value="zero"), end, necessary]
    made += [replace(necessary, value="mean"), replace(necessary, value="zero")]
    if quick:
        return made
    made += [replace(first, mode="noise", value="gaussian"), replace(necessary, value="gaussian")]
    made += [replace(k, width=width) for k in (end, necessary) for width in (0.1, 0.4)]
    made += [replace(k, value="half") for k in (end, necessary)]
    for i in sorted({round(last / 3), round(2 * last / 3)} - {last}):
        made.append(Kind(f"layer{i}", f"encoder.{i}.resid_post", 0.2, "denoise"))
    for short, point in (("attn", "attn_out"), ("mlp", "mlp_out")):
        made.append(Kind(f"{short}{last}", f"encoder.{last}.{point}", 0.2, "denoise"))
    return made


def sites(n_layers: int, grid: Sequence[Kind]) -> list[str]:
    """Sites whose natural states are needed: those that are patched, and the end of the encoder."""
    return list(dict.fromkeys([*(kind.site for kind in grid), end_site(n_layers)]))


def end_site(n_layers: int) -> str:
    """The end of the encoder, where the states that a patch leaves behind are measured."""
    return f"encoder.{n_layers - 1}.resid_post"


def describe(config: DistanceConfig) -> dict[str, Any]:
    """The configuration as plain data."""
    return {**asdict(config), "corruptions": list(config.corruptions)}
