"""Train a dictionary on a stream of batches, so that it can be stopped at any moment and go on to the same bits.

A step: normalise, the architecture's pass, average over processes, take the gradient along the decoder's rows away, clip,
Adam, unit decoder. Adam is the dense one (fused into one pass), because almost every feature is active somewhere in a
batch of some thousand frames; a lazy one would save nothing and change its moments.

``FVU = E|x - x^|^2 / (E|x|^2 - |E x|^2)`` over the frames since the last row of the log.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from otoscope.errors import RunError
from otoscope.sae import checkpoint
from otoscope.sae.batch import Batch
from otoscope.sae.checkpoint import Checkpoint
from otoscope.sae.dictionary import Context, Dictionary, Pass
from otoscope.sae.distributed import Group
from otoscope.sae.loggers import Logger
from otoscope.sae.normalise import Normaliser, geometric_median
from otoscope.sae.partners import Links
from otoscope.sae.schedule import rate_factor, warmth
from otoscope.sae.training_config import TrainingConfig

Row = dict[str, float]


class Source(Protocol):
    """Where batches come from. The same arguments give the same batches; ``start`` leaves out the first ones."""

    def batches(self, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[Batch]:
        """Batches of frames; where they end, the next round has the next seed."""
        ...


@runtime_checkable
class PairSource(Protocol):
    """A source that also has frames together with their partners, as :class:`otoscope.sae.store.Store` does."""

    def pairs(self, batch_size: int, lag_s: float, *, seed: int = 0, start: int = 0) -> Iterator[Sequence[Batch]]:
        """Frames, the frames ``lag_s`` seconds before them, and other frames of the same utterances."""
        ...


class Trained(NamedTuple):
    """``dictionary`` of the activations as they are; ``log``: a row per ``log_every`` steps; ``normaliser`` as fitted."""

    dictionary: Dictionary
    log: list[Row]
    normaliser: Normaliser


class Window:
    """Sums over the frames since the last row of the log, in float64."""

    def __init__(self, d: int) -> None:
        self.sums = torch.zeros(4 + d, dtype=torch.float64)

    def add(self, x: Tensor, done: Pass) -> None:
        """Count a pass over ``x`` ``[frame, d]``."""
        head = torch.stack([done.squared_error, x.square().sum(), done.n_active, done.loss.detach() * len(x)])
        self.sums[:4] += head.cpu().to(torch.float64)
        self.sums[4:] += x.sum(0).cpu().to(torch.float64)

    def row(self, n: int) -> Row:
        """Loss, FVU and L0 of ``n`` frames."""
        error, squares, active, loss = (float(v) / n for v in self.sums[:4])
        variance = squares - float((self.sums[4:] / n).square().sum())
        return {"loss": loss, "fvu": error / variance if variance > 0 else float("nan"), "l0": active}


class Trainer:
    """One training.

    Args:
        dictionary: freshly made; it is trained in place, on normalised activations.
        config: settings; what is None comes from the architecture.
        folder: where checkpoints are kept; a training that was stopped goes on from there. None: none are.
        loggers: told every row of the log.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        config: TrainingConfig,
        folder: Path | None = None,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.config = config.completed(dictionary.defaults)
        self.group = Group(config.device)
        self.dictionary = dictionary.to(config.device)
        self.folder = folder
        self.loggers = tuple(loggers)
        self.generator = torch.Generator()
        self.parameters = list(dictionary.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, self._lr, self.config.betas or (0.9, 0.999), fused=True)
        self.since_fired = torch.zeros(dictionary.config.n_features, dtype=torch.int64, device=config.device)
        self.normaliser: Normaliser | None = None
        self.steps_done = 0
        self.epoch, self.batch = 0, 0
        self.window, self.frames = Window(dictionary.config.d), 0
        self.log: list[Row] = []
        self.last_terms: dict[str, Tensor] = {}

    @property
    def _lr(self) -> float:
        assert self.config.lr is not None
        return self.config.lr

    # -- the loop ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        source: Source,
        progress: Callable[[int, int], None] | None = None,
        report: Callable[[Row], None] | None = None,
    ) -> Trained:
        """Train to the end.

        Args:
            source: batches.
            progress: called with steps done and their number.
            report: called with every new row of the log.

        Raises:
            RunError: a batch holds NaN, the loss is not finite, a checkpoint cannot be written or read. What was trained
                before is kept.
            KeyboardInterrupt: Ctrl-C, after the step has ended and the checkpoint is written.
        """
        self._resume()
        if self.normaliser is None:
            first = source.batches(self.config.batch_size, seed=self.config.seed, start=0)
            frames = (batch.x for batch in islice(first, self.config.normalise_batches))
            self.normaliser = Normaliser.fit(frames, self.config.normalise).to(self.config.device)
            del first, frames  # ends what is read ahead for them, which the training would wait for
        with _ends_steps() as asked_to_stop:
            for blocks in self._batches(source):
                try:
                    self._check(blocks)
                    self.step(*blocks)
                    self.batch += 1  # not before: a batch that stops the training comes again when it goes on
                except RunError:
                    self._keep()  # what was learned before the bad batch
                    raise
                if self.steps_done % self.config.log_every == 0 or self.steps_done == self.config.steps:
                    row = self._row()
                    if report is not None and self.group.leads:
                        report(row)
                if progress is not None and self.group.leads:
                    progress(self.steps_done, self.config.steps)
                # asked once and last, so that nothing that was counted is lost; all processes stop at the same step
                stop = bool(self.group.any(torch.tensor(asked_to_stop(), device=self.config.device)))
                if self.steps_done % self.config.checkpoint_every == 0 or stop:
                    self._keep()
                if stop:
                    raise KeyboardInterrupt
        self._keep()
        self.dictionary.rescale(self.normaliser.mean, self.normaliser.scale)
        return Trained(self.dictionary, self.log, self.normaliser)

    def _batches(self, source: Source) -> Iterator[tuple[Batch, ...]]:
        """From where the training stands to its end, in as many rounds over the data as that takes."""
        while self.steps_done < self.config.steps:
            found = False
            for blocks in self._round(source, self.config.seed + self.epoch, self.batch):
                found = True
                yield blocks
                if self.steps_done >= self.config.steps:
                    return
            if not found and self.batch == 0:
                raise RunError(
                    f"the activations hold no batch of {self.config.batch_size} frames: harvest more recordings, or give a "
                    "smaller batch_size."
                )
            self.epoch, self.batch = self.epoch + 1, 0

    def _round(self, source: Source, seed: int, start: int) -> Iterator[tuple[Batch, ...]]:
        """Batches, or blocks of frames and their partners where the loss needs them and the source has them."""
        lag = self.dictionary.lag()
        if lag is None or not isinstance(source, PairSource):
            return ((batch,) for batch in source.batches(self.config.batch_size, seed=seed, start=start))
        n = self.dictionary.blocks()
        made = source.pairs(max(1, self.config.batch_size // n), lag, seed=seed, start=start)
        return (tuple(pairs)[:n] for pairs in made)

    def _check(self, blocks: tuple[Batch, ...]) -> None:
        for batch in blocks:
            if not torch.isfinite(batch.x).all():
                bad = ~torch.isfinite(batch.x).all(1)
                named = ", ".join(str(int(u)) for u in batch.utterance[bad].unique()[:5])
                raise RunError(
                    f"batch {self.steps_done + 1} holds {int(bad.sum())} frames that are NaN or infinite (recordings {named}), "
                    "so the training stopped before it: harvest these again or leave them out; the same command goes on "
                    "from here."
                )

    # -- one step ---------------------------------------------------------------------------------------------------

    def step(self, *blocks: Batch) -> Pass:
        """Train on one batch: frames, or frames, those before them and (where there are three) others of their utterances.

        Raises:
            RunError: the loss is not finite; the weights are as before.
        """
        config = self.config
        if self.steps_done == 0:
            self._begin_bias(blocks[0])
        batch, links = self._share(blocks)
        x = batch.x
        done = self.dictionary.training_pass(batch, self._context(links))
        if not torch.isfinite(done.loss):
            raise RunError(
                f"the loss is not finite at step {self.steps_done + 1}: lower --lr, or normalise the activations; the weights "
                "before that step are kept."
            )
        self.optimizer.zero_grad(set_to_none=True)
        done.loss.backward()
        self.group.average_gradients(self.parameters)
        if config.unit_decoder:
            self.dictionary.project_gradient()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        factor = rate_factor(self.steps_done, config.steps, config.warmup, config.decay)
        self.optimizer.param_groups[0]["lr"] = self._lr * factor
        self.optimizer.step()
        if config.unit_decoder:
            self.dictionary.unit_decoder()
        self.dictionary.constrain()
        self.group.average_buffers(self.dictionary)
        n = len(x) * self.group.size
        self.since_fired += n
        self.since_fired[self.group.any(done.fired)] = 0
        self.window.add(x, done)
        self.frames += n
        self.steps_done += 1
        self.last_terms = done.terms
        return done

    def _share(self, blocks: tuple[Batch, ...]) -> tuple[Batch, Links | None]:
        """This process's part of each block, normalised, one behind the other."""
        device = self.config.device
        own = [self.group.share(block) for block in blocks]
        x = torch.cat([b.x for b in own]) if len(own) > 1 else own[0].x
        x = self._normalised(x)
        utterance = torch.cat([b.utterance for b in own]).to(device)
        batch = Batch(x, utterance, torch.cat([b.time for b in own]).to(device))
        return batch, Links.of_blocks(len(own[0].x), len(own), device) if len(own) > 1 else None

    def _normalised(self, x: Tensor) -> Tensor:
        x = x.to(self.config.device, torch.float32)
        return x if self.normaliser is None else self.normaliser(x)

    def _context(self, links: Links | None) -> Context:
        config = self.config
        # seeded by the step, so that a resumed training draws the same
        self.generator.manual_seed(((config.seed << 40) + (self.steps_done << 12) + self.group.rank) % 2**63)
        dead = self.since_fired >= config.dead_after
        return Context(
            dead if bool(dead.any()) else None,
            warmth(self.steps_done, config.sparsity_warmup or 0),
            config.aux_k if config.aux_k is not None else self.dictionary.config.d // 2,
            config.aux_coefficient,
            self.generator,
            torch.bfloat16 if config.precision == "bfloat16" else torch.float32,
            links,
        )

    @torch.no_grad()
    def _begin_bias(self, batch: Batch) -> None:
        """Put the decoder's bias in the middle of the first batch (all of it, in every process)."""
        if self.config.bias == "zero":
            return
        x = self._normalised(batch.x)
        self.dictionary.decoder_bias.copy_(geometric_median(x) if self.config.bias == "median" else x.mean(0))

    def _row(self) -> Row:
        """A new row of the log; the sums begin again."""
        self.window.sums = self.group.sum(self.window.sums)
        dead = float((self.since_fired >= self.config.dead_after).float().mean())
        terms = {name: float(value) for name, value in self.last_terms.items()}
        row = {"step": float(self.steps_done), **self.window.row(self.frames), "dead": dead,
               "lr": float(self.optimizer.param_groups[0]["lr"]), **terms}  # fmt: skip
        self.window, self.frames = Window(self.dictionary.config.d), 0
        self.log.append(row)
        if self.group.leads:
            for logger in self.loggers:
                logger(self.steps_done, {name: value for name, value in row.items() if name != "step"})
        return row

    # -- stopping and going on --------------------------------------------------------------------------------------

    def state(self) -> Checkpoint:
        """All that a training needs to go on."""
        assert self.normaliser is not None
        tensors = {f"dictionary.{name}": tensor for name, tensor in self.dictionary.state_dict().items()}
        for name, parameter in self.dictionary.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        tensors |= {
            "since_fired": self.since_fired,
            "window": self.window.sums,
            "mean": self.normaliser.mean,
        }
        info = {
            "steps_done": self.steps_done, "epoch": self.epoch, "batch": self.batch, "frames": self.frames,
            "scale": self.normaliser.scale, "log": self.log, "dictionary": self.dictionary.describe(),
        }  # fmt: skip
        return Checkpoint(tensors, info)

    def restore(self, state: Checkpoint) -> None:
        """Go back to a state.

        Raises:
            RunError: it is that of another dictionary.
        """
        tensors, info = state
        theirs, ours = info["dictionary"], _as_json(self.dictionary.describe())
        if theirs != ours:
            raise RunError(
                f"the checkpoint is of a {theirs.get('architecture')} dictionary with other settings than this one: choose "
                "another --out, or delete it to start afresh."
            )
        device = self.config.device
        parts = {name[11:]: tensor for name, tensor in tensors.items() if name.startswith("dictionary.")}
        self.dictionary.load_state_dict(parts)
        for name, parameter in self.dictionary.named_parameters():
            prefix = f"adam.{name}."
            # the step counter stays where Adam keeps it, on the parameter's device for the fused kind
            kept = {key[len(prefix) :]: value.to(device) for key, value in tensors.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[parameter] = kept
        self.since_fired = tensors["since_fired"].to(device)
        self.window.sums, self.frames = tensors["window"], info["frames"]
        self.normaliser = Normaliser(tensors["mean"].to(device), info["scale"])
        self.steps_done, self.epoch, self.batch = info["steps_done"], info["epoch"], info["batch"]
        self.log = info["log"]

    def _resume(self) -> None:
        found = checkpoint.read(self.folder) if self.folder is not None else None
        if found is not None:
            self.restore(found)

    def _keep(self) -> None:
        if self.folder is None or self.normaliser is None:
            return
        self.window.sums = self.group.sum(self.window.sums)
        if self.group.leads:
            checkpoint.write(self.folder, self.state())
        else:
            self.window.sums.zero_()  # the leader keeps them for all
        self.group.wait()


def _as_json(value: Any) -> Any:
    """As it comes back from a file: tuples are lists."""
    if isinstance(value, dict):
        return {key: _as_json(v) for key, v in value.items()}
    return [_as_json(v) for v in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def _ends_steps() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only asks to stop, so that no step is left half done; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals are the main thread's
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
