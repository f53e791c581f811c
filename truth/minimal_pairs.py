"""How well a recogniser hears the task ``minimal-pairs``: each pair of words once, told apart, and both words written.

Prints one JSON object with ``metrics`` and ``intervals``, as every command does.
"""

from __future__ import annotations

import json

import otoscope
from otoscope.errors import TaskError
from otoscope.methods.contrast import contrast
from otoscope.models.wer import normaliser
from otoscope.stats import clopper_pearson
from otoscope.tasks.phonology import FEATURES, word_pairs
from otoscope.tasks.registry import make

MODEL = "whisper-tiny.en"


def main() -> None:
    model, plain = otoscope.load(MODEL), normaliser()
    told, written = [], []
    for feature in FEATURES:
        for item in make("minimal-pairs", n=len(word_pairs(feature)), feature=feature):
            try:
                found = contrast(model, item.pair.clean, item.pair.corrupt)
            except TaskError:  # the same transcript for both
                told, written = [*told, False], [*written, False]
                continue
            heard = [plain(text).split() for text in (found.clean_text, found.corrupt_text)]
            told.append(True)
            written.append(item.answer in heard[0] and item.foil in heard[1])
    shares = {name: clopper_pearson(sum(of), len(of)) for name, of in (("told_apart", told), ("both_written", written))}
    metrics = {"pairs": len(told), **{name: share.value for name, share in shares.items()}}
    intervals = {name: [share.low, share.high] for name, share in shares.items()}
    print(json.dumps({"metrics": metrics, "intervals": intervals}))


if __name__ == "__main__":
    main()
