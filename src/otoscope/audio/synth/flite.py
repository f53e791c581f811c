"""CMU flite, when it is installed (Debian, Ubuntu: ``apt-get install flite``): English, with exact phone times.

The voice kal16 joins recorded diphones without any chance, so two texts that begin alike give samples that are equal
up to the middle of the phone before the first that differs.
"""

import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import soundfile

from otoscope.audio.clip import Span
from otoscope.audio.synth.engine import Speech, bare, owners_of, words_from_phones
from otoscope.errors import AudioError

_TIMEOUT = 120
_PAUSE = "pau"
_VOWELS = frozenset(
    ["aa", "ae", "ah", "ao", "aw", "ax", "axr", "ay", "eh", "er", "ey", "ih", "ix", "iy", "ow", "oy", "uh", "uw"]
)
#: Mean pitch in Hz of the voices whose pitch can be set by rule.
_MEAN_PITCH = {"kal": 95.0, "kal16": 95.0}


def available() -> bool:
    """Is the program ``flite`` installed?"""
    return shutil.which("flite") is not None


def speak(text: str, voice: str, speed: float, pitch: float) -> Speech:
    """Speak ``text``; ``speed`` relative to the voice's own, ``pitch`` 0 to 99 with 50 its own (kal, kal16 only).

    Raises ``AudioError`` when flite is missing, the voice is unknown or cannot change its pitch, or nothing was spoken.
    """
    if voice not in (known := voices()):
        raise AudioError(f"flite has no voice {voice!r}; it has {', '.join(known)}.")
    settings = ["--setf", f"duration_stretch={1 / speed:.6f}"] if speed != 1 else []
    if pitch != 50:
        if voice not in _MEAN_PITCH:
            raise AudioError(f"The pitch of the flite voice {voice!r} cannot be set; use kal16, or pitch=50.")
        settings += ["--setf", f"int_f0_target_mean={_MEAN_PITCH[voice] * 2 ** ((pitch - 50) / 50):.3f}"]
    with tempfile.TemporaryDirectory(prefix="otoscope-flite-") as folder:
        sound, script = Path(folder) / "out.wav", Path(folder) / "in.txt"
        script.write_text(text, encoding="utf-8")
        printed = _run("-voice", voice, *settings, "-psdur", "-f", str(script), "-o", str(sound))
        samples, rate = soundfile.read(sound, dtype="float32")
    phones = _phones(printed, len(samples) / rate, text)
    if not len(samples) or not phones:
        raise AudioError(f"flite finds nothing to say in {text!r}; give English words.")
    tokens = text.split()
    owners = owners_of([phone.text for phone in phones], [_alone(token, voice) for token in tokens])
    return Speech(samples, rate, words_from_phones([bare(token) for token in tokens], owners, phones), tuple(phones))


@lru_cache(maxsize=1)
def voices() -> tuple[str, ...]:
    """The voices of the installed flite; ``AudioError`` when there is none."""
    listed = _run("-lv").partition(":")[2].split()
    # it reads the clock only
    return tuple(voice for voice in dict.fromkeys(listed) if voice != "awb_time")


def _run(*arguments: str) -> str:
    if not available():
        raise AudioError("The program flite is not installed; run: apt-get install flite (or use engine='espeak').")
    try:
        done = subprocess.run(["flite", *arguments], capture_output=True, timeout=_TIMEOUT, text=True, errors="replace")
    except subprocess.TimeoutExpired as error:
        raise AudioError(f"flite did not finish within {_TIMEOUT} s; give a shorter text.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise AudioError(f"flite failed ({last}); check its installation.")
    return done.stdout


def _phones(printed: str, duration: float, text: str) -> list[Span]:
    """The phones of ``name:end`` items, pauses left out. A last pause is spoken only to its middle by kal."""
    phones: list[Span] = []
    start = 0.0
    for item in printed.split():
        name, _, end = item.rpartition(":")
        stop = float(end)
        if stop < start:
            raise AudioError(f"flite speaks {text[:40]!r} in parts, each with times of its own; give the parts singly.")
        if name != _PAUSE and start < duration:
            phones.append(Span(start, min(stop, duration), name))
        start = stop
    return phones


@lru_cache(maxsize=4096)
def _alone(token: str, voice: str) -> tuple[str, ...]:
    """The phones of one token spoken alone."""
    if not any(letter.isalnum() for letter in token):
        return ()
    return tuple(
        phone for phone in _run("-voice", voice, "-ps", "-t", f"{token} ", "-o", "none").split() if phone != _PAUSE
    )
