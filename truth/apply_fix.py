"""Does an exported fix do on a bare transformers pipeline, in a process of its own, what was reported? And what does it cost?

    python truth/apply_fix.py RUN

Divides the recordings as the run did, transcribes the report's part by a pipeline with and without the fix, and prints JSON.
The pipeline is transformers' own, loaded from the folder of the weights; of otoscope only ``apply`` touches it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration, pipeline

import otoscope
from otoscope.methods.invention import has_words
from otoscope.models.quiet import quiet
from otoscope.models.sources import resolve
from otoscope.models.wer import score
from otoscope.studies.fix import FixConfig, material
from otoscope.studies.transcribe import gather

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def main(run: Path) -> None:
    folder = resolve("whisper-tiny.en").path
    hf = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    pipe = pipeline(
        "automatic-speech-recognition",
        model=hf,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        feature_extractor=extractor,
    )
    parts = material(gather([DATA / "esc10"]), gather([DATA / "librispeech"]), FixConfig(), 30.0)
    sounds = [s for s in parts["report"] if s.kind == "speech" or not s.said]

    def heard(limit: int | None, which: list) -> list[str]:
        options = {} if limit is None else {"generate_kwargs": {"max_new_tokens": limit}}
        with quiet():
            given: Any = [{"raw": s.clip.resample(16000).samples, "sampling_rate": 16000} for s in which]
            made: Any = pipe(given, batch_size=4, **options)
        return [one["text"] for one in made]

    silent, speech = [s for s in sounds if not s.said], [s for s in sounds if s.said]
    said = [s.clip.text or "" for s in speech]
    out: dict[str, float] = {"sounds": len(silent), "sentences": len(speech)}
    for name in ("before", "after"):
        applied = otoscope.apply(pipe, run) if name == "after" else None
        out[f"hallucination.{name}"] = sum(map(has_words, heard(24, silent))) / len(silent)
        out[f"wer.{name}"] = score(heard(None, speech), said).wer
        if applied:
            applied.remove()
    ratios = []
    for _ in range(5):  # side by side, so that a busy machine slows both
        seconds = []
        for fixed in (False, True):
            applied = otoscope.apply(pipe, run) if fixed else None
            start = time.perf_counter()
            heard(None, speech[:4])
            seconds.append(time.perf_counter() - start)
            if applied:
                applied.remove()
        ratios.append(seconds[1] / seconds[0])
    out["time_ratio"] = statistics.median(ratios)
    print(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
