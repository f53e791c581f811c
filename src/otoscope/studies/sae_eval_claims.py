"""What AudioSAEBench claims of a dictionary: sentences whose thresholds stand here and not in a run."""

from __future__ import annotations

from collections.abc import Mapping

from otoscope.runs import Claim, Control, Threshold
from otoscope.stats import Interval
from otoscope.studies.sae_eval import Found

#: most of the variance that may stay unexplained; most words per word, answers and nats per token that may be lost
UNEXPLAINED, LOST_WORDS, LOST_ANSWERS, LOST_NATS = 0.25, 0.02, 0.05, 0.1
#: by how much one feature must tell phones better than one of a random dictionary (balanced accuracy)
TELLS = 0.02
#: share of features that another training, or another model, must have too
AGAIN, ACROSS = 0.5, 0.25
#: share of a probe's advantage, or of the words written on sounds, that an edit must take, and what it may cost in words per word
EFFECT, COST = 0.5, 0.005
#: least of (cause + isolate) / 2; doing nothing scores 0.5
DISENTANGLED = 0.6


def claims(found: Found) -> list[Claim]:
    """A claim for each of these numbers that was measured; what ranks planted dictionaries wrongly makes none."""
    own, random = found.numbers, found.rivals["random"]
    made: list[Claim] = []

    def claim(id: str, name: str, sentence: str, op: str, bound: float, **controls: Control) -> None:
        if name in own and found.verdict(name) != "unreliable":
            made.append(Claim.of(id, sentence, Threshold(op, bound), own[name], controls))  # type: ignore[arg-type]

    def margin(id: str, name: str, sentence: str, bound: float, sign: float = 1.0) -> None:
        if name in own and name in random and found.verdict(name) != "unreliable":
            gap = difference(own[name], random[name], sign)
            shown = {"dictionary": Control.of(own[name]), "random": Control.of(random[name])}
            made.append(Claim.of(id, sentence, Threshold(">=", bound), gap, shown))

    claim(
        "explains", "fvu", f"The dictionary leaves at most {UNEXPLAINED:.0%} of the variance unexplained.", "<=",
        UNEXPLAINED, **_shown(random, "fvu"),
    )  # fmt: skip
    margin("better_than_random", "fvu", "It explains more of the variance than a random frozen decoder.", 0.0, -1.0)
    margin(
        "tells_phones", "probe.phone.k1",
        f"One feature tells a phone by {TELLS:.0%} better than one of a random dictionary.", TELLS,
    )  # fmt: skip
    claim(
        "keeps_words", "wer_delta", f"With the frames rebuilt at most {LOST_WORDS:.0%} more words are wrong.", "<=",
        LOST_WORDS, **_shown(random, "wer_delta"),
    )  # fmt: skip
    claim(
        "keeps_prediction", "ce_delta", f"With the frames rebuilt a token costs at most {LOST_NATS:g} nats more.", "<=",
        LOST_NATS, **_shown(random, "ce_delta"),
    )  # fmt: skip
    claim(
        "keeps_answers", "answer_delta", f"With the frames rebuilt at most {LOST_ANSWERS:.0%} of the spoken digits are lost.",
        ">=", -LOST_ANSWERS, **_shown(random, "answer_delta"),
    )  # fmt: skip
    claim(
        "comes_again", "stability", f"At least {AGAIN:.0%} of the features come again in another training.", ">=", AGAIN,
        **_shown(random, "stability"),
    )  # fmt: skip
    claim(
        "across_models", "across", f"At least {ACROSS:.0%} of the features have a partner in another model's dictionary.",
        ">=", ACROSS, **_shown(random, "across"),
    )  # fmt: skip
    claim(
        "selective", "selectivity", "Ablating a feature is felt more by the tokens said while it is active than by others.",
        ">", 1.0, elsewhere=Control.of(own.get("selectivity_elsewhere"), Threshold("<", 1.5)),
        **_shown(own, "selectivity_other", "another feature"), **_shown(random, "selectivity"),
    )  # fmt: skip
    for label in ("manner", "sex", "voicing"):
        cost = own.get(f"erasing_wer.{label}")
        controls = {} if cost is None else {"WER": Control.of(cost, Threshold("<=", COST))}
        claim(
            f"erases_{label}", f"erased.{label}",
            f"Erasing five features takes at least {EFFECT:.0%} of what a probe tells of {label}"
            + ("." if cost is None else f", at a WER of at most {COST:.1%}."),
            ">=", EFFECT, null=Control.of(own.get(f"erased_null.{label}"), Threshold("<=", EFFECT / 2)), **controls,
        )  # fmt: skip
    if "sounds_words" in own:
        drop = difference(own["sounds_words_before"], own["sounds_words"])
        before = _value(own["sounds_words_before"])
        made.append(
            Claim.of(
                "silences_sounds",
                f"Turning up features of sounds takes at least {EFFECT:.0%} of the words written where nobody speaks, at a "
                f"WER of at most {COST:.1%}.",
                Threshold(">=", EFFECT * before), drop,
                {"WER": Control.of(own["sounds_wer"], Threshold("<=", COST))}, "share of sounds",
            )
        )  # fmt: skip
    claim(
        "disentangles", "disentangle",
        f"Exchanging the features of one phonological distinction moves it and no other (at least {DISENTANGLED:g}).", ">=",
        DISENTANGLED, **_shown(own, "disentangle_drawn", "features drawn at random"),
        **_shown(found.rivals.get("pca", {}), "disentangle", "principal components"), **_shown(random, "disentangle"),
    )  # fmt: skip
    return made


def difference(a: Interval | float, b: Interval | float, sign: float = 1.0) -> Interval | float:
    """``sign (a - b)``; bounds as if each erred in the direction that suits it least, so wider than those of pairs."""
    value = sign * (_value(a) - _value(b))
    if not isinstance(a, Interval) or not isinstance(b, Interval):
        return value
    ends = sorted((sign * (a.low - b.high), sign * (a.high - b.low)))
    return Interval(value, ends[0], ends[1], min(a.n, b.n))


def _shown(numbers: Mapping[str, Interval | float], name: str, label: str = "random dictionary") -> dict[str, Control]:
    return {label: Control.of(numbers[name])} if name in numbers else {}


def _value(number: Interval | float) -> float:
    return number.value if isinstance(number, Interval) else float(number)
