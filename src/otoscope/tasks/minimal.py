"""Minimal pairs as pairs for patching: two spoken texts that share a frame."""

from otoscope.audio.synth import minimal_pair
from otoscope.tasks.pair import Pair


def spoken_pair(
    clean_text: str,
    corrupt_text: str,
    *,
    engine: str = "espeak",
    voice: str | None = None,
    rate: int = 16000,
    speed: float = 1.0,
    pitch: float = 50.0,
    join: bool = False,
) -> Pair:
    """A pair of two spoken texts, such as "please say bad again" and "please say pad again".

    Arguments and errors (``AudioError``) as for ``otoscope.audio.synth.minimal_pair``; ``span`` is in seconds.
    """
    clean, corrupt, span = minimal_pair(
        clean_text, corrupt_text, engine=engine, voice=voice, rate=rate, speed=speed, pitch=pitch, join=join
    )
    change = f"{clean_text!r} -> {corrupt_text!r}"
    return Pair(clean, corrupt, span, change, clean_text, corrupt_text, name=change)
