"""Training: planted features are found, stopping costs nothing, and bad input ends in one sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from otoscope.errors import ModelError, RunError
from otoscope.runs import files
from otoscope.sae import loggers
from otoscope.sae.batch import Batch
from otoscope.sae.normalise import Normaliser, geometric_median
from otoscope.sae.registry import build
from otoscope.sae.schedule import rate_factor, warmth
from otoscope.sae.train import n_features, train
from otoscope.sae.trainer import Trainer
from otoscope.sae.training_config import TrainingConfig
from tests.sae.planted import Planted

ROOT = Path(__file__).resolve().parents[2]
FAST = {"batch_size": 256, "warmup": 20, "lr": 5e-3, "dead_after": 20_000, "log_every": 100, "sparsity_warmup": 50}
SHORT = {"batch_size": 64, "warmup": 3, "lr": 3e-3, "log_every": 4, "checkpoint_every": 5, "dead_after": 300}


@pytest.mark.parametrize(
    ("name", "settings", "steps", "share"),
    [("topk", {"k": 3}, 700, 0.95), ("batchtopk", {"k": 3}, 1200, 0.95), ("standard", {}, 1200, 0.95),
     ("jumprelu", {"target_l0": 3.0}, 700, 0.8), ("matryoshka", {"k": 3}, 1000, 0.7),
     ("temporal", {"k": 3, "alpha": 0.001}, 700, 0.7)],
)  # fmt: skip
def test_planted_features_are_found(name, settings, steps, share):
    source = Planted()
    untrained = build({"architecture": name, "d": 32, "n_features": 96, **settings}, torch.Generator().manual_seed(0))
    assert source.found(untrained.decoder) < 0.05, "a random dictionary has none of them"
    trained = train(source, name, 96, TrainingConfig(steps=steps, **FAST), **settings)
    assert source.found(trained.dictionary.decoder) >= share
    x = source.frames(1000, seed=99)
    with torch.no_grad():
        left = (x - trained.dictionary(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.25, "and it reconstructs frames it has not seen, in their own units"
    last = trained.log[-1]
    assert last["fvu"] == pytest.approx(float(left), abs=0.05)


def test_noise_without_features_has_none_to_be_found():
    source, nothing = Planted(), Planted(k=1, noise=1.0)
    trained = train(nothing, "topk", 96, TrainingConfig(steps=150, **FAST), k=3)
    assert source.found(trained.dictionary.decoder) < 0.1


def test_dead_features_are_revived():
    # as many true features as the dictionary has, so that all of its own are needed
    source = Planted(n_features=128)

    def trained(coefficient: float) -> tuple[float, float]:
        config = TrainingConfig(
            steps=600, batch_size=256, warmup=0, lr=3e-3, dead_after=5000, log_every=600, aux_coefficient=coefficient
        )
        made = build({"architecture": "topk", "d": 32, "n_features": 128, "k": 3}, torch.Generator().manual_seed(0))
        with torch.no_grad():
            made.encoder_bias[:64] = -0.5  # half of them are asleep at the start, but not in every frame
        done = Trainer(made, config).fit(source)
        return done.log[-1]["dead"], source.found(done.dictionary.decoder)

    (asleep, found_asleep), (revived, found_revived) = trained(0.0), trained(1 / 32)
    assert asleep > 0.4
    assert revived < asleep - 0.2
    assert found_revived > found_asleep + 0.2, "what is revived finds true features"


# -- stopping and going on ---------------------------------------------------------------------------------------------

KINDS = [
    ("topk", {"k": 3}),
    ("batchtopk", {"k": 3}),
    ("jumprelu", {}),
    ("temporal", {"k": 3, "long": 1.0, "max_pairs": 20}),
]


class _Stops(Planted):
    """Ends the training in the middle of its ``n``-th batch of data, as an error of the disk would."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def batches(self, batch_size, *, seed=0, start=0):
        made = super().batches(batch_size, seed=seed, start=start)
        if start:  # the first round is that of the normalisation
            yield from islice(made, self.n)
            raise OSError("the disk is gone")
        for i, batch in enumerate(made):
            if i >= 12:
                raise OSError("the disk is gone")
            yield batch


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_a_resumed_training_gives_the_same_bits(tmp_path, name, settings):
    config = TrainingConfig(steps=23, normalise_batches=4, **SHORT)
    whole = train(Planted(), name, 96, config, **settings)
    with pytest.raises(OSError, match="disk is gone"):
        train(_Stops(3), name, 96, config, folder=tmp_path, **settings)
    with pytest.raises(OSError, match="disk is gone"):
        train(_Stops(7), name, 96, config, folder=tmp_path, **settings)
    resumed = train(Planted(), name, 96, config, folder=tmp_path, **settings)
    for key, value in whole.dictionary.state_dict().items():
        assert torch.equal(value, resumed.dictionary.state_dict()[key]), key
    assert resumed.log == whole.log
    assert [row["step"] for row in whole.log] == [4, 8, 12, 16, 20, 23]


_KILLED = """
import sys, time
from pathlib import Path
from otoscope.sae.train import train
from otoscope.sae.training_config import TrainingConfig
from tests.sae.planted import Planted
def slow(done, total):
    print(done, flush=True); time.sleep(0.02)
done = train(Planted(), "topk", 96, TrainingConfig(steps=60, batch_size=64, checkpoint_every=5, warmup=3), k=3,
             folder=Path(sys.argv[1]), progress=slow)
from safetensors.torch import save_file
save_file({k: v.detach().contiguous() for k, v in done.dictionary.state_dict().items()}, sys.argv[2])
"""


def _run(folder: Path, result: Path) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _KILLED, str(folder), str(result)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_training_goes_on_to_the_same_bits(tmp_path, number):
    whole = _run(tmp_path / "whole", tmp_path / "whole.safetensors")
    killed = _run(tmp_path / "killed", tmp_path / "killed.safetensors")
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) >= 22:
            killed.send_signal(number)
            break
    killed.communicate()
    assert killed.returncode != 0
    assert not (tmp_path / "killed.safetensors").exists()
    again = _run(tmp_path / "killed", tmp_path / "killed.safetensors")
    steps = [int(line) for line in again.communicate()[0].split()]
    assert 20 < steps[0] <= 61 if number == signal.SIGKILL else steps[0] > 22, "it goes on, and does not begin again"
    whole.communicate()
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    config = {"steps": 10, **SHORT}
    a, b, c = (train(Planted(), "topk", 96, TrainingConfig(seed=s, **config), k=3).dictionary for s in (1, 1, 2))
    assert torch.equal(a.encoder, b.encoder)
    assert not torch.equal(a.encoder, c.encoder)


def test_data_that_end_are_gone_through_again():
    class Short(Planted):
        def batches(self, batch_size, *, seed=0, start=0):
            yield from islice(super().batches(batch_size, seed=seed, start=start), max(0, 5 - start))

    config = TrainingConfig(steps=13, normalise_batches=3, **SHORT)
    made = build({"architecture": "topk", "d": 32, "n_features": 96, "k": 3})
    trainer = Trainer(made, config)
    trainer.fit(Short())
    assert (trainer.epoch, trainer.batch, trainer.steps_done) == (2, 3, 13)


# -- several processes -------------------------------------------------------------------------------------------------

_TOGETHER = """
import sys, torch
from pathlib import Path
from otoscope.sae.train import train
from otoscope.sae.training_config import TrainingConfig
from tests.sae.planted import Planted
done = train(Planted(), "topk", 96, TrainingConfig(steps=12, batch_size=128, warmup=3, log_every=6, dead_after=300,
             aux_coefficient=0), k=3, folder=Path(sys.argv[1]))
import os
if os.environ.get("RANK", "0") == "0":
    from safetensors.torch import save_file
    save_file({k: v.detach().contiguous() for k, v in done.dictionary.state_dict().items()}, sys.argv[1] + "/done.safetensors")
    print([(row["fvu"], row["l0"], row["dead"]) for row in done.log])
"""


def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(_TOGETHER)
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    said = []
    for folder, extra in (("one", []), ("two", torchrun)):
        (tmp_path / folder).mkdir()
        command = [sys.executable, *extra, str(script), str(tmp_path / folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(eval(done.stdout.strip().splitlines()[-1]))
    one, two = (load_file(tmp_path / folder / "done.safetensors") for folder in ("one", "two"))
    for key in one:
        assert torch.allclose(one[key], two[key], atol=1e-5), key
    for a, b in zip(*said):
        assert a == pytest.approx(b, abs=1e-4)


# -- bad input ---------------------------------------------------------------------------------------------------------


class _Spoilt(Planted):
    def batches(self, batch_size, *, seed=0, start=0):
        for i, batch in enumerate(super().batches(batch_size, seed=seed, start=start), start):
            if i == 9:
                batch.x[5, 3] = float("nan")
            yield batch


def test_a_batch_with_nan_stops_the_training_before_it_and_loses_nothing(tmp_path):
    config = TrainingConfig(steps=15, normalise_batches=4, **SHORT)
    with pytest.raises(RunError, match=r"batch 10 holds 1 frames that are NaN or infinite \(recordings 0\)"):
        train(_Spoilt(), "topk", 96, config, folder=tmp_path, k=3)
    whole = train(Planted(), "topk", 96, config, k=3)
    resumed = train(Planted(), "topk", 96, config, folder=tmp_path, k=3)
    assert torch.equal(whole.dictionary.encoder, resumed.dictionary.encoder)


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    config = TrainingConfig(steps=11, normalise_batches=4, **SHORT)
    real, calls = os.replace, []

    def replace(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(RunError, match="the disk is full"):
        train(Planted(), "topk", 96, config, folder=tmp_path, k=3)
    monkeypatch.undo()
    made = build({"architecture": "topk", "d": 32, "n_features": 96, "k": 3})
    trainer = Trainer(made, config, tmp_path)
    trainer._resume()
    assert trainer.steps_done == 5


def test_a_truncated_checkpoint_is_one_sentence(tmp_path):
    config = TrainingConfig(steps=5, normalise_batches=2, **SHORT)
    train(Planted(), "topk", 96, config, folder=tmp_path, k=3)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match="is damaged or no checkpoint of a training: delete it"):
        train(Planted(), "topk", 96, config, folder=tmp_path, k=3)


def test_a_checkpoint_of_another_dictionary_is_refused(tmp_path):
    config = TrainingConfig(steps=5, normalise_batches=2, **SHORT)
    train(Planted(), "topk", 96, config, folder=tmp_path, k=3)
    with pytest.raises(RunError, match="topk dictionary with other settings"):
        train(Planted(), "topk", 96, config, folder=tmp_path, k=4)


def test_a_loss_that_is_not_finite_stops_the_training():
    made = build({"architecture": "topk", "d": 32, "n_features": 96, "k": 3})
    trainer = Trainer(made, TrainingConfig(steps=5, normalise="none", bias="zero"))
    x = torch.full((8, 32), 1e30)
    before = made.encoder.detach().clone()
    with pytest.raises(RunError, match="the loss is not finite at step 1"):
        trainer.step(Batch(x, torch.zeros(8, dtype=torch.long), torch.zeros(8)))
    assert torch.equal(before, made.encoder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"steps": 0}, "steps of a training must be at least 1"), ({"decay": 2.0}, "decay is a share"),
     ({"precision": "bfloat16"}, "bfloat16 is for GPUs"), ({"normalise": "layer"}, "normalise of a training is one of")],
)  # fmt: skip
def test_settings_of_a_training_that_cannot_be_used(settings, said):
    with pytest.raises(ModelError, match=said):
        TrainingConfig(**settings)


# -- parts -------------------------------------------------------------------------------------------------------------


def test_schedules():
    factors = [rate_factor(step, 20, 4, 0.25) for step in range(20)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[14:] == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert rate_factor(0, 10, 0, 0.0) == 1.0
    assert [warmth(step, 4) for step in (0, 3, 9)] == [0.25, 1.0, 1.0]
    assert warmth(0, 0) == 1.0


@pytest.mark.parametrize("kind", ["standard", "scale", "sqrt_d", "none"])
def test_normalisation_is_what_it_says(kind):
    frames = 5 * torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) + 3
    made = Normaliser.fit(frames.split(300), kind)
    z = made(frames).double()
    if kind == "standard":
        assert z.mean(0).abs().max() < 1e-5
        assert z.square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)
    elif kind == "scale":
        assert z.square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)
    elif kind == "sqrt_d":
        assert z.norm(dim=1).mean().item() == pytest.approx(4, rel=1e-5)
    else:
        assert torch.equal(z.float(), frames)


def test_frames_that_do_not_vary_cannot_be_normalised():
    with pytest.raises(RunError, match="cannot be normalised"):
        Normaliser.fit([torch.zeros(10, 4)], "standard")
    with pytest.raises(RunError, match="hold no frames"):
        Normaliser.fit([], "standard")


def test_the_geometric_median_does_not_follow_an_outlier():
    points = torch.cat([torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), torch.full((20, 4), 100.0)])
    median = geometric_median(points)
    assert median.norm() < 1 < 10 < points.mean(0).norm()
    away = (points - median).norm(dim=1).sum()
    for step in 0.05 * torch.eye(4):
        assert (points - median - step).norm(dim=1).sum() > away


def test_widths():
    assert n_features("8x", 384) == 3072
    assert n_features("1.5x", 10) == 15
    assert n_features("500", 10) == 500
    for bad in ("x", "many", "0x", "-4"):
        with pytest.raises(ModelError, match="a width is a number of features or a multiple"):
            n_features(bad, 10)


def test_every_logger_is_told_every_row_and_a_missing_one_is_one_sentence(monkeypatch):
    told = []
    train(
        Planted(),
        "topk",
        96,
        TrainingConfig(steps=9, **SHORT),
        k=3,
        loggers=[lambda step, row: told.append((step, row))],
    )
    assert [step for step, _ in told] == [4, 8, 9]
    assert {"loss", "fvu", "l0", "dead", "lr", "mse"} <= set(told[0][1])
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModelError, match="pip install wandb"):
        loggers.wandb("project")
    with pytest.raises(ModelError, match="pip install tensorboard"):
        loggers.tensorboard("folder")


def test_the_bars_fvu_is_that_of_the_definition():
    source = Planted()
    made = build({"architecture": "topk", "d": 32, "n_features": 96, "k": 3}, torch.Generator().manual_seed(0))
    config = TrainingConfig(
        steps=3, batch_size=50, log_every=3, lr=1e-12, clip=None, unit_decoder=False, normalise="standard"
    )
    trained = Trainer(made, config).fit(source)
    x = torch.cat([b.x for b in islice(source.batches(50), 3)])
    with torch.no_grad():
        left = x - trained.dictionary(x)
    wanted = left.square().sum(1).mean() / (x.square().sum(1).mean() - x.mean(0).square().sum())
    assert trained.log[-1]["fvu"] == pytest.approx(wanted.item(), rel=1e-3)
