"""Questions about a sound: what the templates write, and positions that hold what their names say."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import transformers as tf

import otoscope
from otoscope.errors import AudioError, ModelError, TaskError
from otoscope.models import prompt
from otoscope.models.whisper import WhisperAdapter
from tests.models.tiny_whisper import tokenizer as whisper_tokenizer
from tests.models.tiny_whisper import whisper
from tests.tiny import AUDIO_LLM, build, sound

QUESTION, CONTEXT = "What word was said?", "The caption says seven."


@pytest.fixture(params=AUDIO_LLM)
def model(request):
    return build(request.param)


def words(model, asked, group):
    return model.tokenizer.decode(asked.inputs.tokens[0, list(asked.groups[group])].tolist())


class TestGroups:
    """Every audio-LLM, with the chat template of its tokenizer."""

    def test_groups_hold_what_their_names_say(self, model):
        asked = model.ask(sound(1), QUESTION, CONTEXT)
        assert words(model, asked, "question").strip() == QUESTION
        assert words(model, asked, "context").strip() == CONTEXT
        tokens = asked.inputs.tokens[0]
        n = model.adapter.audio_tokens(4000)
        assert (tokens == model.adapter.audio_token).nonzero().flatten().tolist() == list(asked.groups["audio"])
        assert len(asked.groups["audio"]) == n
        assert max(asked.groups["audio"]) < min(asked.groups["context"]) < min(asked.groups["question"])
        assert max(asked.groups["context"]) < min(asked.groups["question"])
        assert asked.groups["answer"] == (len(tokens) - 1,)
        assert model.tokenizer.decode(tokens.tolist()) == asked.text
        assert model.run(asked.inputs).logits.shape[1] == len(tokens)

    def test_an_answer_is_read_where_its_tokens_are_predicted(self, model):
        bare, asked = model.ask(sound(1), QUESTION), model.ask(sound(1), QUESTION, answer="seven")
        label = model.label_tokens("seven")
        assert len(label) > 1
        assert model.tokenizer.decode(list(label)) == "seven"
        assert asked.groups["answer"] == tuple(bare.groups["answer"][0] + i for i in range(len(label)))
        assert asked.inputs.tokens[0].tolist() == [*bare.inputs.tokens[0].tolist(), *label]
        assert [asked.inputs.tokens[0, p + 1] for p in asked.groups["answer"]] == list(label)

    def test_without_a_sound_there_is_no_placeholder(self, model):
        asked = model.ask(None, QUESTION, CONTEXT)
        assert asked.groups["audio"] == ()
        assert asked.inputs.features is None
        assert words(model, asked, "question").strip() == QUESTION
        assert not (asked.inputs.tokens == model.adapter.audio_token).any()
        logits = model.run(asked.inputs).logits
        assert torch.isfinite(logits).all()
        other = model.run(model.ask(sound(1), QUESTION, CONTEXT).inputs).logits
        assert (logits[:, -1] - other[:, -1]).abs().max() > 1e-3

    def test_contexts_of_as_many_tokens_leave_all_else_where_it_was(self, model):
        first, second = (model.ask(sound(1), QUESTION, f"The caption says {w}.") for w in ("b", "g"))
        assert first.groups == second.groups
        differ = (first.inputs.tokens != second.inputs.tokens)[0].nonzero().flatten().tolist()
        assert len(differ) == 1
        assert set(differ) <= set(first.groups["context"])

    def test_a_system_prompt_is_written(self, model):
        assert "Answer in one word." in model.ask(sound(1), QUESTION, system="Answer in one word.").text

    def test_no_context_and_no_question_are_empty_groups(self, model):
        assert model.ask(sound(1), QUESTION).groups["context"] == ()
        assert model.ask(sound(1), "", CONTEXT).groups["question"] == ()
        assert words(model, model.ask(sound(1), "", CONTEXT), "context").strip() == CONTEXT

    def test_words_that_hold_the_placeholder_are_refused(self, model):
        sign = model.tokenizer.convert_ids_to_tokens(model.adapter.audio_token)
        with pytest.raises(ModelError, match="which stands for the sound: leave it out"):
            model.ask(sound(1), f"What is {sign}?")

    def test_text_for_clips_asks_about_each(self, model):
        inputs = model.inputs([sound(1), sound(2)], text=QUESTION)
        assert inputs.batch == 2
        assert torch.equal(inputs.item(1).tokens, model.ask(sound(2), QUESTION).inputs.tokens)


class TestTemplates:
    def test_a_plain_text_where_there_is_no_template(self, model):
        model.tokenizer.chat_template = None
        asked = model.ask(sound(1), QUESTION, CONTEXT, system="Listen.")
        assert asked.text.startswith("Listen.\n")
        assert asked.text.endswith(f"\n{CONTEXT} {QUESTION}\n")
        assert words(model, asked, "context").strip() == CONTEXT
        assert len(asked.groups["audio"]) == model.adapter.audio_tokens(4000)

    def test_a_template_of_a_text_model_gets_the_placeholder_in_a_string(self):
        model = build("qwen2_audio")
        model.tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}assistant:"
        )
        asked = model.ask(sound(1), QUESTION, CONTEXT)
        assert asked.text == f"user: <|audio_bos|>{'<|AUDIO|>' * 6}<|audio_eos|>\n{CONTEXT} {QUESTION}\nassistant:"
        assert words(model, asked, "question").strip() == QUESTION

    def test_a_template_that_drops_a_part_is_refused(self):
        model = build("qwen2_audio")
        model.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
        with pytest.raises(ModelError, match="the chat template leaves out one of body, audio"):
            model.ask(sound(1), QUESTION)

    @pytest.mark.parametrize(
        ("family", "kind", "options"),
        [
            ("qwen2_audio", "Qwen2AudioProcessor", {}),
            ("audioflamingo3", "AudioFlamingo3Processor", {"audio_token": "<sound>"}),
            ("musicflamingo", "MusicFlamingoProcessor", {"audio_token": "<sound>"}),
        ],
    )
    def test_the_familys_own_processor_makes_the_same_tokens_and_features(self, family, kind, options, tmp_path):
        model = build(family)
        model.hf.save_pretrained(tmp_path)
        template = model.tokenizer.chat_template
        made = getattr(tf, kind)(model.feature_extractor, model.tokenizer, chat_template=template, **options)
        made.save_pretrained(tmp_path)
        loaded = otoscope.load(str(tmp_path), offline=True)
        assert type(loaded.adapter.processor).__name__ == kind
        clip = sound(1)
        asked = loaded.ask(clip, QUESTION, CONTEXT)
        content = [{"type": "audio", "audio": "x"}, {"type": "text", "text": f"{CONTEXT} {QUESTION}"}]
        messages = [{"role": "user", "content": content}]
        text = loaded.adapter.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        theirs = loaded.adapter.processor(text=[text], audio=[clip.samples], sampling_rate=16000, return_tensors="pt")
        assert torch.equal(asked.inputs.tokens, theirs.input_ids)
        assert torch.equal(asked.inputs.features, theirs.input_features)
        theirs.input_ids[0, -1] += 1
        other = Mock(return_value=theirs, chat_template=loaded.adapter.processor.chat_template)
        loaded.adapter.processor = other
        with pytest.raises(ModelError, match=r"the two do not belong together; fetch the model again"):
            loaded.ask(clip, QUESTION, CONTEXT)


class TestTokenizers:
    def test_a_tokenizer_without_offsets_is_read_by_what_its_tokens_spell(self):
        fast = build("qwen2_audio").tokenizer

        class Slow:
            is_fast, bos_token = False, None

            def __call__(self, text, **_options):
                return fast(text, add_special_tokens=False)

            def decode(self, ids):
                return fast.decode(ids)

        text = f"<|AUDIO|> {CONTEXT} {QUESTION}"
        assert prompt.encode(Slow(), text) == prompt.encode(fast, text)
        Slow.decode = lambda self, ids: fast.decode(ids).lower()
        with pytest.raises(ModelError, match="does not give back the prompt"):
            prompt.encode(Slow(), text)

    def test_a_token_across_two_parts_belongs_to_the_later(self):
        found = prompt.groups([(0, 4), (4, 9), (9, 12), (12, 12)], {"context": (0, 6), "question": (7, 12)})
        assert found == {"context": (0,), "question": (1, 2)}

    def test_a_model_without_tokenizer_cannot_be_asked(self, model):
        model.adapter.tokenizer = None
        with pytest.raises(ModelError, match="has no tokenizer beside its weights, so it cannot be asked"):
            model.ask(sound(1), QUESTION)

    def test_a_label_that_merges_with_the_prompt_is_taken_alone(self):
        reader = build("qwen2_audio").tokenizer
        before, label = "wha", "t word"
        merged = reader("What word", add_special_tokens=False).input_ids
        assert len(merged) < len(reader("Wha", add_special_tokens=False).input_ids) + 2
        alone = tuple(reader(label, add_special_tokens=False).input_ids)
        assert prompt.continuation(reader, "W" + before[1:], label) == alone


class TestBadInput:
    def test_other_models_cannot_be_asked(self):
        for family in ("llama", "hubert-base"):
            model = build(family)
            assert not model.listens_and_reads
            for call in (lambda m: m.ask(sound(1), QUESTION), lambda m: m.label_tokens("seven")):
                with pytest.raises(ModelError, match="cannot be asked: expected an audio-LLM or a Whisper"):
                    call(model)

    def test_a_wrong_number_of_placeholders_is_refused(self, model):
        inputs = model.inputs(sound(1), tokens=[5, *[model.adapter.audio_token] * 2, 6])
        with pytest.raises(TaskError, match="the tokens hold 2 audio placeholders where the sound has"):
            model.run(inputs)

    def test_a_sound_without_words_is_refused(self, model):
        with pytest.raises(ModelError, match="answers a question about a sound: give text= or tokens="):
            model.run(model.inputs(sound(1)))

    def test_a_clip_out_of_the_window_is_refused(self, model):
        with pytest.raises(AudioError, match=r"lasts 0.006 s and .* hears from"):
            model.inputs(sound(1, 100), tokens=[5])
        if model.family != "granite_speech":  # which has no window
            with pytest.raises(AudioError, match=r"lasts 2.500 s and .* s at once: pad it with silence, or cut it"):
                model.inputs(sound(1, 40000), tokens=[5])

    @pytest.mark.parametrize("family", ["qwen2_5_omni_thinker", "granite_speech"])
    def test_sounds_of_unequal_length_cannot_share_a_batch_of_a_tower_that_pads_nothing(self, family):
        with pytest.raises(AudioError, match=r"clips of 3000 and 4000 samples cannot share a batch of .* tower"):
            build(family).inputs([sound(1, 3000), sound(2, 4000)], tokens=[5])


class TestWhisper:
    @pytest.fixture
    def model(self):
        hf = whisper()
        reader = tf.PreTrainedTokenizerFast(tokenizer_object=whisper_tokenizer(), unk_token="<|endoftext|>")
        hf.generation_config.no_timestamps_token_id = reader.convert_tokens_to_ids("<|notimestamps|>")
        extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
        return otoscope.Model(WhisperAdapter(hf, "tiny-whisper", reader, extractor))

    def test_the_context_is_the_preceding_text(self, model):
        asked = model.ask(sound(1), context="the bat", answer="bat")
        assert asked.text == "<|startofprev|> the bat<|startoftranscript|><|notimestamps|> bat"
        assert words(model, asked, "context") == " the bat"
        assert words(model, asked, "question") == "<|startoftranscript|>"
        assert words(model, asked, "answer") == "<|notimestamps|> ba"
        assert model.label_tokens("bat") == tuple(asked.inputs.tokens[0, -len(asked.groups["answer"]) :].tolist())
        assert asked.groups["audio"] == ()
        plain = model.ask(sound(1))
        assert plain.groups["context"] == ()
        assert plain.inputs.tokens[0].tolist() == model.prompt()

    def test_generation_continues_the_context_and_gives_the_new_text_alone(self, model):
        seen = []
        handle = model.hf.model.decoder.register_forward_pre_hook(
            lambda _m, args, kwargs: seen.append((args[0] if args else kwargs["input_ids"]).tolist()), with_kwargs=True
        )
        asked = model.ask(sound(1), context="the bat")
        new = model.generate(asked.inputs, max_new_tokens=3)
        handle.remove()
        assert seen[0][0][: len(asked.inputs.tokens[0])] == asked.inputs.tokens[0].tolist()
        assert len(new[0]) <= 4

    def test_what_it_cannot_do_is_refused(self, model):
        for question, clip in ((QUESTION, sound(1)), ("", None)):
            with pytest.raises(ModelError, match="only transcribes: give it a sound and perhaps a context"):
                model.ask(clip, question)
        with pytest.raises(
            ModelError, match="tokens are more than the 32 that tiny-whisper reads: shorten the context"
        ):
            model.ask(sound(1), context="the bat " * 20)
