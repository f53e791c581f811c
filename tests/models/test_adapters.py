"""What every adapter must pass, on tiny random models: the library's own numbers, and sites that mean what they say."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from otoscope.engine.intervene import Intervention, add, scale
from otoscope.errors import AudioError, ModelError
from otoscope.models.inputs import Inputs
from otoscope.models.site import PATTERN_POINTS, Site
from tests.tiny import AUDIO_LLM, FAMILIES, build, pair, sound

LANGUAGE = ["llama", "qwen2", "qwen3"]
SPEECH = [f for f in FAMILIES if f not in ("whisper", *LANGUAGE, *AUDIO_LLM)]


def bare(model):
    """The same weights in the library's own class with its default attention, never touched by an adapter."""
    config = copy.deepcopy(model.hf.config)
    config._attn_implementation = None
    hf = type(model.hf)(config).to(model.adapter.dtype).eval()
    hf.load_state_dict(model.hf.state_dict())
    assert hf.config._attn_implementation in ("sdpa", "eager")
    return hf


def call(hf, inputs, **options):
    """The library's own forward."""
    if inputs.features is None:
        return hf(input_ids=inputs.tokens, **options)
    if inputs.tokens is None:
        return hf(inputs.features, attention_mask=inputs.feature_mask, **options)
    if (kind := hf.config.model_type) in AUDIO_LLM:
        mask = {AUDIO_LLM[kind]: inputs.feature_mask} if AUDIO_LLM[kind] else {}
        return hf(input_ids=inputs.tokens, input_features=inputs.features, **mask, **inputs.extra, **options)
    return hf(input_features=inputs.features, decoder_input_ids=inputs.tokens, **options)


def logits_of(output):
    return output.logits if "logits" in output else output.last_hidden_state


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(family)


@pytest.fixture(scope="module")
def inputs(model):
    """A batch of two different items."""
    return Inputs.stack(list(pair(model)))


@pytest.fixture(scope="module")
def values(model, inputs):
    """Everything at once, patterns included (which computes attention eagerly)."""
    return model.capture(inputs, "*")


def transformers_of(model):
    return [s for s in model.stacks.values() if s.n_heads]


class TestAdapter:
    """Each family passes each of these."""

    def test_logits_equal_the_bare_model(self, model, inputs):
        with torch.no_grad():
            expected = logits_of(call(bare(model), inputs))
        got = model.run(inputs).logits
        # WavLM's attention is rebuilt with its heads open, so the order of its sums differs from the fused call
        assert (got - expected).abs().max() <= (1e-5 if model.family == "wavlm" else 0)

    def test_logits_equal_the_bare_model_in_float64(self, family):
        double = build(family, torch.float64)
        there = Inputs.stack(list(pair(double)))
        with torch.no_grad():
            expected = logits_of(call(bare(double), there))
        assert (double.run(there).logits - expected).abs().max() < 1e-10

    def test_capturing_changes_no_logit_beyond_rounding(self, model, inputs):
        plain = model.run(inputs).logits
        no_patterns = [s for s in model.sites() if s.point not in PATTERN_POINTS]
        assert torch.equal(model.run(inputs, capture_sites=no_patterns).logits, plain)
        assert (model.run(inputs, capture_sites="*").logits - plain).abs().max() < 1e-4

    def test_hidden_states_are_the_librarys(self, model, inputs):
        with torch.no_grad():
            output = call(bare(model), inputs, output_hidden_states=True)
        close = 1e-5 if model.family == "wavlm" else 0
        for spec in transformers_of(model):
            if model.listens_and_reads and spec.name == "encoder":
                continue  # the library returns none of its tower: see TestAudioLLM
            key = "hidden_states" if "hidden_states" in output else f"{spec.name}_hidden_states"
            states = output[key]
            assert len(states) == spec.n_layers + 1
            plain = model.capture(inputs, f"{spec.name}.*.resid_pre,{spec.name}.*.resid_post")
            for layer in range(spec.n_layers):
                assert (plain[f"{spec.name}.{layer}.resid_pre"] - states[layer]).abs().max() <= close
            post = plain[f"{spec.name}.{spec.n_layers - 1}.resid_post"]
            # the library gives its last state before the final norm for some heads, after it for others
            ends = (post, model.adapter.final(spec.name, post))
            assert min((end - states[-1]).abs().max() for end in ends) <= close

    def test_shapes_are_those_that_are_listed(self, model, values):
        for site in model.sites():
            value, spec = values[site], model.stacks[site.stack]
            numbers = [int(n) for n in spec.shape(site.point).strip("[]").replace(",", "").split() if n.isdigit()]
            rest = value.shape[1:2] if site.point in PATTERN_POINTS else value.shape[2:]
            assert list(rest) == numbers or site.stack == "frontend", f"{site}: {tuple(value.shape)}"
            assert value.shape[0] == 2

    def test_the_residual_stream_adds_up(self, model, values):
        for spec in transformers_of(model):
            blocks = model.adapter.blocks(spec.name)
            for layer, block in enumerate(blocks):
                at = {p: values[f"{spec.name}.{layer}.{p}"] for p in spec.points}
                r = getattr(model.adapter.hf.config.get_text_config(), "residual_multiplier", 1.0)
                attended = at["resid_pre"] + r * at["attn_out"]
                if not block.pre_norm:
                    attended = block.norm_attn(attended)
                mid = attended + at["cross_attn_out"] if "cross_attn_out" in at else attended
                post = mid + r * at["mlp_out"]
                if not block.pre_norm:
                    post = block.norm_mlp(post)
                if block.extra is not None:
                    post = post + block.extra(post)
                assert (at["resid_mid"] - mid).abs().max() < 1e-5
                assert (at["resid_post"] - post).abs().max() < 1e-5
                if layer + 1 < spec.n_layers:
                    assert torch.equal(at["resid_post"], values[f"{spec.name}.{layer + 1}.resid_pre"])

    def test_pre_and_post_norm_are_what_the_library_says(self, model):
        config = model.hf.config
        for spec in transformers_of(model):
            expected = getattr(config, "do_stable_layer_norm", True)
            assert all(b.pre_norm == expected for b in model.adapter.blocks(spec.name))

    def test_heads_sum_to_the_attention_output(self, model, values):
        for spec in transformers_of(model):
            for layer, block in enumerate(model.adapter.blocks(spec.name)):
                for attn, z, out in ((block.attn, "z", "attn_out"), (block.cross, "cross_z", "cross_attn_out")):
                    if attn is None:
                        continue
                    heads = values[f"{spec.name}.{layer}.{z}"]
                    weight = attn.o.weight.unflatten(1, (spec.n_heads, spec.d_head))
                    per_head = torch.einsum("bphe,dhe->bphd", heads, weight)
                    total = per_head.sum(2) + (0 if attn.o.bias is None else attn.o.bias)
                    assert (total - values[f"{spec.name}.{layer}.{out}"]).abs().max() < 1e-5

    def test_patterns_are_distributions_that_weigh_the_values(self, model, values):
        for spec in transformers_of(model):
            for layer, block in enumerate(model.adapter.blocks(spec.name)):
                pattern = values[f"{spec.name}.{layer}.pattern"]
                assert (pattern.sum(-1) - 1).abs().max() < 1e-5
                if spec.causal:
                    assert torch.equal(pattern.triu(1), torch.zeros_like(pattern))
                v = block.attn.values(block.attn_input(values[f"{spec.name}.{layer}.resid_pre"]))
                self._weighs(pattern, v, values[f"{spec.name}.{layer}.z"])
                if block.cross is not None:
                    last = model.stacks["encoder"].n_layers - 1
                    frames = model.adapter.final("encoder", values[f"encoder.{last}.resid_post"])
                    cross = values[f"{spec.name}.{layer}.cross_pattern"]
                    assert (cross.sum(-1) - 1).abs().max() < 1e-5
                    self._weighs(cross, block.cross.values(frames), values[f"{spec.name}.{layer}.cross_z"])

    def _weighs(self, pattern, v, z):
        v = v.repeat_interleave(pattern.shape[1] // v.shape[1], 1)
        assert (torch.einsum("bhqk,bhke->bqhe", pattern, v) - z).abs().max() < 1e-5

    def test_neurons_make_the_mlp_output(self, model, values):
        for spec in transformers_of(model):
            for layer, block in enumerate(model.adapter.blocks(spec.name)):
                at = {p: values[f"{spec.name}.{layer}.{p}"] for p in ("resid_mid", "mlp_post", "mlp_out")}
                assert (block.down(at["mlp_post"]) - at["mlp_out"]).abs().max() < 1e-5
                assert (block.mlp_neurons(at["resid_mid"]) - at["mlp_post"]).abs().max() < 1e-5

    def test_writing_back_what_was_read_changes_nothing(self, model, inputs):
        for site in model.sites():
            seen = []

            def same(value, _at, seen=seen):
                seen.append(value)
                return value.clone()

            plain = model.run(inputs, capture_sites=[site]).logits  # a tapped pattern is computed eagerly in both
            assert torch.equal(model.run(inputs, [Intervention(site, same)]).logits, plain), site
            assert len(seen) == 1, f"{site} must be passed once per forward"

    def test_what_is_written_is_what_is_read_and_it_matters(self, model, inputs):
        plain = model.run(inputs).logits
        for site in model.sites():
            written = []

            def other(value, _at, written=written):
                noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(0))
                written.append(value + 0.5 * noise)
                return written[0]

            output = model.run(inputs, [Intervention(site, other)], capture_sites=[site])
            assert (output.cache[site] - written[0]).abs().max() < 1e-5, site
            assert (output.logits - plain).abs().max() > 1e-3, site

    def test_the_pieces_reproduce_the_forward(self, model, inputs):
        """embed, blocks, final and unembed, chained by hand, give the logits."""
        adapter = model.adapter
        last = adapter.order[-1]
        x = model.capture(inputs, f"{last}.0.resid_pre")[f"{last}.0.resid_pre"]
        frames = None
        if "decoder" in model.stacks:
            audio = ()
            if model.listens_and_reads:
                audio = (self._listen(model, inputs),)
            assert (adapter.embed(inputs.tokens, *audio) - x).abs().max() < 1e-5
            x = adapter.embed(inputs.tokens, *audio)
        if "cross_z" in model.stacks[last].points:
            start = model.capture(inputs, "encoder.0.resid_pre")["encoder.0.resid_pre"]
            frames = adapter.final("encoder", self._through(model, "encoder", start, None))
        end = adapter.final(last, self._through(model, last, x, frames))
        expected = model.run(inputs).logits
        assert (adapter.unembed(end) - expected).abs().max() < 1e-4
        some = torch.tensor([3, 1])
        assert (adapter.unembed(end, some) - expected[..., some]).abs().max() < 1e-4

    def _listen(self, model, inputs):
        """The tower's layers by their blocks where it has some, then the connector."""
        adapter, last = model.adapter, model.stacks["encoder"].n_layers - 1
        values = model.capture(inputs, f"encoder.0.resid_pre,encoder.{last}.resid_post")
        end = values[f"encoder.{last}.resid_post"]
        if adapter.blocks("encoder", inputs):
            end = self._through(model, "encoder", values["encoder.0.resid_pre"], None, inputs)
        return adapter.connect(adapter.final("encoder", end))

    def _through(self, model, stack, x, frames, inputs=None):
        spec = model.stacks[stack]
        at = torch.arange(x.shape[1])
        causal = at <= at[:, None] if spec.causal else None
        for block in model.adapter.blocks(stack, inputs):
            a, h = block.attn, block.attn_input(x)
            mask = causal if a.bias is None else a.bias(h, at, len(at))
            mid = block.after_attn(x, a.out(a.attend(a.queries(h, at), a.keys(h, at), a.values(h), mask)))
            if block.cross is not None:
                c, everywhere = block.cross, torch.arange(frames.shape[1])
                q = c.queries(block.norm_cross(mid), at)
                mid = mid + c.out(c.attend(q, c.keys(frames, everywhere), c.values(frames)))
            x = block.mlp(mid)
        return x

    def test_items_of_a_batch_do_not_hear_each_other(self, model, inputs):
        together = model.run(inputs).logits
        for i in range(2):
            alone = model.run(inputs.item(i)).logits
            assert (together[i : i + 1] - alone).abs().max() < 1e-4

    def test_the_clock_counts_the_frames_there_are(self, model, inputs, values):
        for spec in model.stacks.values():
            if spec.frame_rate is None:
                with pytest.raises(ModelError, match="has no frame time: its positions are tokens"):
                    model.clock(spec.name, 4000)
                continue
            clock = model.clock(spec.name, inputs.n_samples[0])
            point = "conv_out" if spec.name == "frontend" else "resid_post"
            frames = values[Site(spec.name, spec.n_layers - 1, point)].shape[1]
            assert clock.n_frames == frames
            assert clock.rate == spec.frame_rate
            assert 0 < clock.n_valid <= clock.n_frames


class TestPadding:
    """Padding never leaks into a valid frame's answer."""

    @pytest.mark.parametrize("family", [f for f in SPEECH if "pre" in f or "adapters" in f])
    def test_a_batch_of_unequal_lengths_answers_as_each_clip_alone(self, family):
        model = build(family)
        clips = [sound(1, 4000), sound(2, 2700), sound(3, 3333)]
        batch = model.inputs(clips)
        output = model.run(batch, capture_sites="*")
        assert batch.feature_mask is not None
        for i, clip in enumerate(clips):
            alone = model.run(model.inputs(clip), capture_sites="*")
            n = model.clock("encoder", len(clip.samples)).n_valid
            assert alone.logits.shape[1] == n
            assert (output.logits[i, :n] - alone.logits[0]).abs().max() < 1e-4
            for site in model.sites("encoder.*"):
                both = output.cache[site][i], alone.cache[site][0]
                if site.point in PATTERN_POINTS:
                    assert (both[0][:, :n, n:] == 0).all(), "no valid frame may attend to padding"
                    assert (both[0][:, :n, :n] - both[1]).abs().max() < 1e-4
                else:
                    assert (both[0][:n] - both[1]).abs().max() < 1e-4

    @pytest.mark.parametrize("family", [f for f in SPEECH if "pre" in f or "adapters" in f])
    def test_padded_logits_equal_the_bare_models(self, family):
        model = build(family)
        batch = model.inputs([sound(1, 4000), sound(2, 2700)])
        with torch.no_grad():
            expected = logits_of(call(bare(model), batch))
        assert (model.run(batch).logits - expected).abs().max() <= (1e-5 if model.family == "wavlm" else 0)

    @pytest.mark.parametrize("family", [f for f in SPEECH if "pre" not in f and "adapters" not in f])
    def test_a_group_norm_hears_padding_so_unequal_lengths_are_refused(self, family):
        model = build(family)
        with pytest.raises(
            AudioError, match=r"clips of 2700 and 4000 samples cannot share a batch of .* one at a time"
        ):
            model.inputs([sound(1, 4000), sound(2, 2700)])
        assert model.inputs([sound(1, 4000), sound(2, 4000)]).batch == 2

    def test_whisper_batches_any_lengths_and_its_clock_tells_padding(self):
        model = build("whisper")
        clips = [sound(1, 4000), sound(2, 9000)]
        batch = model.inputs(clips, tokens=[3, 7, 9])
        together = model.run(batch).logits
        for i, clip in enumerate(clips):
            alone = model.run(model.inputs(clip, tokens=[3, 7, 9])).logits
            assert (together[i] - alone[0]).abs().max() < 1e-4
        assert [model.clock("encoder", n).n_valid for n in batch.n_samples] == [13, 29]

    @pytest.mark.parametrize("family", SPEECH)
    def test_a_clip_shorter_than_a_frame_is_refused(self, family):
        with pytest.raises(AudioError, match="shorter than one frame"):
            build(family).inputs(sound(1, 20))


@pytest.mark.parametrize("family", AUDIO_LLM)
class TestAudioLLM:
    """What every audio-LLM must pass beside that."""

    def test_the_towers_states_are_the_librarys(self, family):
        model = build(family)
        inputs = Inputs.stack(list(pair(model)))
        hf, states = bare(model), []
        for layer in type(model.adapter)(hf).tower.layers:
            layer.register_forward_pre_hook(
                lambda _m, args, kwargs: states.append((*args, *kwargs.values())[0]), with_kwargs=True
            )
        with torch.no_grad():
            call(hf, inputs)
        ours = model.capture(inputs, "encoder.*.resid_pre")
        assert len(states) == model.stacks["encoder"].n_layers
        for layer, state in enumerate(states):
            value = ours[f"encoder.{layer}.resid_pre"]
            assert torch.equal(value.reshape(-1, value.shape[-1]), state.reshape(-1, value.shape[-1]))

    def test_padding_is_not_heard_where_the_family_masks_it(self, family):
        model = build(family)
        inputs, _ = pair(model)
        valid = model.clock("encoder", inputs.n_samples[0]).n_valid
        end = f"encoder.{model.stacks['encoder'].n_layers - 1}.resid_post"
        plain = model.run(inputs, capture_sites=end)
        n = plain.cache[end].shape[1]
        if n == valid or family in ("voxtral", "glmasr"):  # no padding is computed, or it is heard
            return
        pattern = model.capture(inputs, "encoder.*.pattern")
        assert all((pattern[site][:, :, :, valid:] == 0).all() for site in pattern)
        loud = inputs.features.clone()
        loud[:, :, 2 * valid + 4 :] += 3.0
        other = model.run(replace(inputs, features=loud), capture_sites=end)
        assert (other.logits - plain.logits).abs().max() < 1e-6
        assert (other.cache[end][:, :valid] - plain.cache[end][:, :valid]).abs().max() < 1e-6
        assert (other.cache[end][:, valid + 3 :] - plain.cache[end][:, valid + 3 :]).abs().max() > 0.01

    def test_generation_with_interventions_equals_recomputing_the_whole(self, family):
        model = build(family)
        model.hf.generation_config.eos_token_id = None
        inputs, _ = pair(model)
        n = inputs.tokens.shape[1]
        vector = torch.linspace(-2, 2, 24)
        changes = [
            scale("connector.0.resid_post", 0.3),
            scale("encoder.1.attn_out", 2.0),
            add("decoder.1.resid_pre", vector, positions=(1, 4, n + 1)),
            scale("decoder.2.z", -2.0, heads=1),
            scale("decoder.3.pattern", 0.5, positions=n + 2),
        ]
        never = [model.adapter.audio_token]  # a random model may write a placeholder, for which there is no sound
        got = model.generate(inputs, changes, max_new_tokens=6, suppress_tokens=never)[0]
        now = inputs
        with torch.no_grad(), model.intervene(*changes):
            for _ in range(6):
                logits = model.adapter.forward(now)[:, -1]
                logits[:, never] = -torch.inf
                now = replace(now, tokens=torch.cat((now.tokens, logits.argmax(-1, keepdim=True)), 1))
        assert got == now.tokens[0].tolist()
        assert got != model.generate(inputs, max_new_tokens=6, suppress_tokens=never)[0]

    def test_the_connector_reads_the_encoders_end_and_feeds_the_decoder(self, family):
        model = build(family)
        inputs = Inputs.stack(list(pair(model)))
        values = model.capture(inputs, "*")
        adapter, last = model.adapter, model.stacks["encoder"].n_layers - 1
        read = adapter.final("encoder", values[f"encoder.{last}.resid_post"])
        if "resid_pre" in model.stacks["connector"].points:
            assert (read - values["connector.0.resid_pre"]).abs().max() < 1e-5
        connected = values["connector.0.resid_post"]
        assert (adapter.connect(read) - connected).abs().max() < 1e-5
        start = values["decoder.0.resid_pre"]
        assert (adapter.embed(inputs.tokens, connected) - start).abs().max() < 1e-6
        audio = inputs.tokens[0] == adapter.audio_token
        n = int(audio.sum())
        assert n == adapter.audio_tokens(inputs.n_samples[0]) > 1
        assert torch.allclose(start[:, audio], adapter.text.enter(connected[:, :n]))
        clock = model.clock("connector", inputs.n_samples[0])
        assert clock.n_frames == connected.shape[1]
        assert clock.n_valid <= n


class TestFamilies:
    """What only one family has."""

    @pytest.mark.parametrize("family", ["wavlm-ctc", "wavlm-pre"])
    def test_wavlm_layers_return_tuples_and_their_first_element_is_the_stream(self, family):
        model = build(family)
        kinds = []
        layer = model.adapter.trunk.encoder.layers[1]
        handle = layer.register_forward_hook(lambda _m, _a, out: kinds.append(type(out)))
        inputs, _ = pair(model)
        cache = model.capture(inputs, "encoder.1.resid_post,encoder.2.resid_pre")
        handle.remove()
        assert kinds == [tuple]
        assert torch.equal(cache["encoder.1.resid_post"], cache["encoder.2.resid_pre"])

    @pytest.mark.parametrize("family", ["whisper", "hubert-base", "wav2vec2-pre"])
    def test_other_speech_layers_return_tensors(self, family):
        model = build(family)
        kinds = []
        module = model.adapter.stack_module("encoder").layers[1]
        handle = module.register_forward_hook(lambda _m, _a, out: kinds.append(type(out)))
        model.run(pair(model)[0])
        handle.remove()
        assert kinds == [torch.Tensor]

    def test_the_residual_adapter_does_something(self):
        model = build("wav2vec2-adapters")
        inputs, _ = pair(model)
        at = model.capture(inputs, "encoder.0.*")
        plain_sum = at["encoder.0.resid_mid"] + at["encoder.0.mlp_out"]
        assert (at["encoder.0.resid_post"] - plain_sum).abs().max() > 0.01

    def test_whisper_without_tokens_starts_the_transcript(self):
        model = build("whisper")
        inputs, _ = pair(model)
        start = model.run(inputs.with_tokens([3])).logits
        assert torch.equal(model.run(model.inputs(sound(10))).logits, start)

    @pytest.mark.parametrize("family", LANGUAGE)
    def test_a_language_model_refuses_sound(self, family):
        with pytest.raises(ModelError, match="is a language model and takes text, not sound"):
            build(family).inputs(sound(1))

    def test_an_encoder_refuses_tokens_and_has_nothing_to_embed(self):
        model = build("hubert-base")
        with pytest.raises(ModelError, match="has no decoder, so it takes no text and no tokens"):
            model.inputs(sound(1), tokens=[1, 2])
        with pytest.raises(ModelError, match="has no decoder, so it takes no tokens"):
            model.adapter.embed(torch.tensor([[1]]))

    def test_two_models_of_one_family_keep_their_taps_apart(self):
        first, second = build("llama"), build("llama", seed=1)
        inputs, _ = pair(first)
        plain = second.run(inputs).logits
        with first.intervene(Intervention("decoder.*.pattern", lambda p, _: torch.zeros_like(p))):
            assert torch.equal(second.run(inputs).logits, plain)
