"""Natural states: the three measures against scipy and brute force, thresholds that hold on new utterances, padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis

from otoscope.errors import SiteError, TaskError
from otoscope.methods.natural import SINGLE, Natural, fit
from otoscope.models.inputs import Inputs
from tests.tiny import build, sound

SITE = "encoder.1.resid_post"
D = 12


def utterances(n, seed, offset=0.0, frames=120):
    """Autocorrelated states of rank 8 in 12 dimensions; every utterance may have an offset of its own."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((8, D)) * np.geomspace(3, 0.3, 8)[:, None]
    made = []
    for _ in range(n):
        steps = rng.standard_normal((frames, 8))
        for t in range(1, frames):
            steps[t] = 0.7 * steps[t - 1] + np.sqrt(1 - 0.49) * steps[t]
        made.append((steps + offset * rng.standard_normal(8)) @ mixing + 5.0 + 0.05 * rng.standard_normal((frames, D)))
    return made


@pytest.fixture(scope="module")
def natural():
    return Natural.of({SITE: utterances(40, 0)}, components=8)


@pytest.fixture(scope="module")
def fresh():
    return utterances(40, 1)


class TestMeasures:
    """Each measure is its definition."""

    def test_mahalanobis_is_scipys_where_all_axes_are_kept(self, fresh):
        states = np.concatenate(utterances(40, 0))
        full = Natural.of({SITE: utterances(40, 0)}, components=D)
        inverse = np.linalg.inv(np.cov(states.T))
        expected = [scipy_mahalanobis(x, states.mean(0), inverse) for x in fresh[0]]
        assert full.spaces[SITE].axes.shape == (D, D)
        assert full.score(SITE, fresh[0]).mahalanobis == pytest.approx(expected, rel=1e-8)

    def test_in_the_space_of_principal_axes_it_is_scipys_on_the_scores_of_an_svd(self, natural, fresh):
        states = np.concatenate(utterances(40, 0))
        _, singular, axes = np.linalg.svd(states - states.mean(0), full_matrices=False)
        scores = (states - states.mean(0)) @ axes[:8].T
        inverse = np.linalg.inv(np.cov(scores.T))
        there = (fresh[0] - states.mean(0)) @ axes[:8].T
        expected = [scipy_mahalanobis(x, np.zeros(8), inverse) for x in there]
        assert natural.score(SITE, fresh[0]).mahalanobis == pytest.approx(expected, rel=1e-8)
        assert natural.spaces[SITE].spread == pytest.approx(singular[:8] / np.sqrt(len(states) - 1), rel=1e-8)

    def test_the_nearest_state_is_brute_forces(self, natural, fresh):
        states = np.concatenate(utterances(40, 0))
        expected = cdist(fresh[0], states).min(1)
        assert natural.score(SITE, fresh[0]).nearest == pytest.approx(expected, rel=1e-10)
        assert natural.score(SITE, states[:50]).nearest == pytest.approx(0, abs=1e-12)

    def test_the_nearest_state_survives_a_far_away_mean_and_many_rows(self):
        rng = np.random.default_rng(0)
        states = [1e4 + rng.standard_normal((900, 4)) for _ in range(3)]
        natural = Natural.of({SITE: states}, components=4)
        x = 1e4 + rng.standard_normal((2500, 4))
        assert natural.score(SITE, x).nearest == pytest.approx(cdist(x, np.concatenate(states)).min(1), rel=1e-9)

    def test_the_norm_ratio_is_over_the_median_norm(self, natural, fresh):
        median = np.median(np.linalg.norm(np.concatenate(utterances(40, 0)), axis=1))
        expected = np.linalg.norm(fresh[0], axis=1) / median
        assert natural.score(SITE, fresh[0]).norm_ratio == pytest.approx(expected)
        assert natural.score(SITE, 3 * fresh[0]).norm_ratio == pytest.approx(3 * expected)

    def test_components_are_a_number_or_a_share_of_variance(self):
        states = np.concatenate(utterances(40, 0))
        variance = np.linalg.eigvalsh(np.cov(states.T))[::-1]
        share = np.cumsum(variance) / variance.sum()
        for asked in (0.5, 0.9, 0.99):
            kept = len(Natural.of({SITE: utterances(40, 0)}, components=asked).spaces[SITE].axes)
            assert share[kept - 1] >= asked > (share[kept - 2] if kept > 1 else 0)
        assert len(Natural.of({SITE: utterances(40, 0)}, components=3).spaces[SITE].axes) == 3
        few = Natural.of({SITE: utterances(3, 0, frames=10)}, components=D)
        assert len(few.spaces[SITE].axes) == 3, "at most a tenth of the states"

    def test_states_of_any_shape_and_kind(self, natural, fresh):
        flat = natural.score(SITE, fresh[0])
        tensor = natural.score(SITE, torch.from_numpy(fresh[0]).reshape(2, 60, D))
        heads = natural.score(SITE, fresh[0].reshape(120, 3, 4))
        for name in SINGLE:
            assert getattr(tensor, name).shape == (2, 60)
            assert getattr(tensor, name).ravel() == pytest.approx(getattr(flat, name))
            assert getattr(heads, name) == pytest.approx(getattr(flat, name))
        assert flat.summary()["nearest.max"] == flat.nearest.max()
        assert flat.summary()["mahalanobis.median"] == np.median(flat.mahalanobis)


class TestThresholds:
    """The 99th percentile is that of utterances which did not take part."""

    def test_each_utterance_is_measured_against_the_others_only(self, natural):
        made = utterances(40, 0)
        for left in (0, 17):
            others = Natural.of({SITE: made[:left] + made[left + 1 :]}, components=8)
            expected, got = others.score(SITE, made[left]), natural.spaces[SITE].held_out[left]
            for name in SINGLE:
                assert getattr(got, name) == pytest.approx(getattr(expected, name), rel=1e-7)

    @pytest.mark.parametrize("measure", [*SINGLE, "any"])
    @pytest.mark.parametrize("level", [0.99, 0.95])
    def test_new_natural_states_are_flagged_at_the_nominal_rate(self, natural, fresh, measure, level):
        states = np.concatenate(fresh)
        rate = natural.flag(SITE, natural.score(SITE, states), measure, level).mean()
        assert 0.5 * (1 - level) < rate < 1.7 * (1 - level)

    @pytest.mark.parametrize("measure", [*SINGLE, "any"])
    def test_the_rate_holds_where_utterances_differ_from_each_other(self, measure):
        rates = []
        for seed in (10, 20, 30):
            natural = Natural.of({SITE: utterances(150, seed, offset=1.5, frames=30)}, components=8)
            states = np.concatenate(utterances(150, seed + 1, offset=1.5, frames=30))
            rates.append(natural.flag(SITE, natural.score(SITE, states), measure).mean())
        assert 0.005 < np.mean(rates) < 0.02

    def test_states_that_took_part_would_have_given_a_threshold_that_is_too_low(self):
        made = utterances(10, 2, offset=1.5)
        natural = Natural.of({SITE: made}, components=8)
        own = natural.score(SITE, np.concatenate(made)).mahalanobis
        new = natural.score(SITE, np.concatenate(utterances(80, 3, offset=1.5))).mahalanobis
        dishonest, honest = np.quantile(own, 0.99), natural.threshold(SITE, "mahalanobis")
        assert honest > dishonest
        assert abs((new > honest).mean() - 0.01) < abs((new > dishonest).mean() - 0.01)

    @pytest.mark.parametrize("width", [1, 5, 20])
    def test_windows_are_compared_with_windows(self, natural, fresh, width):
        flagged = []
        for u in fresh:
            strange = natural.strangeness(SITE, natural.score(SITE, u), "mahalanobis")
            means = strange[: len(strange) // width * width].reshape(-1, width).mean(1)
            flagged += (means > natural.threshold(SITE, "mahalanobis", width)).tolist()
        assert 0.001 < np.mean(flagged) < 0.03

    def test_a_wider_window_has_a_lower_threshold_and_the_widest_is_the_whole_utterance(self, natural):
        limits = [natural.threshold(SITE, "mahalanobis", w) for w in (1, 5, 20, 120, 5000)]
        assert limits[:4] == sorted(limits[:4], reverse=True)
        assert limits[3] == limits[4]


class TestPlanted:
    """What was moved is found, by the measure that should find it."""

    def test_a_shift_along_a_principal_axis(self, natural, fresh):
        space = natural.spaces[SITE]
        moved = natural.score(SITE, fresh[0] + 12 * space.spread[0] * space.axes[0])
        for measure in ("mahalanobis", "nearest", "any"):
            assert natural.flag(SITE, moved, measure).all()

    def test_a_shift_out_of_the_space_is_seen_by_the_nearest_state_and_not_by_mahalanobis(self, natural, fresh):
        axes = natural.spaces[SITE].axes
        direction = np.linalg.svd(axes)[2][-1]
        moved = natural.score(SITE, fresh[0] + 15 * direction)
        assert natural.flag(SITE, moved, "nearest").all()
        assert natural.flag(SITE, moved, "any").all()
        assert natural.flag(SITE, moved, "mahalanobis").mean() < 0.1

    def test_a_stretch_and_a_shrinking_show_in_the_norm(self, natural, fresh):
        for factor in (3.0, 0.1):
            moved = natural.score(SITE, factor * fresh[0])
            assert natural.flag(SITE, moved, "norm_ratio").all()
            assert natural.flag(SITE, moved, "any").all()

    def test_the_mean_state_is_as_near_as_can_be_for_mahalanobis(self, natural, fresh):
        """A limit to know: what mean ablation writes lies in the middle of the cloud, however unlike any real state."""
        mean = np.concatenate(fresh).mean(0, keepdims=True)
        assert natural.score(SITE, mean).mahalanobis[0] < 1


class TestFit:
    """Collecting from a model."""

    def test_whispers_padding_is_left_out(self):
        model = build("whisper")
        lengths = [4000, 6000, 9000]
        clips = [sound(i, n) for i, n in enumerate(lengths)]
        natural = fit(model, [model.inputs(clips[:2], tokens=[3, 4]), model.inputs(clips[2], tokens=[3, 4])], SITE)
        valid = [model.clock("encoder", n).n_valid for n in lengths]
        assert [len(h.nearest) for h in natural.spaces[SITE].held_out] == valid == [13, 19, 29]
        plain = model.capture(model.inputs(clips[2], tokens=[3, 4]), SITE)[SITE][0, :29].double().numpy()
        assert np.abs(natural.spaces[SITE].states[-29:] - plain).max() < 1e-5

    def test_frames_after_a_shorter_clip_of_a_batch_are_left_out(self):
        model = build("wav2vec2-pre")
        clips = [sound(1, 4000), sound(2, 2000)]
        natural = fit(model, [model.inputs(clips)], "encoder.0.resid_post,encoder.0.z")
        valid = [model.clock("encoder", n).n_valid for n in (4000, 2000)]
        for space in natural.spaces.values():
            assert [len(h.nearest) for h in space.held_out] == valid
        alone = model.capture(model.inputs(clips[1]), "encoder.0.resid_post")["encoder.0.resid_post"][0]
        kept = natural.spaces["encoder.0.resid_post"].states[valid[0] :]
        assert np.abs(kept - alone.double().numpy()).max() < 1e-4

    def test_the_first_tokens_are_left_out(self):
        model = build("llama")
        tokens = torch.randint(4, 50, (6, 9), generator=torch.Generator().manual_seed(0))
        for skip in (0, 1, 3):
            natural = fit(model, [Inputs(tokens=tokens)], "decoder.1.z.2,decoder.1.resid_post", skip=skip)
            assert len(natural.spaces["decoder.1.resid_post"].states) == 6 * (9 - skip)
            assert natural.spaces["decoder.1.z.2"].mean.size == 4
        plain = model.capture(Inputs(tokens=tokens), "decoder.1.z")["decoder.1.z"]
        scored = natural.score("decoder.1.z.2", plain[:, :, 2])
        assert scored.nearest.shape == (6, 9)
        assert scored.nearest[:, 3:] == pytest.approx(0, abs=1e-6)

    def test_a_budget_takes_one_stretch_of_every_utterance(self):
        made = utterances(10, 0)
        natural = Natural.of({SITE: made}, max_states=200)
        assert len(natural.spaces[SITE].states) == 200
        for i, u in enumerate(made):
            stretch = natural.spaces[SITE].states[20 * i : 20 * i + 20]
            start = int(np.abs(u - stretch[0]).sum(1).argmin())
            assert np.array_equal(u[start : start + 20], stretch)


def test_bad_input_is_refused_in_one_sentence(natural):
    model = build("whisper")
    inputs = model.inputs([sound(1), sound(2)], tokens=[3, 4])
    with pytest.raises(TaskError, match="need at least two utterances, so that one can be held out, not 1"):
        fit(model, [inputs.item(0)], SITE)
    with pytest.raises(TaskError, match="need at least two utterances"):
        fit(model, [inputs], "decoder.1.resid_post", skip=9)
    with pytest.raises(SiteError, match="is an attention pattern, whose rows have no fixed width: name z"):
        fit(model, [inputs], "encoder.1.pattern")
    with pytest.raises(SiteError, match=r"has frames of its own rate: name 'encoder.0.resid_pre'"):
        fit(model, [inputs], "frontend.0.conv_out")
    with pytest.raises(SiteError, match="has no layer 9"):
        fit(model, [inputs], "encoder.9.z")
    with pytest.raises(TaskError, match="do not vary between clean runs: give different recordings"):
        Natural.of({SITE: [np.ones((30, 4)), np.ones((30, 4))]})
    with pytest.raises(TaskError, match="not finite: run the model in float32"):
        Natural.of({SITE: [np.full((30, 4), np.nan), np.ones((30, 4))]})
    with pytest.raises(TaskError, match="0 components make no space"):
        Natural.of({SITE: utterances(3, 0)}, components=0)
    with pytest.raises(SiteError, match=r"'encoder.0.z' was not fitted: the sites are encoder.1.resid_post"):
        natural.score("encoder.0.z", np.ones((3, D)))
    with pytest.raises(SiteError, match="have width 5, but it was fitted on width 12"):
        natural.score(SITE, np.ones((3, 5)))
    with pytest.raises(
        SiteError, match="'cosine' is not a measure: expected one of mahalanobis, nearest, norm_ratio, any"
    ):
        natural.threshold(SITE, "cosine")
