"""The null of the listening study: an untrained projector must get no listen layer, and equal sounds no coefficient.

Prints one JSON object with ``metrics`` and ``intervals``, as every command does.
"""

from __future__ import annotations

import json

from otoscope.engine.model import Model
from otoscope.methods.grounding import Corners, grounding
from otoscope.methods.listen_layer import listen_layer
from otoscope.models import embedded, mini
from otoscope.models.qwen2_audio import Qwen2AudioAdapter
from otoscope.tasks.conflict import ConflictItem
from otoscope.tasks.spoken_words import spoken_words

ITEMS, SEEDS = 16, 2


def untrained(seed: int) -> Model:
    """Both ends with their real weights, and a random projector between them."""
    language = embedded.fetch("smollm2-135m-instruct")
    hf = mini.untrained(embedded.fetch("whisper-tiny.en"), language, seed)
    return Model(Qwen2AudioAdapter(hf, f"untrained-{seed}", mini.tokenizer(language), mini.feature_extractor()))


def same_sound(item: ConflictItem) -> ConflictItem:
    """The item with its clean sound on both sides."""
    return item.replace(clips={**item.clips, "counterfactual": item.clips["clean"]})


def main() -> None:
    import otoscope

    task = spoken_words(ITEMS)
    claimed = 0
    for seed in range(SEEDS):
        model = untrained(seed)
        found = listen_layer(grounding(model, [Corners.of(model, item) for item in task], directions=("denoise",)))
        claimed += found.layer is not None
    trained = otoscope.load(mini.NAME)
    items = [Corners.of(trained, same_sound(item)) for item in task.items[:4]]
    same = grounding(trained, items, directions=("denoise",), after=False).curve("denoise")
    values = int((same.gc == same.gc).sum())
    print(json.dumps({"metrics": {"listen_layers": claimed, "gc_same_sound": values}, "intervals": {}}))


if __name__ == "__main__":
    main()
