"""Time the training of a TopK dictionary against SAELens's trainer: ``python bench/sae.py D FEATURES REPEATS THREADS``.

Both get the same frames and the same initial weights, k = 32, batches of 4096. Each works in a process of its own and only
one at a time, in turn (A B A B ...). Two settings:

* **defaults**: each with its own defaults, which is what a user waits for. This is what is timed, and whose memory counts.
* **matched**: the same mathematics in both (decoder rows of any norm, no rescaling by them, lr 3e-4, clipping at 1), so that
  both curves must be one. What is compared is the FVU of the last batches. It is timed as well.

Beside that, every architecture is trained for a few steps and written, SAELens loads the folder, and the features of both are
compared (``max_abs_diff``).

Frames are sparse sums of a planted dictionary with noise, so that there is something to learn. Peak memory is that of the
process after its libraries, its data and its first weights are there, up to the highest point of training.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

BATCH, K, LR = 4096, 32, 3e-4
#: batches of data, used in turn; steps of the timed and of the matched training
POOL, TIMED, MATCHED = 6, 4, 40
#: steps after which a dictionary is written, and frames whose features are compared
WRITTEN, COMPARED = 3, 1024


def frames(d: int) -> list[Any]:
    """The pool of batches, the same in every process."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4 * d, d, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    pool = []
    for _ in range(POOL):
        chosen = torch.randint(4 * d, (BATCH, 16), generator=generator)
        codes = torch.zeros(BATCH, 4 * d).scatter_(1, chosen, torch.rand(BATCH, 16, generator=generator) + 0.5)
        pool.append(codes @ rows + 0.02 * torch.randn(BATCH, d, generator=generator))
    return pool


def weights(d: int, n_features: int) -> Any:
    """Unit decoder rows; the encoder begins as their copy."""
    import torch

    rows = torch.randn(n_features, d, generator=torch.Generator().manual_seed(1))
    return rows / rows.norm(dim=1, keepdim=True)


def ours(d: int, n_features: int, matched: bool) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A step, and the reconstruction."""
    import torch

    from otoscope.sae.batch import Batch
    from otoscope.sae.registry import build
    from otoscope.sae.trainer import Trainer
    from otoscope.sae.training_config import TrainingConfig

    made = build({"architecture": "topk", "d": d, "n_features": n_features, "k": K})
    with torch.no_grad():
        made.decoder.copy_(weights(d, n_features))
        made.encoder.copy_(weights(d, n_features))
    same: dict[str, Any] = {"unit_decoder": False, "warmup": 0, "decay": 0.0} if matched else {}
    trainer = Trainer(
        made, TrainingConfig(steps=10_000, batch_size=BATCH, lr=LR, normalise="none", bias="zero", **same)
    )
    where = torch.zeros(BATCH, dtype=torch.long)
    return (lambda x: trainer.step(Batch(x, where, where.float()))), made


def saelens(d: int, n_features: int, matched: bool) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The same of SAELens."""
    import torch
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    made = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=d, d_sae=n_features, k=K, rescale_acts_by_decoder_norm=not matched)
    )
    with torch.no_grad():
        # by default its rows begin with a norm of 0.1
        made.W_dec.copy_(weights(d, n_features) * (1.0 if matched else 0.1))
        made.W_enc.copy_(made.W_dec.T)
    config = SAETrainerConfig(total_training_samples=10**10, train_batch_size_samples=BATCH, lr=LR, lr_end=LR)
    trainer = SAETrainer(config, made, iter(()))

    def step(x: Any) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step, made


def work(tool: str, d: int, n_features: int, matched: bool, threads: int) -> None:
    """A worker: one step or more per line that it reads, one line of JSON for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(threads)
    pool = frames(d)
    step, model = {"ours": ours, "saelens": saelens}[tool](d, n_features, matched)
    before, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    print(json.dumps({"ready": tool}), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step(pool[taken % POOL])
            seconds.append(time.perf_counter() - start)
            taken += 1
        with torch.no_grad():
            x = torch.cat(pool[:2])
            error = torch.cat([(b - model(b)).square().sum(1) for b in pool[:2]]).mean()
            fvu = float(error / (x.square().sum(1).mean() - x.mean(0).square().sum()))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps({"seconds": seconds, "fvu": fvu, "mb": grown}), file=answers, flush=True)


class _Pool:
    """The pool as a source of batches."""

    def __init__(self, d: int) -> None:
        self.d, self.pool = d, frames(d)

    def batches(self, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[Any]:
        import torch

        from otoscope.sae.batch import Batch

        where = torch.arange(batch_size)
        for i in count(start):
            yield Batch(self.pool[i % POOL][:batch_size], where // 50, (where % 50) / 50)


def difference(d: int, n_features: int, threads: int) -> float:
    """The largest difference between our features and those of SAELens, which loads what we wrote, over all kinds."""
    import torch
    from sae_lens import SAE

    from otoscope.sae.formats import saelens as layout
    from otoscope.sae.registry import ARCHITECTURES
    from otoscope.sae.train import train
    from otoscope.sae.training_config import TrainingConfig

    torch.set_num_threads(threads)
    source, worst = _Pool(d), 0.0
    x = source.pool[0][:COMPARED]
    for kind in ARCHITECTURES:
        config = TrainingConfig(steps=WRITTEN, batch_size=COMPARED, warmup=1, normalise_batches=1)
        made = train(source, kind, n_features, config).dictionary
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            theirs = SAE.load_from_disk(str(layout.write(made, folder)))
            codes = made.encode(x)
            if not (codes > 0).any():
                raise RuntimeError(f"a {kind} dictionary has no active feature to compare")
            worst = max(worst, float((theirs.encode(x) - codes).abs().max()))
    return worst


class _Worker:
    def __init__(self, tool: str, size: tuple[int, int], matched: bool, threads: int) -> None:
        arguments = [__file__, "--work", tool, *map(str, size), str(int(matched)), str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def compare(size: tuple[int, int], repeats: int, threads: int) -> dict[str, Any]:
    """Seconds per step, curves and memory of both."""
    found: dict[str, Any] = {"size": list(size), "batch": BATCH, "k": K}
    for setting in ("defaults", "matched"):
        workers = {tool: _Worker(tool, size, setting == "matched", threads) for tool in ("ours", "saelens")}
        try:
            seconds: dict[str, list[float]] = {tool: [] for tool in workers}
            curves: dict[str, list[float]] = {tool: [] for tool in workers}
            mb: dict[str, float] = {}
            for worker in workers.values():
                worker.ask(1)  # warms up
            steps = TIMED if setting == "defaults" else MATCHED // repeats
            for repeat in range(repeats):
                for tool, worker in workers.items():
                    got = worker.ask(steps)
                    seconds[tool].append(sum(got["seconds"]) / steps)
                    curves[tool].append(got["fvu"])
                    mb[tool] = got["mb"]
                    print(f"  sae {size[0]} {setting} {repeat + 1}/{repeats} {tool}: {seconds[tool][-1]:.3f} s a step, "
                          f"FVU {got['fvu']:.4f}", file=sys.stderr)  # fmt: skip
        finally:
            for worker in workers.values():
                worker.close()
        found[setting] = {"seconds": seconds, "fvu": curves, "peak_mb": mb}
    last = {tool: curve[-1] for tool, curve in found["matched"]["fvu"].items()}
    found["fvu_gap"] = abs(last["ours"] - last["saelens"]) / last["saelens"]
    arguments = [__file__, "--difference", *map(str, size), str(threads)]
    done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    found["max_abs_diff"] = float(done.stdout.split()[-1])
    return found


def main() -> None:
    if sys.argv[1] == "--work":
        tool, d, n_features, matched, threads = sys.argv[2], *map(int, sys.argv[3:7])
        work(tool, d, n_features, bool(matched), threads)
        return
    if sys.argv[1] == "--difference":
        warnings.filterwarnings("ignore")
        print(difference(*map(int, sys.argv[2:5])))
        return
    d, n_features, repeats, threads = map(int, sys.argv[1:5])
    print(json.dumps(compare((d, n_features), repeats, threads)))


if __name__ == "__main__":
    main()
