"""What mini-qwen2-audio was taught to answer, by whom it was taught, and which recordings it has never heard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: further words of Speech Commands, learnt from synthetic voices only
EXTRA_WORDS = (
    "bed", "bird", "cat", "dog", "happy", "house", "tree", "wow", "backward", "forward", "follow", "learn", "visual",
)  # fmt: skip
#: ESC-10's class -> the answer
SOUNDS = {
    "dog_bark": "dog", "rain": "rain", "sea_waves": "waves", "baby_cry": "baby", "clock_tick": "clock",
    "person_sneeze": "sneeze", "helicopter": "helicopter", "chainsaw": "chainsaw", "rooster": "rooster",
    "fire_crackling": "fire",
}  # fmt: skip
SEXES = ("male", "female")
#: the answer where there is no word
NOTHING = "nothing"

#: LibriSpeech reader -> sex, as the corpus publishes it, kept where the pitch of the recordings agrees with it
SEX_OF = {
    reader: sex
    for sex, readers in (
        ("male", "174 251 777 2033 2414 2428 2609 2803 3005 3752 5694 6241 8297"),
        ("female", "367 533 1462 1988 1993 1998 2412 3080 3331 3536 3576 5895 6319 7850 8842"),
    )
    for reader in readers.split()
}

#: phrasings of each question; the first one is used where nothing else is asked for
QUESTIONS = {
    "word": (
        "What word was said?",
        "Which word do you hear?",
        "What is the spoken word?",
        "Which word is spoken in the recording?",
        "Say the word that you heard.",
    ),
    "sound": (
        "What sound is this?",
        "What makes this sound?",
        "Which sound do you hear?",
        "What can be heard in the recording?",
    ),
    "sex": (
        "Is the speaker male or female?",
        "Is this voice male or female?",
        "Is the person who speaks female or male?",
    ),
}
#: answers among which each question is scored
OPTIONS = {"word": (*COMMANDS, *DIGITS), "sound": tuple(SOUNDS.values()), "sex": SEXES}


def label_of(corpus: str, row: Mapping[str, str]) -> str | None:
    """The answer about a recording, from its row in the corpus's manifest; None where it was taught nothing of that kind."""
    if corpus == "speech_commands":
        return row["label"] if row["label"] in COMMANDS else None
    if corpus == "fsdd":
        return DIGITS[int(row["digit"])]
    if corpus == "esc10":
        return SOUNDS.get(row["label"])
    return row.get("sex") or SEX_OF.get(row["speaker"])


def is_heldout(corpus: str, speaker: str) -> bool:
    """Whether recordings of this speaker (this fold, for ESC-10) are kept out of training.

    The rule is a hash of the name, fixed before training, so it also decides about speakers that were not at hand.
    """
    if corpus == "esc10":
        return speaker == "5"
    if corpus == "fsdd":
        return speaker in ("theo", "george")
    share = 35 if corpus.startswith("librispeech") else 25
    return int(hashlib.sha256(f"{corpus.split('_')[0]}/{speaker}".encode()).hexdigest(), 16) % 100 < share
