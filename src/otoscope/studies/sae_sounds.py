"""The sounds that a dictionary's features are watched on: recordings that a model hears, or a store of activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from otoscope.audio.align import align
from otoscope.audio.clip import Clip, Span
from otoscope.audio.files import read
from otoscope.engine.model import Model
from otoscope.errors import AudioError, ModelError, SiteError
from otoscope.sae.activations import Listener
from otoscope.sae.activity import SILENCE
from otoscope.sae.codes import Codes
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.recordings import Recording
from otoscope.sae.store import Store

#: a label with more values than this is a name, not a class; so is one whose values have fewer recordings on average
_MOST_VALUES, _FEWEST_EACH = 64, 3
#: most memory for codes that are kept from the first pass for the second one, bytes
_KEPT = 500_000_000
#: times of words and phones: recording -> (words, phones)
Times = Mapping[int, tuple[Sequence[Span], Sequence[Span]]]


class Heard(NamedTuple):
    """Frames of one recording: activations, what the dictionary makes of them, seconds, and kind -> label of each frame."""

    x: Float[np.ndarray, "frame d"]
    codes: Codes
    time: Float[np.ndarray, " frame"]
    labels: dict[str, list[str | None]]


class Sounds(ABC):
    """Recordings as a dictionary reads them, by their numbers.

    Attributes:
        dictionary: what reads.
        model: what hears and writes; None where the activations are stored and nothing is to be written.
        site: where.
    """

    def __init__(self, dictionary: Dictionary, model: Model | None, site: str):
        self.dictionary, self.model, self.site = dictionary, model, site
        self._kept: OrderedDict[int, tuple[Codes, np.ndarray]] = OrderedDict()
        self._bytes = 0

    @abstractmethod
    def __len__(self) -> int:
        """How many recordings there are."""

    @abstractmethod
    def clip(self, i: int) -> Clip:
        """The sound of a recording, with times of words and phones where they are known."""

    @abstractmethod
    def seconds(self, i: int) -> float:
        """How long a recording is; nothing is decoded."""

    @abstractmethod
    def hear(self, members: Sequence[int]) -> list[Heard | None]:
        """Frames of some recordings; None for one that is too short to have any."""

    def strengths(
        self, i: int, features: Sequence[int]
    ) -> tuple[Float[np.ndarray, " frame"], Float[np.ndarray, "frame feature"]]:
        """Seconds of a recording's frames, and the strengths of some features in them."""
        if i not in self._kept:
            heard = self.hear([i])[0]
            assert heard is not None, "a recording without frames has no moments"
            codes, time = heard.codes, heard.time
        else:
            codes, time = self._kept[i]
        place = np.full(self.dictionary.config.n_features, -1)
        place[list(features)] = np.arange(len(features))
        column = place[codes.features.cpu().numpy()]
        own = column >= 0
        out = np.zeros((codes.n_frames, len(features)), np.float32)
        out[codes.frames.cpu().numpy()[own], column[own]] = codes.values.cpu().numpy()[own]
        return time, out

    def _encoded(self, i: int, x: torch.Tensor, time: np.ndarray) -> Codes:
        codes = self.dictionary.encode_sparse(x)
        size = sum(t.numel() * t.element_size() for t in codes)
        if i not in self._kept and self._bytes + size <= _KEPT:
            self._kept[i] = codes, time
            self._bytes += size
        return codes


class HeardSounds(Sounds):
    """Recordings that the model hears.

    Args:
        dictionary: reads frames of ``site``.
        model: hears.
        site: a site whose positions are time.
        items: clips, or recordings that are decoded when they are needed.
        notify: told of recordings that are too short to be heard.

    Raises:
        SiteError: the model has no such site, or its positions are tokens.
        ModelError: its width is not the dictionary's.
    """

    model: Model

    def __init__(
        self,
        dictionary: Dictionary,
        model: Model,
        site: str,
        items: Sequence[Clip | Recording],
        notify: Callable[[str], None] = lambda _: None,
    ):
        super().__init__(dictionary, model, site)
        self.items, self._notify = list(items), notify
        self.times: Times = {}
        self._listener = Listener(model, [site])
        if len(self._listener.sites) != 1:
            raise SiteError(
                f"'{site}' names {len(self._listener.sites)} sites: name the one that the dictionary reads."
            )
        self._site = self._listener.sites[0]
        self._axis = self._listener.axes[self._site]
        if not self._axis.frame_rate:
            raise SiteError(no_moments(site))
        check_width(dictionary, self._listener.width(self._site), f"{self._site} of {model.name}")
        self._kinds = classes([_known(item) for item in self.items])
        self._decoded = lru_cache(maxsize=16)(lambda i: _clip(self.items[i]).resample(model.adapter.rate))

    def __len__(self) -> int:
        return len(self.items)

    def clip(self, i: int) -> Clip:
        clip: Clip = self._decoded(i)
        if i not in self.times:
            return clip
        words, phones = self.times[i]
        return clip.replace(words=tuple(words), phones=tuple(phones))

    def seconds(self, i: int) -> float:
        item = self.items[i]
        return item.duration if isinstance(item, Clip) else item.seconds

    def lacking_times(self) -> list[int]:
        """Recordings with a text and without times of phones."""
        return [
            i
            for i, item in enumerate(self.items)
            if item.text and not item.phones and not getattr(item, "textgrid", None)
        ]

    def hear(self, members: Sequence[int]) -> list[Heard | None]:
        clips = [self.clip(i) for i in members]
        found = self._listener.hear(clips, lambda k, why: self._notify(f"note: {clips[k].name or members[k]} {why}"))
        return [None if own is None else self._labelled(i, c, own) for i, c, own in zip(members, clips, found)]

    def _labelled(self, i: int, clip: Clip, heard) -> Heard:
        x, time = heard.x[self._site], heard.time[self._axis.name]
        labels = {
            kind: at_times(spans, time) for kind, spans in (("phone", clip.phones), ("word", clip.words)) if spans
        }
        known = _known(self.items[i])
        labels |= {kind: [known[kind]] * len(time) for kind in self._kinds if known.get(kind)}
        return Heard(x.numpy(), self._encoded(i, x, time), time, labels)


class StoredSounds(Sounds):
    """Recordings whose activations were harvested; their sounds are read from the files that the store names.

    Args:
        dictionary: reads frames of the store's site.
        model: None, or the store's model, to write transcripts.
        store: a view of one site whose positions are time.

    Raises:
        SiteError: its positions are tokens.
        ModelError: its width is not the dictionary's.
    """

    def __init__(self, dictionary: Dictionary, model: Model | None, store: Store):
        super().__init__(dictionary, model, store.site)
        if not store.frame_rate:
            raise SiteError(no_moments(store.site))
        check_width(dictionary, store.d, f"{store.site} in {store.path}")
        self.store, self._utterances = store, store.utterances
        self._kinds = classes([_known_of(u.labels, u.speaker) for u in self._utterances])
        self._read = lru_cache(maxsize=16)(self._decoded)

    def __len__(self) -> int:
        return len(self._utterances)

    def seconds(self, i: int) -> float:
        return self._utterances[i].seconds

    def clip(self, i: int) -> Clip:
        return self._read(i)

    def hear(self, members: Sequence[int]) -> list[Heard | None]:
        return [self._heard(i) for i in members]

    @cached_property
    def _timed(self) -> dict[str, tuple[np.ndarray, list[str]]]:
        """Phones and words: the code of each frame, and what the codes mean."""
        found = {}
        for kind in ("phone", "word"):
            if any(getattr(u, f"has_{kind}s") for u in self._utterances):
                labels = self.store.labels(kind)
                found[kind] = np.asarray(labels.codes), labels.names
        return found

    def _frame_labels(self, i: int, kind: str) -> list[str | None]:
        u = self._utterances[i]
        codes, names = self._timed[kind]
        return [SILENCE if code < 0 else names[code] for code in codes[u.first : u.first + u.n_frames]]

    def _heard(self, i: int) -> Heard | None:
        u = self._utterances[i]
        if not u.n_frames:
            return None
        batch = self.store.frames(u.number)
        # the store counts from the start of the file, a clip from its own
        time = batch.time.numpy() - u.start
        labels = {kind: self._frame_labels(i, kind) for kind in self._timed if getattr(u, f"has_{kind}s")}
        known = _known_of(u.labels, u.speaker)
        labels |= {kind: [known[kind]] * len(time) for kind in self._kinds if known.get(kind)}
        return Heard(batch.x.numpy(), self._encoded(i, batch.x, time), time, labels)

    def _decoded(self, i: int) -> Clip:
        u = self._utterances[i]
        clip = read(Path(u.path))
        if u.start or u.seconds < clip.duration - 0.01:
            clip = clip.slice(u.start, min(clip.duration, u.start + u.seconds))
        clip = clip.resample(self.store.rate)
        spans: dict[str, list[Span]] = {"phone": [], "word": []}
        if u.n_frames:
            time = self.store.frames(u.number).time.numpy() - u.start
            for kind in self._timed:
                if getattr(u, f"has_{kind}s"):
                    spans[kind] = _runs(
                        self._frame_labels(i, kind), time, 0.5 / (self.store.frame_rate or 1), clip.duration
                    )
        return clip.replace(
            name=u.name, text=u.text, speaker=u.speaker, labels=u.labels, words=spans["word"], phones=spans["phone"]
        )


def check_width(dictionary: Dictionary, width: int, what: str) -> None:
    """Refuse a site that is not as wide as what the dictionary reads.

    Raises:
        ModelError: it is not.
    """
    if width != dictionary.config.d:
        raise ModelError(
            f"{what} has {width} channels and the dictionary reads {dictionary.config.d}: name the model and site that it was "
            "trained on with --model and --site."
        )


def no_moments(site: str) -> str:
    """Why a site of tokens cannot be viewed."""
    return (
        f"the positions of '{site}' are tokens, which have no moment of the sound to play: view a dictionary of a stack whose "
        "positions are time, such as the encoder."
    )


def classes(labels: Sequence[Mapping[str, str]]) -> list[str]:
    """Kinds of labels that sort recordings into classes: not all alike, and not a name or a number of each."""
    found = []
    for kind in dict.fromkeys(kind for own in labels for kind in own):
        values = Counter(own[kind] for own in labels if own.get(kind))
        # times of phones and words say more than a label of the whole recording
        of_frames = kind in ("phone", "word")
        if not of_frames and 2 <= len(values) <= _MOST_VALUES and sum(values.values()) >= _FEWEST_EACH * len(values):
            found.append(kind)
    return found


def at_times(spans: Sequence[Span], time: Float[np.ndarray, " frame"]) -> list[str | None]:
    """Text of the span that holds each time; ``SILENCE`` where none does."""
    labels: list[str | None] = [SILENCE] * len(time)
    for span in spans:
        for k in range(*np.searchsorted(time, (span.start, span.end))):
            labels[k] = span.text
    return labels


def timed(clip: Clip) -> tuple[Clip, str]:
    """A clip with times of words and phones by forced alignment of its text; and why not, where that fails."""
    try:
        return align(clip), ""
    except AudioError as error:
        return clip, str(error)


def _runs(labels: Sequence[str | None], time: np.ndarray, half: float, end: float) -> list[Span]:
    """Frames that follow one another with the same label, as spans."""
    spans, first = [], 0
    for k in range(1, len(labels) + 1):
        if k == len(labels) or labels[k] != labels[first]:
            text = labels[first]
            if text is not None and text != SILENCE:
                start = max(0.0, float(time[first]) - half)
                spans.append(Span(start, max(start, min(end, float(time[k - 1]) + half)), text))
            first = k
    return spans


def _clip(item: Clip | Recording) -> Clip:
    return item if isinstance(item, Clip) else item.clip()


def _known(item: Clip | Recording) -> dict[str, str]:
    return _known_of(item.labels, item.speaker)


def _known_of(labels: Mapping[str, str], speaker: str | None) -> dict[str, str]:
    return dict(labels) | ({"speaker": speaker} if speaker else {})
