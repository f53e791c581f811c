"""espeak-ng from the package ``espeakng-loader``: more than 100 languages, formant synthesis, exact event times.

Each item is spoken by a process of its own (``espeak_worker.py``). The times are those of the synthesiser's own events,
to the sample; known quirk: a voiceless stop is marked at its burst, so its closure counts as the phone before.
"""

import json
import subprocess
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np

from otoscope.audio.clip import Span
from otoscope.audio.synth.engine import Speech, bare, owners_of, words_from_phones
from otoscope.errors import AudioError

#: Words per minute of the voice as it is.
WORDS_PER_MINUTE = 175
_TIMEOUT = 120


def speak(text: str, voice: str, speed: float, pitch: float) -> Speech:
    """Speak ``text``; ``speed`` relative to 175 words per minute, ``pitch`` 0 to 99 with 50 the voice's own.

    Raises ``AudioError`` when the package is missing, the voice is unknown, or nothing was spoken.
    """
    header, raw = _ask_worker(_request(text, voice, speed, pitch))
    if "error" in header:
        raise AudioError(
            f"espeak-ng cannot speak {text!r}: {header['error']}; voices are named like en-us, en-gb-x-rp, de."
        )
    samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    rate = header["rate"]
    phones, owners = _timed(text, header["events"], len(samples), rate)
    if not len(samples) or not phones:
        raise AudioError(f"espeak-ng finds nothing to say in {text!r}; give words.")
    tokens = text.split()
    owners = _split_merged(tokens, owners, phones, voice)
    return Speech(samples, rate, words_from_phones([bare(token) for token in tokens], owners, phones), tuple(phones))


def _request(text: str, voice: str, speed: float, pitch: float) -> dict:
    try:
        loader = import_module("espeakng_loader")
    except ImportError as error:
        raise AudioError(
            'Speech synthesis with espeak needs the package espeakng-loader; run: pip install "otoscope[speech]"'
        ) from error
    return {
        "library": loader.get_library_path(),
        "data": loader.get_data_path(),
        "text": text,
        "voice": voice,
        "speed": round(WORDS_PER_MINUTE * speed),
        "pitch": round(pitch),
    }


def _ask_worker(request: dict) -> tuple[dict, bytes]:
    worker = Path(__file__).with_name("espeak_worker.py")
    # -I: the worker sees neither the user's site-packages nor this folder, whose names would shadow the library's
    command = [sys.executable, "-I", str(worker)]
    try:
        done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise AudioError(f"espeak-ng did not finish within {_TIMEOUT} s; give a shorter text.") from error
    head, newline, raw = done.stdout.partition(b"\n")
    if done.returncode or not newline:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise AudioError(f"The espeak-ng process failed ({last}); reinstall the package espeakng-loader.")
    return json.loads(head), raw


def _timed(text: str, events: list[list], length: int, rate: int) -> tuple[list[Span], list[int]]:
    """Phones, and for each the index of the token of the text (split at spaces) that its word event lies in."""
    starts, position = [], 0
    for token in text.split():
        position = text.index(token, position)
        starts.append(position)
        position += len(token)
    phones: list[Span] = []
    owners: list[int] = []
    current = 0
    timed = [event for event in events if event[0] in ("word", "phone")]
    next_phone = length
    ends = [0] * len(timed)
    for index in range(len(timed) - 1, -1, -1):
        ends[index] = next_phone
        if timed[index][0] == "phone":
            next_phone = timed[index][1]
    for (kind, sample, where, _, name), end in zip(timed, ends):
        if kind == "word":
            # text positions count from 1
            current = max(0, int(np.searchsorted(starts, where - 1, side="right")) - 1)
        # an empty name is a pause, one in brackets a change of language
        elif name and not name.startswith("(") and sample < min(end, length):
            phones.append(Span(sample / rate, min(end, length) / rate, name))
            owners.append(current)
    return phones, owners


def _split_merged(tokens: list[str], owners: list[int], phones: list[Span], voice: str) -> list[int]:
    """Owners once the words are apart that espeak speaks as one ("on the" is a single event at "on").

    The phones of such a group are shared out by the phones that its tokens have when spoken alone.
    """
    owners = list(owners)
    spoken = set(owners)
    for head in sorted(spoken):
        group = [head]
        while group[-1] + 1 < len(tokens) and group[-1] + 1 not in spoken:
            group.append(group[-1] + 1)
        group = [index for index in group if bare(tokens[index])]
        if len(group) < 2:
            continue
        where = [i for i, owner in enumerate(owners) if owner == head]
        alone = [_alone(tokens[index], voice) for index in group]
        for i, own in zip(where, owners_of([phones[i].text for i in where], alone)):
            owners[i] = group[own]
    return owners


@lru_cache(maxsize=4096)
def _alone(token: str, voice: str) -> tuple[str, ...]:
    """The phones of one token spoken alone."""
    header, _ = _ask_worker(_request(token, voice, 1.0, 50.0))
    return tuple(event[4] for event in header["events"] if event[0] == "phone" and event[4][:1] not in ("", "("))
