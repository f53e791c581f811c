"""Word error rates under interventions whose effect is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import transformers as tf

from otoscope.audio.clip import Clip
from otoscope.engine.intervene import add, scale
from otoscope.engine.model import Model
from otoscope.errors import ModelError, SiteError, TaskError
from otoscope.methods.wer import free_running_wer, teacher_forced_wer
from otoscope.models.convert_ct2 import convert_ct2
from otoscope.models.transcribe import transcribe
from otoscope.models.whisper import WhisperAdapter
from otoscope.stats import bootstrap, ratio_of_sums
from tests.models.tiny_whisper import whisper, write_ct2_folder
from tests.tiny import build

DEAF = scale("decoder.*.cross_attn_out", 0.0)


def _clips(n: int = 3) -> list[Clip]:
    rng = np.random.default_rng(0)
    return [Clip((rng.standard_normal(12000) * 0.1).astype(np.float32), 16000, name=f"noise{i}") for i in range(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    """A random Whisper that hears one second and can write " the", "a", "b" and "c" only, " the" first."""
    folder = tmp_path_factory.mktemp("whisper")
    write_ct2_folder(folder / "ct2", whisper(init_std=0.5))
    (folder / "hf").mkdir()
    convert_ct2(folder / "ct2", folder / "hf")
    hf = tf.WhisperForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32)
    words = tf.AutoTokenizer.from_pretrained(folder / "hf")
    may = [words.convert_tokens_to_ids(token) for token in ("Ġthe", "a", "b", "c")]
    hf.generation_config.suppress_tokens = [i for i in range(len(words)) if i not in may]
    hf.generation_config.begin_suppress_tokens = may[1:]
    return Model(WhisperAdapter(hf, "tiny", words, tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)))


@pytest.fixture(scope="module")
def written(model) -> list[str]:
    """What it writes for each clip."""
    return [heard.text for heard in transcribe(model, _clips(), language="en")]


def test_what_a_plain_transcription_wrote_has_no_errors(model, written):
    assert len(set(written)) > 1
    forced = teacher_forced_wer(model, _clips(), written)
    free = free_running_wer(model, _clips(), written, language="en")
    assert forced.wer == free.wer == 0.0
    assert forced.words == free.words == sum(len(text.split()) for text in written)
    assert [item.spelled for item in forced.items] == [tuple(text.split()) for text in written]


def test_a_decoder_that_cannot_hear_makes_errors_in_both(model, written):
    for result in (
        teacher_forced_wer(model, _clips(), written, [DEAF]),
        free_running_wer(model, _clips(), written, [DEAF], language="en"),
    ):
        assert result.wer > 0.2
        rows = np.array([[item.errors, item.words] for item in result.items], dtype=float)
        assert bootstrap(rows, ratio_of_sums).value == pytest.approx(result.wer)
    # nothing of it stays in force
    assert teacher_forced_wer(model, _clips(), written).wer == 0.0


def test_one_wrong_token_is_one_wrong_word_when_forced(model, written):
    clip, text = _clips()[0], written[0]
    prompt = model.adapter.prompt("en")
    label = model.tokenizer(f" {text}", add_special_tokens=False).input_ids
    at = len(label) // 2
    foil = next(t for t in model.tokenizer.convert_tokens_to_ids(["a", "b", "c"]) if t != label[at])
    vector = 100 * model.hf.proj_out.weight[foil].detach()
    wrong = add("decoder.2.resid_post", vector, positions=(len(prompt) + at - 1,))
    (item,) = teacher_forced_wer(model, clip, text, [wrong]).items
    starts = [i for i, t in enumerate(label) if t == model.tokenizer.convert_tokens_to_ids("Ġthe")]
    expected = [not (a <= at < b) for a, b in zip(starts, [*starts[1:], len(label)])]
    assert list(item.right) == expected
    assert (item.errors, item.token_errors, item.tokens) == (1, 1, len(label))


def test_a_window_in_seconds_holds_while_writing(model, written):
    late = [scale("encoder.1.resid_post", 0.0, seconds=(0.0, 0.6))]
    assert free_running_wer(model, _clips(), written, late, language="en").wer > 0
    with pytest.raises(SiteError, match="lies outside the stack"):
        free_running_wer(model, _clips(), written, [scale("encoder.1.resid_post", 0.0, seconds=(2.0, 3.0))])


def test_generate_writes_no_timestamps_even_where_all_else_is_worse(model, monkeypatch):
    # transformers would seek back to the time that an ablated model happens to write, again and again
    monkeypatch.setattr(model.hf.generation_config, "suppress_tokens", [])
    first = model.tokenizer.convert_tokens_to_ids("<|0.00|>")
    liking = add("decoder.2.resid_post", 100 * model.hf.proj_out.weight[first].detach())
    (tokens,) = model.generate(model.inputs(_clips(1)), [liking], language="en", task="transcribe", max_new_tokens=8)
    assert max(tokens) < first


def test_what_cannot_be_scored_is_refused(model):
    clip = _clips(1)[0]
    with pytest.raises(TaskError, match="1 clips cannot be scored against 2 references"):
        teacher_forced_wer(model, clip, ["a", "b"])
    with pytest.raises(TaskError, match="2 clips cannot be scored against 1 references"):
        free_running_wer(model, [clip, clip], "a")
    with pytest.raises(TaskError, match="the reference of noise0 has 40 tokens where tiny writes at most 28"):
        teacher_forced_wer(model, clip, "the " * 40)
    long = Clip(np.tile(clip.samples, 2), 16000, name="long")
    with pytest.raises(TaskError, match=r"long lasts 1\.5 s where tiny hears 1 s at once"):
        teacher_forced_wer(model, long, "the")
    with pytest.raises(ModelError, match="tiny-wav2vec2 does not write token by token"):
        teacher_forced_wer(build("wav2vec2-ctc"), clip, "a")
    assert math.isnan(teacher_forced_wer(model, clip, " ").wer)
    assert math.isnan(free_running_wer(model, [], []).wer)


def test_ctc_models_run_freely(tmp_path):
    model = build("wav2vec2-ctc")
    symbols = ["<pad>", "|", *"abcehlow", "<unk>"]
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    model.adapter.tokenizer = tf.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    clips = [clip.slice(0, 0.3 + 0.1 * i) for i, clip in enumerate(_clips())]
    own = [heard.text for heard in transcribe(model, clips)]
    assert free_running_wer(model, clips, own).wer == 0
    window = [scale("encoder.2.resid_post", 0.0, seconds=(0.0, 0.3))]
    assert free_running_wer(model, clips, own, window).wer > 0


@pytest.mark.weights
@pytest.mark.data
def test_real_speech(shared_data, whisper_tiny_en):
    import otoscope

    model = otoscope.load("whisper-tiny.en")
    clip = otoscope.read(next((shared_data / "recordings").rglob("*jfk*")))
    text = transcribe(model, [clip])[0].text
    assert teacher_forced_wer(model, clip, text).wer == 0
    assert free_running_wer(model, clip, text).wer == 0
    deaf = teacher_forced_wer(model, clip, text, [DEAF])
    # without sound the language alone still gets some words of a famous sentence
    assert 0.3 < deaf.wer <= 1
    assert deaf.wer <= free_running_wer(model, clip, text, [DEAF]).wer
