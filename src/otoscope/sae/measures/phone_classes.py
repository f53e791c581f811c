"""Classes of English phones (ARPAbet), and which phones have nothing acoustic in common.

Manner and voicing as in Ladefoged and Johnson, *A Course in Phonetics*. Two phones are unrelated where one is periodic with
formants (vowel, glide, liquid, nasal) and the other is noise or silence without voice (voiceless stop, fricative,
affricate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

_MANNER = {
    "vowel": "AA AE AH AO AW AX AXR AY EH ER EY IH IX IY OW OY UH UW UX",
    "glide": "W Y", "liquid": "L R", "nasal": "M N NG EM EN",
    "stop": "P B T D K G DX", "affricate": "CH JH", "fricative": "F V TH DH S Z SH ZH HH HV",
}  # fmt: skip
MANNER = {phone: manner for manner, phones in _MANNER.items() for phone in phones.split()}
VOICELESS = frozenset(["P", "T", "K", "CH", "F", "TH", "S", "SH", "HH"])
_SONORANT = ("vowel", "glide", "liquid", "nasal")


@dataclass(frozen=True, eq=False)
class PhoneClasses:
    """What is known of a set of phones.

    Attributes:
        concepts: class -> whether each phone is of it.
        unrelated: whether two phones have nothing in common.
        partitions: ways to cut the phones, each with the class of every phone, -1 where unknown, and the classes' names.
    """

    concepts: Mapping[str, Bool[np.ndarray, " phone"]]
    unrelated: Bool[np.ndarray, "phone phone"]
    partitions: Mapping[str, tuple[Int[np.ndarray, " phone"], tuple[str, ...]]]


def bare(phone: str) -> str:
    """An ARPAbet phone in capitals and without stress."""
    return phone.upper().rstrip("012")


def english(phones: Sequence[str]) -> PhoneClasses:
    """Classes of ARPAbet phones; phones of other alphabets belong to none."""
    manner = [MANNER.get(bare(p)) for p in phones]
    names = tuple(sorted({m for m in manner if m}))
    by_manner = np.array([names.index(m) if m else -1 for m in manner], np.int64)
    voiced = np.array([-1 if m is None else int(bare(p) not in VOICELESS) for p, m in zip(phones, manner)], np.int64)
    sonorant = np.array([m in _SONORANT for m in manner], bool)
    quiet = np.array([m is not None and bare(p) in VOICELESS for p, m in zip(phones, manner)], bool)
    concepts = {name: by_manner == i for i, name in enumerate(names)}
    if (voiced == 1).any():
        concepts["voiced"] = voiced == 1
    return PhoneClasses(
        concepts,
        (sonorant[:, None] & quiet[None]) | (quiet[:, None] & sonorant[None]),
        {"manner": (by_manner, names), "voicing": (voiced, ("voiceless", "voiced"))},
    )
