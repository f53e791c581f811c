"""Recordings, activations and dictionaries of the recipe that asks whether a temporal loss helps.

Speakers (of sounds, the folds in which their publisher keeps recordings of one source together) are either trained on or held
out. Training hears a mixture of speech and sounds, some in noise; what is held out is heard as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otoscope.engine.model import Model
from otoscope.errors import RunError
from otoscope.sae.batchtopk import BatchTopK
from otoscope.sae.dictionary import Dictionary
from otoscope.sae.formats import saelens
from otoscope.sae.harvest import Harvest
from otoscope.sae.measures.consistency import tcs
from otoscope.sae.measures.frames import Frames, Label, Reading, csr
from otoscope.sae.measures.from_store import frames_of
from otoscope.sae.measures.phone_classes import english
from otoscope.sae.measures.probing import probe_hits
from otoscope.sae.measures.purity import phone_purity
from otoscope.sae.measures.reconstruction import fvu
from otoscope.sae.measures.rivals import read_with
from otoscope.sae.measures.smoothness import adjacent_overlap, smoothed
from otoscope.sae.measures.sparsity import alive, l0
from otoscope.sae.measures.stability import stability
from otoscope.sae.mixing import Mixture, Noise
from otoscope.sae.recordings import Recording, find
from otoscope.sae.store import Store
from otoscope.sae.train import train
from otoscope.sae.training_config import TrainingConfig
from otoscope.studies.sae_paper import HIGH, ORDERED, PaperConfig, Variant

Progress = Callable[[int, int], None] | None

#: corpus -> its share of the training's sound
WEIGHTS = {"librispeech": 0.43, "librispeech_speakers": 0.27, "speech_commands": 0.06, "fsdd": 0.02, "esc10": 0.22}
#: corpora of sentences, and of sounds that are no speech
SENTENCES, SOUNDS = "librispeech", "esc10"
#: corpora of single words, which only the FVU over all held-out frames looks at
_WORDS = ("speech_commands", "fsdd")
#: frames from which the threshold of inference is set after a training
_CALIBRATED = 8192
#: a feature counts as dead, and is revived, after so many frames without activity
_DEAD_AFTER = 100_000


@dataclass(frozen=True, eq=False)
class Corpus:
    """Recordings to train on and those held out."""

    train: Sequence[Recording]
    held: Sequence[Recording]

    def about(self) -> dict[str, Any]:
        """How many there are, by corpus."""
        made: dict[str, Any] = {}
        for part, recordings in (("train", self.train), ("held out", self.held)):
            for corpus in dict.fromkeys(r.corpus for r in recordings):
                own = [r for r in recordings if r.corpus == corpus]
                made[f"{corpus}, {part}"] = {
                    "recordings": len(own), "minutes": round(sum(r.seconds for r in own) / 60, 2),
                    "apart": len({unit_of(r) for r in own}),
                }  # fmt: skip
        return made


def unit_of(recording: Recording) -> str:
    """What is kept on one side: the speaker, the fold of a sound, else the recording."""
    return recording.speaker or recording.labels.get("fold") or recording.name


def split(data: Path, config: PaperConfig) -> Corpus:
    """Draw who is held out, in every corpus that is there.

    Raises:
        RunError: there are no sentences.
        AudioError: a corpus cannot be read.
    """
    if not (data / SENTENCES).is_dir():
        raise RunError(f"{data} has no folder {SENTENCES}: name a folder with recordings of {', '.join(WEIGHTS)}.")
    to_train: list[Recording] = []
    held_out: list[Recording] = []
    for corpus in WEIGHTS:
        if not (data / corpus).is_dir():
            continue
        recordings = find(data / corpus)
        units = sorted({unit_of(r) for r in recordings})
        rng = np.random.default_rng(config.seed)
        held = {units[i] for i in rng.permutation(len(units))[: max(1, round(config.share * len(units)))]}
        to_train += [r for r in recordings if unit_of(r) not in held]
        own = [r for r in recordings if unit_of(r) in held]
        most = config.held_out // (2 if corpus in _WORDS else 1)
        held_out += [own[i] for i in sorted(rng.permutation(len(own))[:most])]
    return Corpus(to_train, held_out)


def mixture(corpus: Corpus, config: PaperConfig, takes: int) -> Mixture:
    """What the training hears: shares of corpora, and noise of two kinds in some recordings."""
    there = {r.corpus for r in corpus.train}
    noises = [Noise(config.noise / 2)]
    if sounds := tuple(r.path for r in corpus.train if r.corpus == SOUNDS):
        noises.append(Noise(config.noise / 2, sounds=sounds))
    weights = {name: weight for name, weight in WEIGHTS.items() if name in there}
    # the training reads no labels, so nothing is aligned
    return Mixture(tuple(corpus.train), weights, tuple(noises), config.seed, takes)


def harvested(
    model: Model, heard: Mixture, sites: Sequence[str], out: Path, progress: Progress, notify: Callable[[str], None]
) -> Path:
    """A store of activations; one that was stopped goes on, one that is finished is only checked."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    Harvest(model, heard, sites, out, memory_gb=4.0).run(progress, notify)
    return out


def dictionary(folder: Path, store: Store, variant: Variant, config: PaperConfig, seed: int) -> Dictionary:
    """The training of a kind with a seed: read where it is finished, else made, from its last checkpoint on."""
    if not saelens.recognises(folder):
        training = TrainingConfig(
            steps=config.steps, batch_size=config.batch_size, lr=config.lr, warmup=config.steps // 10, seed=seed,
            dead_after=_DEAD_AFTER, checkpoint_every=max(1, config.steps // 2), log_every=max(1, config.steps // 10),
        )  # fmt: skip
        checkpoints = folder.with_name(folder.name + ".training")
        made = train(
            store, variant.architecture, config.width, training, folder=checkpoints, k=config.k, **variant.settings
        ).dictionary
        equal_l0(made, store, config.k)
        saelens.write(made, folder)
        shutil.rmtree(checkpoints, ignore_errors=True)
    return saelens.read(folder)


@torch.no_grad()
def equal_l0(made: Dictionary, store: Store, k: int) -> None:
    """Give a kind with a threshold at inference the one at which ``k`` features are active on average on training frames.

    What a short training's running average gives is too low or too high by a fifth, and kinds of different L0 cannot be
    compared.
    """
    if not isinstance(made, BatchTopK):
        return
    x = next(iter(store.batches(min(_CALIBRATED, store.n_frames), seed=7))).x
    pre = torch.addmm(made.encoder_bias, made.centred(x), made.encoder.T).flatten().numpy()
    least = len(pre) - k * len(x)
    made.threshold.fill_(max(0.0, float(np.partition(pre, least)[least - 1])))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out frames of one layer: ``all`` of them, those of sentences and of their speakers, those of sounds (or None)."""

    all: Frames
    speech: Frames
    sounds: Frames | None

    @classmethod
    def of(cls, store: Store) -> HeldOut:
        """From a store.

        Raises:
            RunError: there are fewer than two sentences, or none has times of phones.
        """

        def part(wanted: Callable[[str], bool]) -> list[int]:
            return [u.number for u in store.utterances if wanted(u.corpus)]

        sounds = part(lambda corpus: corpus == SOUNDS)
        speech = frames_of(store.subset(part(lambda corpus: corpus.startswith(SENTENCES))))[0]
        if not speech.phone.names:
            raise RunError(
                f"no held-out sentence in {store.path} has times of phones: give sentences with English transcripts, or phones."
            )
        return cls(frames_of(store)[0], speech, frames_of(store.subset(sounds))[0] if len(sounds) > 1 else None)


def read(made: Dictionary, variant: Variant, frames: Frames, k: int) -> Reading:
    """What a dictionary makes of frames; averaged over neighbours where the kind is."""
    reading = read_with(made, frames.x)
    if not variant.of:
        return reading
    codes = smoothed(reading.codes, frames.utterance, k)
    rebuilt = np.asarray(codes @ made.decoder.numpy()) + made.decoder_bias.numpy()
    return Reading(codes, rebuilt, reading.decoder)


def measured(made: Dictionary, variant: Variant, held: HeldOut, config: PaperConfig) -> dict[str, Any]:
    """Every number of one training: values, and under ``hits.*`` sums over recordings."""
    made = made.requires_grad_(False)
    whole = read(made, variant, held.all, config.k)
    of_speech = np.isin(held.all.utterance, np.unique(held.speech.utterance))
    speech, frames = whole.take(of_speech), held.speech
    few: dict[str, Any] = {"n_resamples": 2, "seed": config.seed}
    known = (frames.utterance, frames.phone.codes)
    found: dict[str, Any] = {
        "fvu": fvu(held.all.x, whole.rebuilt, held.all.utterance, **few).value,
        "fvu.speech": fvu(frames.x, speech.rebuilt, frames.utterance, **few).value,
        "l0": l0(speech.codes, frames.utterance, **few).value,
        "l0.all": l0(whole.codes, held.all.utterance, **few).value,
        "alive": alive(whole.codes),
        "tcs": tcs(speech.codes, *known, **few).value,
        "phone_purity": phone_purity(speech.codes, *known, len(frames.phone.names), **few).strict.value,
        "overlap": adjacent_overlap(speech.codes, frames.utterance, **few).value,
    }
    found |= _probed(speech.codes, frames, config, ("phone", "speaker"))
    found |= _probed(speech.codes, frames, config, ("manner", "sex"), ks=(1,))
    if variant.name == "temporal":
        found |= _probed(speech.codes, _phones_shuffled(frames, config.seed), config, ("phone",), "shuffled", ks=(1,))
    if held.sounds is not None:
        sounds = whole.take(np.isin(held.all.utterance, np.unique(held.sounds.utterance)))
        found["fvu.sounds"] = fvu(held.sounds.x, sounds.rebuilt, held.sounds.utterance, **few).value
        if "label" in held.sounds.labels:
            hits = probe_hits(
                sounds.codes, held.sounds.labels["label"], held.sounds.utterance, ks=(1, 5), seed=config.seed
            )
            found |= {f"hits.sound.k{k}": value for k, value in hits.items()}
    if variant.architecture in ORDERED:
        high = csr(speech.codes[:, : round(HIGH * made.config.n_features)])
        found["high.overlap"] = adjacent_overlap(high, frames.utterance, **few).value
        found["high.l0"] = l0(high, frames.utterance, **few).value
        found |= _probed(high, frames, config, ("phone", "speaker"), "high.phone", "high.speaker", ks=(1,))
    return found


def _probed(
    codes: Any, frames: Frames, config: PaperConfig, labels: Sequence[str], *names: str, ks: Sequence[int] = (1, 5)
) -> dict[str, np.ndarray]:
    """Hits of sparse probes for labels, under their own or other names."""
    of_phone = english(frames.phone.names).partitions["manner"]
    known: Mapping[str, Label] = {
        "phone": frames.phone,
        "manner": Label(_manner(frames.phone.codes, of_phone[0]), of_phone[1]),
        **{name: label for name, label in frames.labels.items() if name in ("speaker", "sex")},
    }
    found = {}
    for label, name in zip(labels, names or labels):
        if label in known and known[label].names:
            hits = probe_hits(
                codes, known[label], frames.utterance, frames.speaker, ks=ks, most=config.rows, seed=config.seed,
                every_fold=True,
            )  # fmt: skip
            found |= {f"hits.{name}.k{k}": value for k, value in hits.items()}
    return found


def _manner(phone: np.ndarray, of_phone: np.ndarray) -> np.ndarray:
    return np.where(phone >= 0, of_phone[np.maximum(phone, 0)], -1) if len(of_phone) else np.full(len(phone), -1)


def _phones_shuffled(frames: Frames, seed: int) -> Frames:
    """The same frames with the phones of their known frames in random order."""
    codes = frames.phone.codes.copy()
    there = np.flatnonzero(codes >= 0)
    codes[there] = np.random.default_rng(seed).permutation(codes[there])
    label = Label(codes, frames.phone.names)
    return Frames(frames.x, frames.utterance, label, frames.silent, frames.labels, frames.speaker)


def found_again(trainings: Sequence[Dictionary], frames: Frames) -> list[float]:
    """Share of features that another training has too, of every pair of trainings."""
    readings = [read_with(made.requires_grad_(False), frames.x) for made in trainings]
    shares = []
    for i, a in enumerate(readings):
        for b in readings[i + 1 :]:
            assert a.decoder is not None
            assert b.decoder is not None
            both = stability(a.codes, b.codes, frames.utterance, a.decoder, b.decoder, n_resamples=2)
            shares.append(both.firing.value)
    return shares
