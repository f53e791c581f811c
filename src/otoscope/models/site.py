"""Sites: the names of places inside a model, ``<stack>.<layer>.<point>[.<index>]``.

``encoder.2.resid_post``, ``decoder.0.z.5`` (head 5), ``decoder.3.mlp_post.117`` (neuron 117). In a pattern, ``*`` stands
for any stack, layer or point and ``0-3`` for a range of layers or indices; commas join several patterns.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from otoscope.errors import SiteError

#: points in the order in which a layer computes them; hooks are attached in this order
POINTS = (
    "conv_out",
    "resid_pre",
    "pattern",
    "z",
    "attn_out",
    "cross_pattern",
    "cross_z",
    "cross_attn_out",
    "resid_mid",
    "mlp_post",
    "mlp_out",
    "resid_post",
)
HEAD_POINTS = frozenset({"z", "cross_z", "pattern", "cross_pattern"})
PATTERN_POINTS = frozenset({"pattern", "cross_pattern"})


@dataclass(frozen=True)
class StackSpec:
    """What a stack of layers is made of.

    Attributes:
        name: ``frontend``, ``encoder``, ``connector``, ``decoder`` or ``quantizer``.
        n_layers: number of layers.
        d_model: width of the residual stream (channels of the widest convolution in a frontend).
        n_heads: query heads of one attention (0 where there is none).
        d_head: width of one head.
        d_mlp: hidden neurons of one MLP.
        causal: whether a position sees only itself and earlier ones.
        points: the points this stack has, in the order of computing.
        frame_rate: frames per second after the last layer where positions are time, else None (positions are tokens).
        n_kv_heads: key/value heads (fewer than ``n_heads`` under grouped-query attention).
        d_in: width of ``resid_pre`` where it is not ``d_model`` (the connector of an audio-LLM), else 0.
    """

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    causal: bool
    points: tuple[str, ...]
    frame_rate: float | None = None
    n_kv_heads: int = field(default=0)
    d_in: int = field(default=0)

    def shape(self, point: str, indexed: bool = False) -> str:
        """Shape of the value at ``point`` (of one head or neuron where ``indexed``), in words and numbers, for listings."""
        pos = "frame" if self.frame_rate else "pos"
        if point in PATTERN_POINTS:
            key = "frame" if point == "cross_pattern" or self.frame_rate else "pos"
            parts = ["batch", str(self.n_heads), pos, key]
            return f"[{', '.join(parts[:1] + parts[2:] if indexed else parts)}]"
        if point in HEAD_POINTS:
            parts = ["batch", pos, str(self.n_heads), str(self.d_head)]
            return f"[{', '.join(parts[:2] + parts[3:] if indexed else parts)}]"
        if point == "mlp_post":
            return f"[batch, {pos}]" if indexed else f"[batch, {pos}, {self.d_mlp}]"
        return f"[batch, {pos}, {self.channels(point)}]"

    def channels(self, point: str) -> int:
        """Size of the last dimension at ``point`` (keys of a pattern have no fixed number: 0)."""
        if point in HEAD_POINTS:
            return 0 if point in PATTERN_POINTS else self.d_head
        return self.d_mlp if point == "mlp_post" else self.d_in if point == "resid_pre" and self.d_in else self.d_model

    def width(self, point: str) -> int:
        """How many indices (heads or neurons) ``point`` has; 0 where it has none."""
        if point in HEAD_POINTS:
            return self.n_heads
        return self.d_mlp if point == "mlp_post" else 0


@dataclass(frozen=True)
class Site:
    """One place in a model. ``index`` is a head (``z``, ``pattern`` and their cross kin) or a neuron (``mlp_post``)."""

    stack: str
    layer: int
    point: str
    index: int | None = None

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read one site from its name.

        Raises:
            SiteError: the text is not of the form ``<stack>.<layer>.<point>[.<index>]``.
        """
        if isinstance(text, Site):
            return text
        parts = text.split(".")
        if len(parts) not in (3, 4) or not parts[1].isdigit() or (len(parts) == 4 and not parts[3].isdigit()):
            raise SiteError(
                f"'{text}' is not a site: expected <stack>.<layer>.<point>[.<index>], such as encoder.2.resid_post "
                "or decoder.0.z.5; list them with `otoscope sites MODEL`."
            )
        return cls(parts[0], int(parts[1]), parts[2], int(parts[3]) if len(parts) == 4 else None)

    def __str__(self) -> str:
        tail = "" if self.index is None else f".{self.index}"
        return f"{self.stack}.{self.layer}.{self.point}{tail}"

    @property
    def whole(self) -> Site:
        """The same site without its index: the tensor that holds all its heads or neurons."""
        return Site(self.stack, self.layer, self.point)


def check(site: Site, stacks: Mapping[str, StackSpec], model: str = "this model") -> Site:
    """Return ``site`` if the model has it.

    Raises:
        SiteError: unknown stack, layer, point, head or neuron; the sentence says which ones exist.
    """
    spec = stacks.get(site.stack)
    if spec is None:
        raise SiteError(f"{model} has no stack '{site.stack}': it has {_listed(stacks)}.{_near(site.stack, stacks)}")
    if site.point not in spec.points:
        raise SiteError(
            f"the {site.stack} of {model} has no point '{site.point}': it has {_listed(spec.points)}."
            f"{_near(site.point, spec.points)}"
        )
    if site.layer >= spec.n_layers:
        raise SiteError(
            f"the {site.stack} of {model} has no layer {site.layer}: its layers are 0 to {spec.n_layers - 1}."
        )
    if site.index is not None:
        width = spec.width(site.point)
        kind = "head" if site.point in HEAD_POINTS else "neuron"
        if width == 0:
            raise SiteError(
                f"'{site}' has an index, but {site.point} has neither heads nor neurons: drop '.{site.index}'."
            )
        if site.index >= width:
            raise SiteError(f"{site.whole} of {model} has no {kind} {site.index}: its {kind}s are 0 to {width - 1}.")
    return site


def expand(pattern: str | Site, stacks: Mapping[str, StackSpec], model: str = "this model") -> list[Site]:
    """All sites that a pattern names, in the order of computing; indices are expanded only where the pattern has one.

    Args:
        pattern: a site, or a pattern with ``*`` and ranges, or several joined by commas.
        stacks: the model's stacks.
        model: its name, for the error sentence.

    Raises:
        SiteError: the pattern names nothing that the model has.
    """
    if isinstance(pattern, Site):
        return [check(pattern, stacks, model)]
    if "," in pattern:
        sites = [site for part in pattern.split(",") for site in expand(part.strip(), stacks, model)]
        return list(dict.fromkeys(sites))
    parts = pattern.split(".")
    if not re.search(r"[*?]|\d-\d", pattern) and len(parts) > 1:
        return [check(Site.parse(pattern), stacks, model)]
    stack_glob, layer_glob, point_glob, index_glob = (parts + ["*", "*", "*"])[:3] + [
        parts[3] if len(parts) > 3 else ""
    ]
    found: list[Site] = []
    for spec in stacks.values():
        if not fnmatchcase(spec.name, stack_glob):
            continue
        for layer in range(spec.n_layers):
            if not _in_range(layer, layer_glob):
                continue
            for point in spec.points:
                if not fnmatchcase(point, point_glob):
                    continue
                if not index_glob:
                    found.append(Site(spec.name, layer, point))
                else:
                    found += [
                        Site(spec.name, layer, point, i) for i in range(spec.width(point)) if _in_range(i, index_glob)
                    ]
    if not found:
        raise SiteError(
            f"the pattern '{pattern}' names no site of {model}: stacks are {_listed(stacks)}, layers "
            + ", ".join(f"{s.name} 0-{s.n_layers - 1}" for s in stacks.values())
            + f"; list the points with `otoscope sites {model}`."
        )
    return found


def _in_range(number: int, glob: str) -> bool:
    if glob == "*":
        return True
    low, dash, high = glob.partition("-")
    if low.isdigit() and (not dash or high.isdigit()):
        return int(low) <= number <= int(high or low)
    raise SiteError(f"'{glob}' is not a layer or index: expected a number, a range such as 0-3, or *.")


def _listed(names: object) -> str:
    return ", ".join(str(n) for n in names)  # type: ignore[attr-defined]


def _near(name: str, names: object) -> str:
    match = difflib.get_close_matches(name, [str(n) for n in names], n=1)  # type: ignore[attr-defined]
    return f" Did you mean '{match[0]}'?" if match else ""
