"""From sound to text: windows, batches, order, and the CTC rule."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf

from otoscope.audio.clip import Clip
from otoscope.errors import ModelError
from otoscope.models.convert_ct2 import convert_ct2
from otoscope.models.transcribe import transcribe
from tests.models.tiny_whisper import whisper, write_ct2_folder


def _clip(seconds: float, rate: int = 16000, seed: int = 0) -> Clip:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return Clip(noise.astype(np.float32) * 0.1, rate, name=f"noise{seed}")


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    """A random multilingual Whisper that hears one second at once."""
    folder = tmp_path_factory.mktemp("whisper")
    write_ct2_folder(folder / "ct2", whisper(init_std=0.5))  # wide weights: the answer depends on the sound
    (folder / "hf").mkdir()
    convert_ct2(folder / "ct2", folder / "hf")
    hf = tf.WhisperForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    words = tf.AutoTokenizer.from_pretrained(folder / "hf")
    return SimpleNamespace(
        name="tiny",
        hf=hf,
        tokenizer=words,
        feature_extractor=tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1),
    )


def test_whisper_decodes_greedily_with_its_suppressed_tokens(listener):
    clip = _clip(0.8)
    (heard,) = transcribe(listener, [clip], language="en")
    # the same by hand: feed the prompt, take the best allowed token, repeat
    mel = listener.feature_extractor(clip.samples, sampling_rate=16000, return_tensors="pt").input_features
    names = ("startoftranscript", "en", "transcribe", "notimestamps")
    tokens = [listener.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names]
    config = listener.hf.generation_config
    while len(tokens) < config.max_length and tokens[-1] != config.eos_token_id:
        with torch.no_grad():
            logits = listener.hf(input_features=mel, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        # timestamps are not to be written, and random weights would
        banned = config.suppress_tokens + list(range(config.no_timestamps_token_id + 1, len(listener.tokenizer)))
        banned += config.begin_suppress_tokens if len(tokens) == 4 else []
        logits[banned] = -torch.inf
        tokens.append(int(logits.argmax()))
    special = set(listener.tokenizer.all_special_ids)
    assert heard.tokens == tuple(token for token in tokens if token not in special)
    assert len(heard.tokens) > 3
    assert heard.text
    assert heard.text == listener.tokenizer.decode(heard.tokens).strip()
    assert heard.seconds_of_sound == 0.8
    assert heard.seconds_of_computing > 0


def test_batches_neither_mix_nor_reorder(listener):
    clips = [_clip(seconds, seed=i) for i, seconds in enumerate((0.9, 0.3, 0.6, 0.2, 0.5))]
    done = []
    together = transcribe(listener, clips, batch_size=2, progress=lambda n, total: done.append((n, total)))
    alone = [transcribe(listener, [clip])[0] for clip in clips]
    assert [heard.tokens for heard in together] == [heard.tokens for heard in alone]
    assert len({heard.tokens for heard in alone}) > 1
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_a_long_clip_is_cut_into_equal_windows_with_a_notice(listener):
    clip = _clip(2.4)
    (heard,) = transcribe(listener, [clip])
    parts = transcribe(listener, [clip.slice(0.8 * i, 0.8 * (i + 1)) for i in range(3)])
    assert heard.tokens == tuple(token for part in parts for token in part.tokens)
    assert heard.text == " ".join(part.text for part in parts)
    assert "transcribed in 3 consecutive windows" in heard.notices[0]
    assert parts[0].notices == ()


def test_any_rate_is_heard(listener):
    clip = _clip(0.5, rate=44100)
    assert transcribe(listener, [clip])[0].tokens == transcribe(listener, [clip.resample(16000)])[0].tokens


def test_nothing_in_nothing_out(listener):
    assert transcribe(listener, []) == []


def test_languages_are_checked(listener):
    assert transcribe(listener, [_clip(0.3)], language="haw")
    with pytest.raises(ModelError, match="does not know the language 'xx': expected one of en de haw"):
        transcribe(listener, [_clip(0.3)], language="xx")
    english = SimpleNamespace(
        **{**vars(listener), "hf": SimpleNamespace(config=listener.hf.config, generation_config=None)}
    )
    with pytest.raises(ModelError, match="'tiny' knows English only, not 'de'"):
        transcribe(english, [_clip(0.3)], language="de")


def test_transformers_stays_quiet_and_loud_again(listener, capsys):
    before = tf.logging.get_verbosity()
    transcribe(listener, [_clip(0.3)])
    assert capsys.readouterr().err == ""
    assert tf.logging.get_verbosity() == before


class ScriptedCtc(torch.nn.Module):
    """A CTC model that says a fixed string of labels, one per frame."""

    def __init__(self, labels: list[int]):
        super().__init__()
        self.lm_head = torch.nn.Linear(1, 1)
        self.config = SimpleNamespace(model_type="hubert", pad_token_id=0)
        self.labels, self.heard = labels, []

    def forward(self, values):
        self.heard.append(values)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor([self.labels]), 12).float())


def _ctc(tmp_path, frames: str):
    symbols = ["<pad>", "|", *"abcehlow", "<unk>"]
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    words = tf.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), pad_token="<pad>", unk_token="<unk>")
    hf = ScriptedCtc([0 if frame == "_" else symbols.index(frame) for frame in frames])
    extractor = tf.Wav2Vec2FeatureExtractor(do_normalize=True)
    return SimpleNamespace(name="ctc", hf=hf, tokenizer=words, feature_extractor=extractor)


def test_ctc_merges_repeats_then_drops_blanks(tmp_path):
    model = _ctc(tmp_path, "_hhe_ll_lloo__||_a__|bb_b")
    (heard,) = transcribe(model, [_clip(0.5)])
    assert heard.text == "hello a bb"
    assert model.tokenizer.convert_ids_to_tokens(list(heard.tokens)) == list("hello|a|bb")
    assert abs(float(model.hf.heard[0].mean())) < 1e-4  # as the feature extractor normalises
    assert float(model.hf.heard[0].std()) == pytest.approx(1, abs=1e-3)


def test_ctc_models_get_one_clip_at_a_time_because_padding_may_change_them(tmp_path):
    model = _ctc(tmp_path, "_a_")
    transcribe(model, [_clip(0.5), _clip(0.25), _clip(31)], batch_size=8)
    assert [tuple(values.shape) for values in model.hf.heard] == [(1, 4000), (1, 8000), (1, 248000), (1, 248000)]
    with pytest.raises(ModelError, match="'ctc' has one language only"):
        transcribe(model, [_clip(0.5)], language="en")


def test_models_that_do_not_transcribe_are_told(listener):
    hubert = SimpleNamespace(config=SimpleNamespace(model_type="hubert"))
    bare = SimpleNamespace(name="hubert-base", hf=hubert, tokenizer=None, feature_extractor=object())
    with pytest.raises(ModelError, match="'hubert-base' does not transcribe: expected a Whisper, or a speech encoder"):
        transcribe(bare, [_clip(0.1)])
    mute = SimpleNamespace(**{**vars(listener), "tokenizer": None})
    with pytest.raises(ModelError, match="'tiny' has no tokenizer beside its weights"):
        transcribe(mute, [_clip(0.1)])


@pytest.mark.weights
@pytest.mark.data
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_real_speech(name, shared_data, whisper_tiny_en, whisper_base):
    from otoscope.audio.files import read
    from otoscope.models.load import load_adapter

    model = load_adapter(name)
    clip = read(next((shared_data / "recordings").rglob("*jfk*")))
    (heard,) = transcribe(model, [clip])  # the multilingual one finds out the language
    assert heard.text.replace(",", "") == (
        "And so my fellow Americans ask not what your country can do for you ask what you can do for your country."
    )
