"""How a word that no dictionary has is said: espeak-ng's rules, in the ARPAbet of CMUdict without stress."""

from collections.abc import Sequence
from functools import lru_cache

from otoscope.audio.synth import espeak
from otoscope.errors import AudioError

#: espeak's en-us phones -> CMUdict; longest match first, stress and length marks removed.
_ARPABET = {
    "tʃ": "CH", "dʒ": "JH", "eɪ": "EY", "oʊ": "OW", "aɪ": "AY", "aʊ": "AW", "ɔɪ": "OY", "i": "IY", "ɪ": "IH",
    "ᵻ": "IH", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AA", "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "o": "AO", "ʊ": "UH",
    "u": "UW", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɚ": "ER", "ɜ": "ER", "ɝ": "ER", "p": "P", "b": "B", "t": "T",
    "d": "D", "k": "K", "ɡ": "G", "g": "G", "f": "F", "v": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH",
    "ʒ": "ZH", "h": "HH", "m": "M", "n": "N", "ŋ": "NG", "l": "L", "ɫ": "L", "ɬ": "L", "ɹ": "R", "r": "R", "w": "W",
    "j": "Y", "ɾ": "T", "ʔ": "T", "x": "K", "ç": "HH", "y": "UW", "ø": "ER", "œ": "ER", "ɲ": "N",
}  # fmt: skip


@lru_cache(maxsize=4096)
def pronounce(word: str) -> str:
    """The phones of a word by rule, separated by spaces ("K AE T").

    Raises ``AudioError`` when espeak-ng is missing or has no phones for the word.
    """
    speech = espeak.speak(word, "en-us", 1.0, 50.0)
    phones: list[str] = []
    for phone in speech.phones:
        phones += to_arpabet(phone.text)
    if not phones:
        raise AudioError(f"No pronunciation is known for {word!r}; give one in `pronunciations`, such as 'K AE T'.")
    return " ".join(phones)


def sound_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two phrases are said alike by rule ("see", "sea"); False where either cannot be said, or is empty."""
    plain = ["".join(c for c in " ".join(words).lower() if c.isalnum() or c in " '").strip() for words in (one, other)]
    if not all(plain):
        return False
    try:
        return pronounce(plain[0]) == pronounce(plain[1])
    except AudioError:
        return False


def to_arpabet(ipa: str) -> list[str]:
    """ARPAbet phones of one espeak phone, which may be several ("ɔːɹ" is AO R); unknown signs are left out."""
    plain = "".join(letter for letter in ipa if letter not in "ˈˌː")
    phones: list[str] = []
    position = 0
    while position < len(plain):
        for length in (2, 1):
            if (phone := _ARPABET.get(plain[position : position + length])) is not None:
                phones.append(phone)
                position += length
                break
        else:
            position += 1
    return phones
